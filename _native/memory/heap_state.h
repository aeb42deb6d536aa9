/* Heap's state: what samples change (heap.c) and reports read (heap_report.c); for these two alone.
 *
 * Everything is read and written under the lock, which is held for microseconds.
 */
#ifndef PYPROF_HEAP_STATE_H
#define PYPROF_HEAP_STATE_H

#include <pthread.h>

#include "memory/heap.h"
#include "memory/sites.h"

enum { PYPROF_MOST_LIVE = 16384 };

typedef struct {
    pthread_mutex_t lock, reporting; /* `reporting` is taken first; sites go away only under both */
    bool open;
    bool watches_forks;
    double period, wanted_period;
    void (*let_go)(uint32_t domain, const void *address);
    uint64_t random;
    uint32_t generation;         /* changes with the process */
    uint64_t era;                /* changes where what lives is forgotten */
    pyprof_live_block *left_out; /* by the last thinning, and not let go of yet */
    uint32_t left_out_count;
    uint64_t peak; /* which one is the largest so far */
    pyprof_sites sites;
    pyprof_live_set live;
    double inuse_bytes, peak_bytes;
    void (*grown)(void);
    double growth, next_growth;
    pyprof_heap_stats stats; /* the counters of it */
} pyprof_heap;

extern pyprof_heap pyprof_the_heap;

static inline void pyprof_heap_lock(void) { pthread_mutex_lock(&pyprof_the_heap.lock); }

static inline void pyprof_heap_unlock(void) { pthread_mutex_unlock(&pyprof_the_heap.lock); }

static inline void pyprof_allocated_add(pyprof_allocated *sum, pyprof_allocated some) {
    sum->objects += some.objects;
    sum->bytes += some.bytes;
}

/* What was allocated before a fork is the parent's. */
static inline void pyprof_site_enter_generation(pyprof_site *site) {
    if (site->generation != pyprof_the_heap.generation) {
        site->generation = pyprof_the_heap.generation;
        site->allocated = site->reported = (pyprof_allocated){0};
    }
}

static inline pyprof_allocated pyprof_site_at_peak(const pyprof_site *site) {
    return site->peak == pyprof_the_heap.peak ? site->at_peak : site->inuse;
}

#endif
