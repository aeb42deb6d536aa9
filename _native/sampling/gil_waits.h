/* GIL waits: which threads hold the GIL at a tick, and which wait for it. Timer thread only, detached.
 *
 * A thread whose clock has not moved does what it did, so that only the others are in doubt; and nobody waits
 * where the C library counts no waiter. Else the kernel is asked at which address a thread blocks. Of one
 * that it calls ready to run its frames may tell; or nothing does, since the timer or another process may
 * have kept it from its CPU anywhere.
 */
#ifndef PYPROF_GIL_WAITS_H
#define PYPROF_GIL_WAITS_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "sampling/threads.h"

/* NULL, or why waiting is not told here: what `pyprof_gil_waiters_obstacle` says, or that the kernel does not
 * answer. */
const char *pyprof_gil_waits_obstacle(const pyprof_threads *threads, PyInterpreterState *interp);

typedef struct {
    PyInterpreterState *interp;
    const void *holder; /* of the GIL, at the beginning of the tick; NULL: it is free */
    int64_t period_ns;  /* of the ticks, of which a small share may be spent on asking */
    uint64_t chance;    /* a random number */
} pyprof_gil_tick;

/* Before anything of ours asks for the GIL: sees which threads wait for it. NULL, or why that is not told any
 * more. */
const char *pyprof_gil_waits_decide(pyprof_threads *threads, const pyprof_gil_tick *tick);

/* After the snapshot, if there was one: `gil_part` of each thread. It may also wait who has no CPU and is on
 * its way from dropping the GIL to waiting for it: that shows where its frames stand. */
void pyprof_gil_waits_settle(pyprof_threads *threads, const void *holder);

#endif
