/* Sums of values: at the ends of int64 they stay there instead of wrapping. */
#ifndef PYPROF_SATURATING_H
#define PYPROF_SATURATING_H

#include <stdint.h>

static inline int64_t pyprof_add_saturating(int64_t a, int64_t b) {
    if (b > 0 && a > INT64_MAX - b) {
        return INT64_MAX;
    }
    if (b < 0 && a < INT64_MIN - b) {
        return INT64_MIN;
    }
    return a + b;
}

#endif
