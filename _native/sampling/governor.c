/* See governor.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/governor.h"

#define MS INT64_C(1000000)
#define SECOND INT64_C(1000000000)

/* Often enough that a load which makes ticks ten times as dear costs a few of them before the rate gives way;
 * seldom enough that reading the clocks is nothing beside the ticks. */
#define REVIEW_EVERY_NS (100 * MS)

/* How far the smoothed cost of a tick goes back, more or less: single ticks differ a lot, so it is a number
 * of ticks; but where they are seldom, a load that is gone must not keep them so. */
enum { TICKS_TO_SMOOTH = 32 };
#define SECONDS_TO_SMOOTH 3.0

/* Longer than upload intervals, as a rule, so that one burst an interval is nearly as good as steady. */
#define SAVING_NS (15 * SECOND)
#define LEAST_FOR_TICKS 0.25

/* Only by a clear step: a rate that follows all noise helps nobody to read the profile. Too long a period
 * costs samples, but too short a one is paid for by the debt. */
#define LONGER_BY 1.15
#define SHORTER_BY 0.8

#define LONGEST_PERIOD_NS SECOND

void pyprof_governor_init(pyprof_governor *governor, int64_t wanted_ns, double share) {
    *governor = (pyprof_governor){.period_ns = wanted_ns, .wanted_ns = wanted_ns, .share = share};
}

void pyprof_governor_begin(pyprof_governor *governor, const pyprof_usage *usage) {
    governor->last = *usage;
    governor->next_ns = usage->now_ns + REVIEW_EVERY_NS;
}

bool pyprof_governor_is_due(const pyprof_governor *governor, int64_t now_ns) {
    return governor->share < 1 && now_ns >= governor->next_ns;
}

static double within(double low, double value, double high) {
    return value < low ? low : value > high ? high : value;
}

static double smoothed_cost(double before_ns, double cost_ns, double ticks, double seconds) {
    const double by_ticks = ticks / (ticks + TICKS_TO_SMOOTH);
    const double by_time = seconds / (seconds + SECONDS_TO_SMOOTH);
    const double weight = before_ns <= 0 ? 1 : by_ticks > by_time ? by_ticks : by_time;
    return before_ns + (cost_ns - before_ns) * weight;
}

static int64_t period_for(const pyprof_governor *governor) {
    const double left =
        governor->share - governor->debt_ns / SAVING_NS; /* by the debt's bound not too little */
    const int64_t longest = governor->wanted_ns > LONGEST_PERIOD_NS ? governor->wanted_ns : LONGEST_PERIOD_NS;
    return (int64_t)within((double)governor->wanted_ns, governor->cost_ns / left, (double)longest);
}

bool pyprof_governor_review(pyprof_governor *governor, const pyprof_usage *usage) {
    const pyprof_usage *last = &governor->last;
    const double passed = (double)(usage->now_ns - last->now_ns);
    const double used = (double)(usage->own_ns - last->own_ns);
    const double sampling = (double)(usage->sampling_ns - last->sampling_ns);
    const double ticks = (double)(usage->ticks - last->ticks);
    governor->last = *usage;
    governor->next_ns = usage->now_ns + REVIEW_EVERY_NS;
    const double most_debt = (1 - LEAST_FOR_TICKS) * governor->share * SAVING_NS;
    governor->debt_ns = within(0, governor->debt_ns + used - governor->share * passed, most_debt);
    if (ticks > 0 && sampling > 0) {
        governor->cost_ns = smoothed_cost(governor->cost_ns, sampling / ticks, ticks, passed / SECOND);
    }
    const int64_t period = period_for(governor), now = governor->period_ns;
    const bool is_clear = (double)period > LONGER_BY * (double)now ||
                          (double)period < SHORTER_BY * (double)now ||
                          (period == governor->wanted_ns && period != now);
    if (is_clear) {
        governor->period_ns = period;
    }
    return is_clear;
}

#endif
