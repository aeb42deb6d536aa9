/* Arrays that grow, in plain malloc memory. */
#ifndef PYPROF_GROWING_H
#define PYPROF_GROWING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

/* Room for `needed` elements of `size` bytes. The old elements stay; false without memory. */
static inline bool pyprof_reserve(void **elements, size_t *capacity, size_t needed, size_t size) {
    if (needed <= *capacity) {
        return true;
    }
    size_t wanted = needed * 2;
    void *grown = realloc(*elements, wanted * size);
    if (grown == NULL) {
        return false;
    }
    *elements = grown;
    *capacity = wanted;
    return true;
}

#endif
