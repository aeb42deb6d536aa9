/* The overhead governor: how far apart ticks have to be for pyprof to stay within its share of one core.
 *
 * Of the timer thread alone. Plain arithmetic on what the clocks say; it reads none itself, waits for nothing
 * and allocates nothing, so that a C program can put it to any test (tests/native/check_governor.c).
 *
 * From review to review it compares what pyprof has used with what it may use. The period follows from what a
 * tick costs and from the share that is left for ticks. Less than all of it is left while there is a debt:
 * what was used beyond the share, whatever for, is saved on ticks within the next quarter of a minute or so.
 * So the share is kept on average, and the burst of an upload does not stop the ticks. A quarter of the share
 * is left in any case: uploads that need more than their part must not end the profile.
 */
#ifndef PYPROF_GOVERNOR_H
#define PYPROF_GOVERNOR_H

#include <stdbool.h>
#include <stdint.h>

/* Two of them tell what was used, and for what, in between. */
typedef struct {
    int64_t now_ns;      /* monotonic */
    int64_t sampling_ns; /* CPU time of ticks, on whatever thread */
    int64_t own_ns;      /* of all that pyprof does, ticks included */
    uint64_t ticks;      /* that were due */
} pyprof_usage;

typedef struct {
    int64_t period_ns; /* the mean gap between ticks, now */
    int64_t wanted_ns; /* what it is where the share allows it */
    double share;      /* of one core; 1 and more: nothing is measured, the period is the wanted one */
    double cost_ns;    /* of a tick, smoothed; 0: not known yet */
    double debt_ns;    /* CPU time used beyond the share and not saved since */
    int64_t next_ns;   /* no review before */
    pyprof_usage last;
} pyprof_governor;

void pyprof_governor_init(pyprof_governor *governor, int64_t wanted_ns, double share);

/* A thread begins to tick, or does so again: time and CPU time from here on count. */
void pyprof_governor_begin(pyprof_governor *governor, const pyprof_usage *usage);

/* After a tick: whether it is time for a review. Cheap; only then clocks need to be read. */
bool pyprof_governor_is_due(const pyprof_governor *governor, int64_t now_ns);

/* Whether the period has changed. */
bool pyprof_governor_review(pyprof_governor *governor, const pyprof_usage *usage);

#endif
