/* The timer thread: wakes at absolute deadlines with random gaps, has a snapshot taken, and adds it to the
 * window.
 *
 * One per process, in the main interpreter only. `start`, `stop`, `rotate`, `pause` and `resume` are called
 * attached, by one thread at a time (the profiler's lock); they release the GIL while they wait. The timer
 * thread holds no lock while it attaches. Finished windows go to the ring.
 *
 * Gaps between ticks are independent and uniform in [1/10, 19/10] of the period, so that no loop of the
 * application can keep step with them; a sample weighs the time (or the thread's CPU time) since the sample
 * before it, so that it stays true when the governor changes the period.
 */
#ifndef PYPROF_TIMER_H
#define PYPROF_TIMER_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int64_t period_ns;
    int64_t window_ns;
    uint32_t max_frames;
    uint32_t ring_windows;
    size_t window_bytes;
    double max_overhead; /* share of one core; see governor.h */
    bool raw_walk;       /* false: walk through the public C API even where the raw walk would work */
    bool gilfree;        /* false: the `current_frames` engine even where the other would work */
    bool gil;            /* ask who holds the GIL and who waits for it */
} pyprof_timer_options;

typedef struct {
    uint64_t ticks, missed, stacks, threads, windows, unplaced_cpu_ns, overflowed, dropped_windows;
    uint64_t discarded;                    /* of those missed: no engine could read what had to be read */
    uint64_t unverified, incomplete, torn; /* see gilfree.h */
    uint64_t period_ns;                    /* now; 0: not running */
    uint64_t rate_changes;                 /* by the governor */
    uint64_t fallbacks;                    /* times that `gilfree` left the snapshot to `current_frames` */
    uint64_t untold_gil_ns;                /* wall time of threads that may have waited for the GIL, or not */
    uint64_t own_cpu_ns, bytes;
    const char *walk_obstacle;     /* NULL: the raw walk is in use */
    const char *gilfree_obstacle;  /* NULL: the engine is in use */
    const char *label_obstacle;    /* NULL: labels can be read */
    const char *gil_wait_obstacle; /* NULL: it is told who waits for the GIL, or nobody has asked */
    const char *engine;            /* in use, or last used; NULL: none yet */
    const char *memory_reads;      /* how `gilfree` reads; NULL: it is not in use */
    bool trusted_clocks;
} pyprof_timer_stats;

/* 0, or -1 with a Python error set. */
int pyprof_timer_start(const pyprof_timer_options *options);
void pyprof_timer_stop(void);

/* For a fork: ends the thread, and starts it again with the window, the clocks and the next deadline that it
 * had. What passes in between is in the sample after it. `resume` does nothing where nothing is paused; -1
 * with a Python error set if there can be no thread: then it is as after `stop`. */
void pyprof_timer_pause(void);
int pyprof_timer_resume(void);

bool pyprof_timer_rotate(int64_t timeout_ns);

/* Have the thread look now at what is wanted of it. From any thread, and from a signal handler. */
void pyprof_timer_nudge(void);

/* Whether the timer thread has ended by itself because no Python thread is left. That is how a child ends
 * whose fork came from a thread: its thread function returns, and the process lasts as long as its last
 * thread. Ours must not be that one.
 */
bool pyprof_timer_is_abandoned(void);

/* Why the `gilfree` engine cannot be used here, or NULL. Attached. */
const char *pyprof_timer_gilfree_obstacle(void);

void pyprof_timer_get_stats(pyprof_timer_stats *stats);

/* First thing in the child of a fork. What the parent's timer was writing is left behind, unfreed: it may be
 * half done. */
void pyprof_timer_reset_child(void);

#endif
