/* Random numbers: splitmix64 (Steele, Lea, Flood 2014). The state belongs to one thread at a time; any seed
 * is good. */
#ifndef PYPROF_RANDOM_H
#define PYPROF_RANDOM_H

#include <stdint.h>

static inline uint64_t pyprof_next_random(uint64_t *state) {
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Uniform in (0, 1]: its logarithm is finite. */
static inline double pyprof_next_uniform(uint64_t *state) {
    return (double)((pyprof_next_random(state) >> 11) + 1) * 0x1p-53;
}

#endif
