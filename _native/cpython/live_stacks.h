/* Live stacks: the frames of threads that run meanwhile, read without the GIL and without stopping anybody.
 *
 * From the timer thread, attached or not, holding no lock. Everything is copied by guarded reads and checked;
 * no pointer that was read is followed otherwise, and no code object is touched: what the walk must know of
 * one (its shape) comes from a table that was made with the GIL, and a code object that is not in it makes
 * the walk give up.
 *
 * What makes a copied stack credible: thread-owned frames lie one after the other on the thread's data stack,
 * each as long as its code says; every instruction pointer is inside its code; a frame outside the data stack
 * belongs to a generator that is executing, or to C code; the chain ends at the bottom. If besides the thread
 * did not move its stack while it was copied, the stack is exact.
 */
#ifndef PYPROF_CPYTHON_LIVE_STACKS_H
#define PYPROF_CPYTHON_LIVE_STACKS_H

#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpython/interpreter.h"

/* One node of the interpreter's list of thread states. */
typedef struct {
    const char *address, *previous, *next;
    const void *interp;
    uint64_t unique_id, tid;
    const char *frame_holder; /* what has `frame`, and moves with C calls into the interpreter, until 3.12 */
    const char *frame;        /* the innermost */
    const char *chunk, *top, *limit; /* of the data stack */
} pyprof_live_thread;

bool pyprof_live_thread_read(const void *tstate, pyprof_live_thread *thread);

typedef enum {
    PYPROF_LIVE_EXACT,
    PYPROF_LIVE_UNVERIFIED,   /* credible, but the thread moved meanwhile */
    PYPROF_LIVE_UNKNOWN_CODE, /* a code object that `find` does not know */
    PYPROF_LIVE_TORN,         /* no credible stack */
} pyprof_live_result;

typedef pyprof_code_shape *(*pyprof_find_code)(const void *code);

/* Leaf first, at most `max` frames; `*truncated` tells whether the stack had more. `thread` as it was read a
 * moment ago; it is read again where the walk has to be repeated. */
pyprof_live_result pyprof_walk_live(pyprof_live_thread *thread, pyprof_find_code find,
                                    pyprof_code_frame *frames, size_t max, size_t *depth, bool *truncated);

/* Checks the layouts and proves them on the calling thread's own stack; attached, after
 * `pyprof_raw_walk_obstacle` said NULL. NULL, or why live stacks cannot be read here. */
const char *pyprof_live_stacks_obstacle(void);

#endif
