/* Live stacks: the frames of threads that run meanwhile, read without the GIL and without stopping anybody.
 *
 * From the timer thread, attached or not, holding no lock. Everything is copied by guarded reads and checked;
 * no pointer that was read is followed otherwise. What the walk must know of a code object (its shape) comes
 * from who calls, and a code object of which that knows nothing makes the walk give up.
 *
 * What makes a copied stack credible: thread-owned frames lie one after the other on the thread's data stack,
 * each as long as its code says; every instruction pointer is inside its code; a frame outside the data stack
 * belongs to a generator that is executing, or to C code; the chain ends at the bottom. The innermost frames
 * are copied twice: where both copies are the same, the stack was that. Where they are not, the thread moved
 * in that microsecond, and a copy may mix two moments between which frames of one size took each other's
 * place. It shows calls that nobody makes: so each call, from this instruction to that function, must be
 * known, from stacks that did not move or one that was read with the GIL.
 *
 * A moment at which the thread moves must not be given up for the next at which it does not: functions that
 * run for microseconds would lose to longer ones. That is what the second copy is for, and why the next copy
 * is made large enough for what this one met.
 */
#ifndef PYPROF_CPYTHON_LIVE_STACKS_H
#define PYPROF_CPYTHON_LIVE_STACKS_H

#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpython/code_view.h"
#include "cpython/guarded_read.h"
#include "cpython/interpreter.h"

enum { PYPROF_LIVE_THREAD_BYTES = 384 };

/* One node of the interpreter's list of thread states, as it was last read. */
typedef struct {
    const char *address, *previous, *next;
    const void *interp;
    uint64_t unique_id, tid;
    const char
        *frame_holder; /* what has `frame`, and changes with C calls into the interpreter, until 3.12 */
    const char *frame; /* the innermost */
    const char *chunk, *top, *limit; /* of the data stack */
    const char *context;             /* NULL: none */
    bool in_trace_function;
    char copy[PYPROF_LIVE_THREAD_BYTES];
} pyprof_live_thread;

/* Copies of a thread's frames, and where the next copy is expected to find them. */
typedef struct pyprof_live_stack pyprof_live_stack;
pyprof_live_stack *pyprof_live_stack_new(void); /* NULL without memory */
void pyprof_live_stack_free(pyprof_live_stack *stack);
size_t pyprof_live_stack_bytes(const pyprof_live_stack *stack);

/* What has to be read of a thread whose `address` is set, and with `stack` of its stack, near to where both
 * were the last time; many threads can be read in one system call. At most PYPROF_LIVE_READS. False: no
 * memory. Then `parse`, once that was done. */
enum { PYPROF_LIVE_READS = 96 };
bool pyprof_live_reads(pyprof_live_thread *thread, pyprof_live_stack *stack, pyprof_read *reads,
                       size_t *count);
void pyprof_live_parse(pyprof_live_thread *thread);

typedef enum {
    PYPROF_LIVE_EXACT,
    PYPROF_LIVE_UNVERIFIED, /* credible, but the thread moved meanwhile */
    PYPROF_LIVE_INCOMPLETE, /* the callers are; what is innermost moved too fast, and is left out */
    PYPROF_LIVE_ODD_CALL,   /* the same, with a call that was never seen, if it is one */
    PYPROF_LIVE_UNKNOWN,    /* a code object that `find` does not know */
    PYPROF_LIVE_TORN,       /* no credible stack */
} pyprof_live_result;

typedef pyprof_code_shape *(*pyprof_find_code)(const void *code);

typedef struct {
    pyprof_code_frame *frames; /* leaf first */
    size_t max;                /* at most so many that have begun */
    size_t depth;
    bool truncated; /* the stack had more */
    /* At the first look, and only if it stands still. */
    bool is_exact_only;
    /* Nobody reads it with the GIL: so what stands still is what teaches calls, and is what is left of a
     * stack that does not come out whole. */
    bool is_read_by_nobody_else;
    /* The copy must be of the context that the thread has, too: see `pyprof_live_variables`. */
    bool reads_context;
    /* The thread moved too fast: not, that its stack had come to reach further than what was copied. */
    bool gave_up_whole_copy;
    bool is_of_later_copy;
    bool stood_still;        /* at the first look */
    bool is_incomplete;      /* frames[0] has called something */
    const char *instruction; /* of frames[0] */
    const char *c_stack;     /* somewhere on the thread's C stack; NULL: no frame of C code was met */
} pyprof_live_walk;

/* Fills `walk`, whose `frames`, `max`, `is_exact_only`, `is_read_by_nobody_else` and `reads_context` are set.
 * `is_copied`: what `pyprof_live_reads` asked for has just been read and parsed; the rest is read here, as
 * often as it takes.
 */
pyprof_live_result pyprof_walk_live(pyprof_live_thread *thread, pyprof_live_stack *stack, bool is_copied,
                                    pyprof_find_code find, pyprof_live_walk *walk);

/* After a walk: what the thread's context had when the stack was copied ("cpython/contexts.h"). False: that
 * was not copied. */
bool pyprof_live_variables(const pyprof_live_thread *thread, const pyprof_live_stack *stack,
                           const pyprof_live_walk *walk, const void **variables);

/* Whether its context still has these. */
bool pyprof_live_has_variables(const pyprof_live_thread *thread, const void *variables);

/* Whether the thread still has the innermost frame of that walk, at the same instruction. */
bool pyprof_live_stands_still(const pyprof_live_thread *thread, const pyprof_live_walk *walk);

/* The calls of a stack: certain, if it was read with the GIL; else, where nobody does that, one that seems to
 * have stood still. Within the microsecond its thread may have come back to where it was, so that such a
 * call must be seen more than once to be known. One thread at a time. */
void pyprof_live_learn_calls(const pyprof_code_frame *frames, size_t depth, bool is_certain);

/* Checks the layouts and proves them on the calling thread's own stack; attached, after
 * `pyprof_raw_walk_obstacle` said NULL. NULL, or why live stacks cannot be read here. */
const char *pyprof_live_stacks_obstacle(void);

/* Part of that which may change while the timer runs. From any thread, attached or not. */
const char *pyprof_evaluation_obstacle(PyInterpreterState *interp);

#endif
