/* Heap: which sites allocate, which hold what is allocated, and which did when that was most.
 *
 * Allocations are sampled: each byte with the same small chance, so that a block of S bytes is sampled with
 * probability 1 - exp(-S/R), R being the mean gap, the period. A sample stands for 1 / (1 - exp(-S/R)) such
 * blocks (Horvitz and Thompson, 1952): unbiased, whatever sizes are mixed and whenever R changes, since each
 * sample keeps its weight. Blocks of R bytes and more (and of a page) are sampled always, for what they are.
 * Where more samples live than there is room for, R is doubled and those that live are thinned out as if they
 * had been sampled with the larger one.
 *
 * One a process. Everything may be called from any thread, attached or not, and inside an allocation: nothing
 * here allocates Python objects, releases references or waits for the GIL. The lock inside is held for
 * microseconds; `report` takes it again and again instead of keeping it. A fork waits for it, so that the
 * child finds the live set whole: what lived before the fork is accounted there, what was allocated is not.
 */
#ifndef PYPROF_HEAP_H
#define PYPROF_HEAP_H

#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory/live_set.h"
#include "windows/window.h"

/* The gap to the next sample: how many bytes of it are left, and the period that it was drawn with. */
typedef struct {
    int64_t left;
    double period; /* 0: none drawn yet */
} pyprof_gap;

typedef struct {
    double period; /* bytes, at least 1 */
    uint32_t max_frames;
    size_t max_bytes; /* of sites and their symbols; the live set has its own bound */
    /* Not NULL: stacks are kept elsewhere, by address, none is looked at, and there is nothing to report;
     * called with what lives but is kept no more. */
    void (*let_go)(uint32_t domain, const void *address);
} pyprof_heap_options;

/* False without memory. What lives is forgotten by `close`, and by `forget`: the hook was not asked for a
 * while, nobody knows what of it is still there. */
bool pyprof_heap_open(const pyprof_heap_options *options);
void pyprof_heap_close(void);
void pyprof_heap_forget(void);
bool pyprof_heap_is_open(void);

/* Whether a block of that size is sampled whatever is left of the gap. */
enum { PYPROF_LEAST_SURE_BYTES = 4096 };
static inline bool pyprof_is_surely_sampled(size_t size, double period) {
    return size >= PYPROF_LEAST_SURE_BYTES && (double)size >= period;
}

/* For gaps that are drawn from now on. False: it is wanted already. */
bool pyprof_heap_set_period(double period);

/* A block whose bytes have used up the gap: sampled with the gap's period, on behalf of `thread` (NULL: it
 * runs no Python code). Draws the next gap. `address` NULL: the allocation failed. Whether it is kept. */
bool pyprof_heap_sample(pyprof_gap *gap, const void *address, size_t size, uint32_t domain,
                        PyThreadState *thread);

/* Draws the first gap. */
void pyprof_heap_draw(pyprof_gap *gap);

/* The end of a block that may be live. */
bool pyprof_heap_remove(const void *address, uint32_t domain);

/* The same for one that may live on after all: `settle` tells. In between its site stays. */
typedef struct {
    pyprof_live_block block;
    uint64_t era; /* of sites: another one has others */
} pyprof_suspended;
bool pyprof_heap_suspend(const void *address, uint32_t domain, pyprof_suspended *suspended);
void pyprof_heap_settle(const pyprof_suspended *suspended, bool lives_on);

typedef enum {
    PYPROF_HEAP_WINDOW, /* allocated since the last of these reports, in use now */
    PYPROF_HEAP_TOTAL,  /* allocated since the start or the fork, in use now */
    PYPROF_HEAP_PEAK,   /* in use when that was most */
} pyprof_heap_view;

/* Adds the sites to a window; attached or not, without the heap's lock. */
void pyprof_heap_report(pyprof_window *window, pyprof_heap_view view);

/* A copy of the blocks that live, and their number; to be freed. NULL without memory. */
pyprof_live_block *pyprof_heap_copy_live(size_t *count);

/* Calls `callback`, inside an allocation, whenever the bytes in use have grown by so many; NULL: no more. */
void pyprof_heap_watch_growth(void (*callback)(void), double bytes);

typedef struct {
    uint64_t samples;    /* taken */
    uint64_t live;       /* of them, not freed yet */
    uint64_t overflowed; /* whose stack found no room */
    uint64_t unkept;     /* that found no room in the live set: in what is allocated, not in what is in use */
    uint64_t evicted;    /* sites that made room for others; what they had allocated is in [overflow] */
    uint64_t gaps;       /* times that what lives was forgotten */
    uint64_t inuse_bytes, peak_bytes;
    double period; /* in force */
    size_t bytes;  /* memory of its own */
} pyprof_heap_stats;

void pyprof_heap_get_stats(pyprof_heap_stats *stats);

#endif
