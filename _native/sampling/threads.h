/* Threads: what the timer thread remembers of each Python thread from tick to tick.
 *
 * Owned and changed by the timer thread alone. While an engine takes a snapshot, the timer waits and the
 * thread that takes it may read.
 */
#ifndef PYPROF_THREADS_H
#define PYPROF_THREADS_H

#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "windows/window.h"

/* Thread states and kernel ids are used again; together with CPython's own count they are not. */
typedef struct {
    const void *tstate; /* compared, never followed */
    uint64_t unique_id;
    uint64_t tid;
} pyprof_thread_key;

#define PYPROF_NO_STACK UINT32_MAX
#define PYPROF_UNKNOWN (-1)

typedef struct {
    pyprof_thread_key key;
    int64_t clock_ns;      /* at the last tick, read before its snapshot */
    int64_t placeable_ns;  /* up to here this tick may charge it */
    int64_t certain_ns;    /* part of that which was used at the stack of this tick without doubt */
    int64_t charged_ns;    /* up to here the clock is in a window */
    int64_t tail_ns;       /* to be charged after its end, see charge.c; or PYPROF_UNKNOWN */
    int64_t weight_ns;     /* time that the last sample stands for, if that found it on a CPU; else 0 */
    bool moved;            /* the clock went on since the tick before */
    int64_t ran_ns;        /* how far, since it was last read */
    bool ended;            /* the clock is gone */
    bool on_cpu;           /* this tick may place CPU time */
    bool in_python;        /* `stack` has Python frames */
    bool stack_is_current; /* the thread has not run since `stack` was seen */
    pyprof_stack_id stack; /* ids are of the current window; PYPROF_NO_STACK: none there yet */
    pyprof_stack_id placed_stack;
    pyprof_stack_id moved_stack;
} pyprof_thread;

typedef struct {
    pyprof_thread *items; /* in the order of the last snapshot */
    size_t count, capacity;
    int64_t patience_ns; /* CPU time that may stay unplaced for a while */
    bool trust_clocks;   /* a clock that stands still proves that its thread did not run */
} pyprof_threads;

/* Does the clock of a busy thread go on within 50 µs? Some sandboxes count in whole milliseconds. Takes that
 * long. */
bool pyprof_clocks_are_fine_grained(void);

/* Starts with the threads that exist now, so that no CPU time of before is charged. World stopped. */
bool pyprof_threads_open(pyprof_threads *threads, PyInterpreterState *interp, bool trust_clocks);
void pyprof_threads_close(pyprof_threads *threads);

/* Who holds the GIL, as `pyprof_gil_holder` says; a known thread that runs another interpreter, and holds it
 * by a thread state of that, by its own. */
const void *pyprof_threads_gil_holder(const pyprof_threads *threads, PyInterpreterState *interp);

/* At the beginning of a tick, before anything asks for the GIL: reads every clock and decides who is on a
 * CPU. Returns whether anything may have changed since the last snapshot. */
bool pyprof_threads_read_clocks(pyprof_threads *threads, const void *gil_holder);

/* Whether there are threads that have run, of which that does not tell where: the timer may have the CPU that
 * they had. Then a nap gives it back to who had it: the thread whose clock goes on meanwhile, if any. */
bool pyprof_threads_need_a_nap(const pyprof_threads *threads, const void *gil_holder);
bool pyprof_nap(void); /* false: it took so long that its end is no random moment */
void pyprof_threads_read_clocks_again(pyprof_threads *threads, const void *gil_holder, bool after_a_nap);

/* The index of the thread, expected at `hint`, or `count`. */
size_t pyprof_threads_find(const pyprof_threads *threads, const pyprof_thread_key *key, size_t hint);

/* A thread seen for the first time, `wall_ns` after the last tick. */
pyprof_thread pyprof_new_thread(const pyprof_thread_key *key, int64_t wall_ns, bool on_cpu);

/* A new window: the ids of the old one mean nothing there. */
void pyprof_threads_forget_stacks(pyprof_threads *threads);

#endif
