/* What the timer thread does between its start and its end: ticks, and windows of them.
 *
 * For timer.c alone, which owns the one timer of the process, starts the thread and tells it to stop.
 * `prepare` and `finish` are called attached while there is no thread; `run` is the thread's function. The
 * groups of fields say who may write them while it runs.
 */
#ifndef PYPROF_TIMER_THREAD_H
#define PYPROF_TIMER_THREAD_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "sampling/governor.h"
#include "sampling/own_threads.h"
#include "sampling/snapshot.h"
#include "sampling/threads.h"
#include "sampling/timer.h"
#include "windows/window.h"

typedef struct {
    /* Immutable while the thread runs. */
    pyprof_timer_options options;
    PyInterpreterState *interp;
    pyprof_own_thread *thread; /* NULL: not running */
    const char *walk_obstacle;
    bool keeps_thread_state;

    /* Written by others, read by the thread. */
    uint32_t commands;               /* atomic, futex: goes up with every wish */
    bool memory_grew;                /* atomic */
    bool stop_wanted, rotate_wanted; /* atomic */
    bool paused; /* set before the thread is told to stop; then it leaves everything as it is */

    /* Written by the thread, read by others. */
    uint32_t rotations;            /* atomic, futex */
    bool abandoned;                /* atomic */
    const char *gilfree_obstacle;  /* atomic: may come up while it runs */
    int reading;                   /* atomic: pyprof_way_of_reading; 0: the thread does not run */
    const char *gil_wait_obstacle; /* atomic */
    pyprof_timer_stats stats;      /* each field atomic */

    /* The thread's own. */
    PyThreadState *kept; /* NULL: each snapshot that needs one makes it */
    pyprof_threads threads;
    pyprof_snapshot snapshot;
    pyprof_window *window;
    pyprof_frame native_frame; /* stands for a thread that runs no Python code */
    uint64_t random;
    int64_t last_tick_ns; /* monotonic: up to here wall time is in a window */
    int64_t deadline_ns;  /* of the next tick */
    int64_t window_start_ns;
    int64_t window_start_unix_ns;
    uint64_t thread_mark;   /* of the last snapshot; 0: look again */
    uint64_t pending_ticks; /* since the last sample */
    unsigned put_off;       /* ticks in a row that were due and left to the next */
    int64_t late_ns;        /* from when the tick under way was due to when it looks */
    uint64_t last_left_out; /* the newest thread that had begun too late for its first tick */
    int64_t usual_late_ns;
    pyprof_governor governor;     /* its period is the one from which the gap under way was drawn */
    double gap_stretch;           /* between ticks that were taken, mean of gap over period */
    uint64_t window_ticks;        /* that were due in this window */
    uint64_t window_rate_changes; /* before it */
    unsigned gilfree_failures;    /* in a row */
    int64_t next_size_ns;         /* when to look how large the process is */
} pyprof_timer;

/* Counts something in the statistics. */
static inline void pyprof_count(uint64_t *counter, uint64_t n) {
    __atomic_add_fetch(counter, n, __ATOMIC_RELAXED);
}

/* The first window, and the first deadline: time counts from now on. */
void pyprof_timer_thread_prepare(pyprof_timer *timer);

/* Until it is told to stop, no Python thread is left, or the interpreter ends. `argument`: the timer.
 * Finishes itself, unless it is paused. */
void pyprof_timer_thread_run(void *argument);

/* The last window, with what the threads have used up to now, goes to the ring. */
/* In the child of a fork, before anything else. */
void pyprof_timer_thread_reset_child(void);
void pyprof_timer_thread_finish(pyprof_timer *timer);

#endif
