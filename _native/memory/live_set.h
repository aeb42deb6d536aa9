/* Live set: the sampled blocks that have not been freed, by address.
 *
 * Who frees a block asks `pyprof_may_be_live` first, from any thread and without a lock: one load from a map
 * of bits, which is right about every block of the set and wrong about few others. Everything else takes the
 * caller's lock. Open addressing with linear probing; blocks with the same bit have the same home slot, so
 * that the end of the last of them is seen where it is removed, and clears the bit.
 */
#ifndef PYPROF_LIVE_SET_H
#define PYPROF_LIVE_SET_H

#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory/sites.h"

typedef struct {
    const void *address; /* NULL: the slot is free */
    pyprof_site *site;
    size_t size;
    float weight;    /* blocks that this one stands for */
    uint32_t domain; /* of PyTraceMalloc_Track; 0: the interpreter's allocators */
} pyprof_live_block;

typedef struct {
    pyprof_live_block *blocks;
    uint32_t capacity; /* a power of two, or 0 */
    uint32_t count;
} pyprof_live_set;

enum { PYPROF_LIVE_BITS = 20 };
extern uint64_t pyprof_live_map[1 << (PYPROF_LIVE_BITS - 6)]; /* atomic; of the one live set of the process */

/* Neighbours share a cache line of the map: 8 KiB of addresses do. Blocks that are aligned to whole segments
 * of an allocator must not share a bit. */
static inline uint32_t pyprof_live_bit(const void *address) {
    const uint64_t number = (uintptr_t)address >> 4;
    const uint64_t segment = number >> PYPROF_LIVE_BITS;
    return (uint32_t)(number ^ (segment * UINT64_C(0x9E3779B97F4A7C15) >> 32)) &
           ((1u << PYPROF_LIVE_BITS) - 1);
}

static inline bool pyprof_may_be_live(const void *address) {
    const uint32_t bit = pyprof_live_bit(address);
    return __atomic_load_n(&pyprof_live_map[bit >> 6], __ATOMIC_RELAXED) >> (bit & 63) & 1;
}

/* False without memory. The address must not be in the set. */
bool pyprof_live_set_insert(pyprof_live_set *set, const pyprof_live_block *block);

/* False: it is not there. */
bool pyprof_live_set_remove(pyprof_live_set *set, const void *address, pyprof_live_block *removed);

void pyprof_live_set_free(pyprof_live_set *set);
size_t pyprof_live_set_bytes(const pyprof_live_set *set); /* the map included */

#endif
