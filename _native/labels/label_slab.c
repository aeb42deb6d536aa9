/* See label_slab.h. */
#include "labels/label_slab.h"

#include <stdlib.h>

#ifndef PYPROF_PORTABLE

#include <pthread.h>

/* Segments, each as large as all before it and one more of the first. */
enum { FIRST_SHIFT = 7, FIRST = 1 << FIRST_SHIFT, SEGMENTS = 20 };

static pyprof_label_set *segments[SEGMENTS]; /* atomic */
static pyprof_label_set *given_back;         /* atomic: pushed by anybody, taken as a whole under the lock */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pyprof_label_set *free_sets; /* under the lock */
static uint32_t made;               /* under the lock, read by anybody */

static uint32_t segment_of(uint32_t index) {
    return 31 - (uint32_t)__builtin_clz(index + FIRST) - FIRST_SHIFT;
}

static uint32_t first_of(uint32_t segment) { return ((uint32_t)FIRST << segment) - FIRST; }

pyprof_label_set *pyprof_label_slab_at(uint32_t index) {
    if (index >= (uint32_t)FIRST << SEGMENTS) {
        return NULL; /* and the sum below does not overflow */
    }
    const uint32_t segment = segment_of(index);
    pyprof_label_set *sets =
        segment < SEGMENTS ? __atomic_load_n(&segments[segment], __ATOMIC_ACQUIRE) : NULL;
    return sets == NULL ? NULL : &sets[index - first_of(segment)];
}

static void reset_child(void) {
    const bool whole = pthread_mutex_trylock(&lock) == 0;
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    if (!whole) {
        free_sets = NULL; /* a thread that is not here was between two of its stores */
    }
}

/* With the lock held. */
static pyprof_label_set *make(void) {
    const uint32_t segment = segment_of(made);
    if (segment >= SEGMENTS) {
        return NULL;
    }
    if (made == 0) {
        pthread_atfork(NULL, NULL, reset_child);
    }
    if (segments[segment] == NULL) {
        pyprof_label_set *sets = calloc((size_t)FIRST << segment, sizeof(*sets));
        __atomic_store_n(&segments[segment], sets, __ATOMIC_RELEASE);
    }
    if (segments[segment] == NULL) {
        return NULL;
    }
    pyprof_label_set *set = pyprof_label_slab_at(made);
    set->index = made;
    __atomic_store_n(&made, made + 1, __ATOMIC_RELAXED);
    return set;
}

pyprof_label_set *pyprof_label_slab_take(void) {
    pthread_mutex_lock(&lock);
    if (free_sets == NULL) {
        free_sets = __atomic_exchange_n(&given_back, NULL, __ATOMIC_ACQUIRE);
    }
    pyprof_label_set *set = free_sets;
    if (set != NULL) {
        free_sets = set->next_free;
    } else {
        set = make();
    }
    pthread_mutex_unlock(&lock);
    return set;
}

void pyprof_label_slab_give_back(pyprof_label_set *set) {
    set->next_free = __atomic_load_n(&given_back, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&given_back, &set->next_free, set, true, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED)) {
    }
}

bool pyprof_label_sets_any(void) { return __atomic_load_n(&made, __ATOMIC_RELAXED) > 0; }

size_t pyprof_label_sets_bytes(void) {
    const uint32_t count = __atomic_load_n(&made, __ATOMIC_RELAXED);
    return count == 0 ? 0 : ((size_t)FIRST << (segment_of(count - 1) + 1)) * sizeof(pyprof_label_set);
}

#else /* nobody looks at what others have */

pyprof_label_set *pyprof_label_slab_take(void) { return calloc(1, sizeof(pyprof_label_set)); }

void pyprof_label_slab_give_back(pyprof_label_set *set) { free(set); }

pyprof_label_set *pyprof_label_slab_at(uint32_t index) { return (void)index, NULL; }

bool pyprof_label_sets_any(void) { return false; }

size_t pyprof_label_sets_bytes(void) { return 0; }

#endif
