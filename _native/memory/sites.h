/* Sites: the distinct stacks, with their labels, that sampled allocations were made at, and what was
 * allocated there. Spans are not told apart: nearly each would be a site of its own, for as long as something
 * of it lives.
 *
 * Everything here takes the caller's lock (memory/heap.c), may be called inside an allocation and from the
 * death of a code object, and touches no Python object but the frames and code that the calling thread keeps
 * alive. Memory is bounded: what finds no room belongs to the site without frames, which a profile shows as
 * `[overflow]`.
 */
#ifndef PYPROF_SITES_H
#define PYPROF_SITES_H

#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpython/interpreter.h"
#include "labels/label_set.h"
#include "memory/known_code.h"
#include "windows/budget.h"
#include "windows/window.h"

/* Sums of weights: fractions of blocks, and of their bytes. */
typedef struct {
    double objects, bytes;
} pyprof_allocated;

typedef struct pyprof_site {
    struct pyprof_site *next; /* of those with the same slot */
    uint32_t hash;
    uint32_t depth;
    bool truncated;
    pyprof_label_set *labels;   /* a reference; NULL: none */
    uint32_t live;              /* samples that have not been freed */
    uint32_t generation;        /* of `allocated` and `reported`: one a process */
    uint64_t peak;              /* which one `at_peak` is of */
    pyprof_allocated allocated; /* since the start, or since the fork */
    pyprof_allocated reported;  /* of that, what windows have had */
    pyprof_allocated inuse;
    pyprof_allocated at_peak;
    pyprof_frame frames[]; /* leaf first */
} pyprof_site;

typedef struct {
    pyprof_budget budget;
    pyprof_known_code code;
    pyprof_site **slots; /* chains */
    uint32_t capacity;   /* of slots; a power of two, or 0 */
    pyprof_site **sites; /* all of them, in no order */
    uint32_t count, room;
    pyprof_site *overflow;
    pyprof_symbol *native; /* what a thread without Python code shows */
    pyprof_code_position *positions;
    pyprof_frame *frames;
    uint32_t max_frames;
    pyprof_label labels[PYPROF_MOST_LABELS]; /* of the stack that is looked for */
} pyprof_sites;

/* False without memory. */
bool pyprof_sites_open(pyprof_sites *sites, size_t max_bytes, uint32_t max_frames);
void pyprof_sites_close(pyprof_sites *sites);

/* That of the thread's stack and labels; NULL: a thread that runs no Python code. Never NULL. */
pyprof_site *pyprof_sites_find(pyprof_sites *sites, PyThreadState *thread);

/* Removes those that `is_idle`: nobody may hold them. */
void pyprof_sites_evict(pyprof_sites *sites, bool (*is_idle)(const pyprof_site *));

static inline bool pyprof_sites_are_pressed(const pyprof_sites *sites) {
    return sites->budget.used > sites->budget.limit / 2;
}

#endif
