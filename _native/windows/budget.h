/* Budget: memory counted against a limit, and the two containers that grow within one.
 *
 * No lock: a budget and what is allocated from it belong to one thread at a time. Nothing here ever
 * moves an object that was handed out, so growing copies little and needs no second copy's worth of
 * room. Every failure, of the limit or of malloc, is a NULL or false and changes nothing.
 */
#ifndef PYPROF_BUDGET_H
#define PYPROF_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    size_t used;
    size_t limit;
} pyprof_budget;

/* Count bytes that something else allocated; false (and not counted) beyond the limit. */
bool pyprof_budget_charge(pyprof_budget *budget, size_t bytes);

/* malloc and free of blocks that count, the allocator's own header included. */
void *pyprof_budget_alloc(pyprof_budget *budget, size_t size);
void pyprof_budget_free(pyprof_budget *budget, void *block, size_t size);

/* Arena: blocks that live as long as the arena, aligned for 8-byte integers. */
typedef struct pyprof_arena_block pyprof_arena_block;

typedef struct {
    pyprof_arena_block *last;
    size_t left; /* free bytes at the end of `last` */
} pyprof_arena;

bool pyprof_arena_reserve(pyprof_arena *arena, pyprof_budget *budget, size_t size);
void *pyprof_arena_take(pyprof_arena *arena, size_t size); /* after a reserve of at least that size */
void pyprof_arena_free(pyprof_arena *arena, pyprof_budget *budget);

/* Vector: a growing array of equal elements that never move. */
#define PYPROF_VECTOR_SHIFT 6 /* 64 elements a segment: a few KB, so a small window stays small */

typedef struct {
    char **segments;
    uint32_t segment_count;
    uint32_t directory_size;
    uint32_t count;
    uint32_t element_size;
} pyprof_vector;

bool pyprof_vector_reserve(pyprof_vector *vector, pyprof_budget *budget); /* room for one more */
void *pyprof_vector_push(pyprof_vector *vector); /* the new element, unset; after a reserve */
void pyprof_vector_free(pyprof_vector *vector, pyprof_budget *budget);

static inline void *pyprof_vector_at(const pyprof_vector *vector, uint32_t index) {
    const uint32_t mask = (1u << PYPROF_VECTOR_SHIFT) - 1;
    return vector->segments[index >> PYPROF_VECTOR_SHIFT] + (size_t)(index & mask) * vector->element_size;
}

#endif
