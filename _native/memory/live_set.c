/* See live_set.h. */
#ifndef PYPROF_PORTABLE
#include "memory/live_set.h"

#include <stdlib.h>

uint64_t pyprof_live_map[1 << (PYPROF_LIVE_BITS - 6)];

enum { FIRST_CAPACITY = 256 };

static uint32_t home_of(const void *address, uint32_t capacity) {
    const uint64_t hash = pyprof_live_bit(address) * UINT64_C(0x9E3779B97F4A7C15);
    return (uint32_t)(hash >> 40) & (capacity - 1);
}

static void set_bit(const void *address) {
    const uint32_t bit = pyprof_live_bit(address);
    __atomic_fetch_or(&pyprof_live_map[bit >> 6], UINT64_C(1) << (bit & 63), __ATOMIC_RELEASE);
}

static void clear_bit(const void *address) {
    const uint32_t bit = pyprof_live_bit(address);
    __atomic_fetch_and(&pyprof_live_map[bit >> 6], ~(UINT64_C(1) << (bit & 63)), __ATOMIC_RELEASE);
}

/* The slot of the address, or the free one where it would go. The set is never full. */
static uint32_t slot_of(const pyprof_live_set *set, const void *address) {
    uint32_t slot = home_of(address, set->capacity);
    while (set->blocks[slot].address != NULL && set->blocks[slot].address != address) {
        slot = (slot + 1) & (set->capacity - 1);
    }
    return slot;
}

static bool grow(pyprof_live_set *set) {
    pyprof_live_set larger = {.capacity = set->capacity == 0 ? FIRST_CAPACITY : set->capacity * 2,
                              .count = set->count};
    larger.blocks = calloc(larger.capacity, sizeof(*larger.blocks));
    if (larger.blocks == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < set->capacity; i++) {
        if (set->blocks[i].address != NULL) {
            larger.blocks[slot_of(&larger, set->blocks[i].address)] = set->blocks[i];
        }
    }
    free(set->blocks);
    *set = larger;
    return true;
}

bool pyprof_live_set_insert(pyprof_live_set *set, const pyprof_live_block *block) {
    if (set->count * 2 >= set->capacity && !grow(set)) {
        return false;
    }
    set->blocks[slot_of(set, block->address)] = *block;
    set->count++;
    set_bit(block->address);
    return true;
}

/* Whether another block has the bit of `address`: it is where the probe for that one passes. */
static bool bit_is_shared(const pyprof_live_set *set, const void *address) {
    const uint32_t bit = pyprof_live_bit(address);
    for (uint32_t slot = home_of(address, set->capacity); set->blocks[slot].address != NULL;
         slot = (slot + 1) & (set->capacity - 1)) {
        if (set->blocks[slot].address != address && pyprof_live_bit(set->blocks[slot].address) == bit) {
            return true;
        }
    }
    return false;
}

/* Empties a slot and moves up what had to probe past it (Knuth, The Art of Computer Programming, 6.4,
 * algorithm R). */
static void empty_slot(pyprof_live_set *set, uint32_t slot) {
    const uint32_t mask = set->capacity - 1;
    uint32_t next = slot;
    for (;;) {
        set->blocks[slot] = (pyprof_live_block){0};
        uint32_t home;
        do {
            next = (next + 1) & mask;
            if (set->blocks[next].address == NULL) {
                return;
            }
            home = home_of(set->blocks[next].address, set->capacity);
        } while (((next - home) & mask) < ((next - slot) & mask));
        set->blocks[slot] = set->blocks[next];
        slot = next;
    }
}

bool pyprof_live_set_remove(pyprof_live_set *set, const void *address, pyprof_live_block *removed) {
    if (set->capacity == 0) {
        return false;
    }
    const uint32_t slot = slot_of(set, address);
    if (set->blocks[slot].address == NULL) {
        return false;
    }
    *removed = set->blocks[slot];
    if (!bit_is_shared(set, address)) {
        clear_bit(address);
    }
    empty_slot(set, slot);
    set->count--;
    return true;
}

void pyprof_live_set_free(pyprof_live_set *set) {
    for (uint32_t i = 0; i < set->capacity; i++) {
        if (set->blocks[i].address != NULL) {
            clear_bit(set->blocks[i].address);
        }
    }
    free(set->blocks);
    *set = (pyprof_live_set){0};
}

size_t pyprof_live_set_bytes(const pyprof_live_set *set) {
    return set->capacity == 0 ? 0 : set->capacity * sizeof(*set->blocks) + sizeof(pyprof_live_map);
}

#endif
