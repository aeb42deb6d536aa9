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

typedef struct {
    pyprof_thread_key key;
    int64_t clock_ns;      /* at the last tick, read before its snapshot */
    int64_t placeable_ns;  /* up to here this tick may charge it */
    int64_t certain_ns;    /* part of that which was used at the stack of this tick without doubt */
    int64_t charged_ns;    /* up to here the clock is in a window */
    int64_t sampled_ns;    /* the clock at the last sample */
    bool was_on_cpu;       /* then */
    bool moved;            /* the clock went on since the tick before */
    int64_t ran_ns;        /* how far, since it was last read */
    bool ended;            /* the clock is gone */
    bool on_cpu;           /* this tick may place CPU time */
    bool is_running;       /* that is certain: the clock went on meanwhile */
    bool in_python;        /* `stack` has Python frames */
    bool stack_is_current; /* the thread has not run since `stack` was seen */
    pyprof_stack_id stack; /* ids are of the current window; PYPROF_NO_STACK: none there yet */
    pyprof_stack_id placed_stack;
    pyprof_stack_id moved_stack;
} pyprof_thread;

typedef struct {
    pyprof_thread *items; /* in the order of the last snapshot */
    size_t count, capacity;
    int64_t patience_ns;    /* CPU time that may stay unplaced for a while */
    bool trust_clocks;      /* a clock that stands still proves that its thread did not run */
    uint32_t confirmations; /* of what was presumed of threads in doubt, in a row */
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

/* Are there threads that have run, of which that does not tell where, or not for sure, and is it to be asked
 * for? The timer may have the CPU that they had. `chance`: a random number. */
typedef enum { PYPROF_NO_DOUBT, PYPROF_UNCONFIRMED, PYPROF_NOBODY_PRESUMED } pyprof_doubt;
pyprof_doubt pyprof_threads_doubt(pyprof_threads *threads, const void *gil_holder, uint64_t chance);

/* Decides by what the scheduler says of them. False: it does not say, or there are too many. */
bool pyprof_threads_ask_who_was_preempted(pyprof_threads *threads);

/* The same of a thread that is not known yet, and whose clock stands still. Where the scheduler does not say,
 * what is presumed, or whether the thread could run. */
bool pyprof_timer_took_cpu_of(uint64_t tid, bool presumed);

/* Else a nap gives the CPU back to who had it: the thread whose clock goes on meanwhile, if any. */
bool pyprof_nap(void); /* false: it took so long that its end is no random moment */
void pyprof_threads_read_clocks_again(pyprof_threads *threads, const void *gil_holder, bool after_a_nap);

/* The index of the thread, expected at `hint`, or `count`. */
size_t pyprof_threads_find(const pyprof_threads *threads, const pyprof_thread_key *key, size_t hint);

/* A thread seen for the first time, `wall_ns` after the last tick. */
pyprof_thread pyprof_new_thread(const pyprof_thread_key *key, int64_t wall_ns, bool on_cpu);

/* A new window: the ids of the old one mean nothing there. */
void pyprof_threads_forget_stacks(pyprof_threads *threads);

#endif
