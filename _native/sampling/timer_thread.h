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

#include "sampling/own_threads.h"
#include "sampling/snapshot.h"
#include "sampling/threads.h"
#include "sampling/timer.h"
#include "windows/window.h"

/* How the thread reads memory; 0: it does not run. */
enum { READS_SLOWLY = 1, READS_FAST };

typedef struct {
    /* Immutable while the thread runs. */
    pyprof_timer_options options;
    PyInterpreterState *interp;
    pyprof_own_thread *thread; /* NULL: not running */
    const char *walk_obstacle, *gilfree_obstacle;

    /* Written by others, read by the thread. */
    uint32_t commands;               /* atomic, futex: goes up with every wish */
    bool stop_wanted, rotate_wanted; /* atomic */
    bool paused; /* set before the thread is told to stop; then it leaves everything as it is */

    /* Written by the thread, read by others. */
    uint32_t rotations;       /* atomic, futex */
    bool abandoned;           /* atomic */
    int reading;              /* atomic: READS_… */
    pyprof_timer_stats stats; /* each field atomic */

    /* The thread's own. */
    PyThreadState *own;
    pyprof_threads threads;
    pyprof_snapshot snapshot;
    pyprof_window *window;
    pyprof_frame native_frame; /* stands for a thread that runs no Python code */
    uint64_t random;
    int64_t last_tick_ns; /* monotonic: up to here wall time is in a window */
    int64_t deadline_ns;  /* of the next tick */
    int64_t window_start_ns;
    int64_t window_start_unix_ns;
    const void *newest_thread;
    uint64_t pending_ticks; /* since the last sample */
    unsigned put_off;       /* ticks in a row that were due and left to the next */
    int64_t late_ns;        /* from when the tick under way was due to when it looks */
    uint64_t last_left_out; /* the newest thread that had begun too late for its first tick */
    int64_t usual_late_ns;
    int64_t mean_gap_ns;       /* between ticks that were taken */
    unsigned gilfree_failures; /* in a row */
} pyprof_timer;

/* The first window, and the first deadline: time counts from now on. */
void pyprof_timer_thread_prepare(pyprof_timer *timer);

/* Until it is told to stop, no Python thread is left, or the interpreter ends. `argument`: the timer.
 * Finishes itself, unless it is paused. */
void pyprof_timer_thread_run(void *argument);

/* The last window, with what the threads have used up to now, goes to the ring. */
void pyprof_timer_thread_finish(pyprof_timer *timer);

#endif
