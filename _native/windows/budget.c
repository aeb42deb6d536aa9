/* See budget.h. */
#include "windows/budget.h"

#include <stdlib.h>
#include <string.h>

/* What common allocators add to a block: a size word and rounding. */
#define ALLOCATION_OVERHEAD 16

#define FIRST_ARENA_BLOCK 2048
#define LARGEST_ARENA_BLOCK ((size_t)64 * 1024)

#define FIRST_DIRECTORY 8
#define LARGEST_VECTOR (UINT32_MAX - 16) /* leaves indexes for sentinels */

struct pyprof_arena_block {
    pyprof_arena_block *previous;
    size_t size; /* of the data */
    uint64_t data[];
};

bool pyprof_budget_charge(pyprof_budget *budget, size_t bytes) {
    if (budget->used > budget->limit || bytes > budget->limit - budget->used) {
        return false;
    }
    budget->used += bytes;
    return true;
}

void *pyprof_budget_alloc(pyprof_budget *budget, size_t size) {
    if (size > SIZE_MAX / 2 || !pyprof_budget_charge(budget, size + ALLOCATION_OVERHEAD)) {
        return NULL;
    }
    void *block = malloc(size);
    if (block == NULL) {
        budget->used -= size + ALLOCATION_OVERHEAD;
    }
    return block;
}

void pyprof_budget_free(pyprof_budget *budget, void *block, size_t size) {
    if (block != NULL) {
        budget->used -= size + ALLOCATION_OVERHEAD;
        free(block);
    }
}

static size_t aligned(size_t size) { return (size + 7) & ~(size_t)7; }

bool pyprof_arena_reserve(pyprof_arena *arena, pyprof_budget *budget, size_t size) {
    if (size > SIZE_MAX / 4) {
        return false;
    }
    size = aligned(size);
    if (arena->last != NULL && size <= arena->left) {
        return true;
    }
    size_t block_size = FIRST_ARENA_BLOCK;
    if (arena->last != NULL) {
        block_size = arena->last->size < LARGEST_ARENA_BLOCK ? arena->last->size * 2 : LARGEST_ARENA_BLOCK;
    }
    if (block_size < size) {
        block_size = size;
    }
    pyprof_arena_block *block = pyprof_budget_alloc(budget, sizeof *block + block_size);
    if (block == NULL && block_size > size) {
        /* Near the limit the last bytes are worth a small block. */
        block_size = size;
        block = pyprof_budget_alloc(budget, sizeof *block + block_size);
    }
    if (block == NULL) {
        return false;
    }
    block->previous = arena->last;
    block->size = block_size;
    arena->last = block;
    arena->left = block_size;
    return true;
}

void *pyprof_arena_take(pyprof_arena *arena, size_t size) {
    char *end = (char *)arena->last->data + arena->last->size;
    void *at = end - arena->left;
    arena->left -= aligned(size);
    return at;
}

void pyprof_arena_free(pyprof_arena *arena, pyprof_budget *budget) {
    for (pyprof_arena_block *block = arena->last; block != NULL;) {
        pyprof_arena_block *previous = block->previous;
        pyprof_budget_free(budget, block, sizeof *block + block->size);
        block = previous;
    }
    arena->last = NULL;
    arena->left = 0;
}

static size_t segment_size(const pyprof_vector *vector) {
    return (size_t)vector->element_size << PYPROF_VECTOR_SHIFT;
}

static bool grow_directory(pyprof_vector *vector, pyprof_budget *budget) {
    uint32_t size = vector->directory_size == 0 ? FIRST_DIRECTORY : vector->directory_size * 2;
    char **segments = pyprof_budget_alloc(budget, size * sizeof *segments);
    if (segments == NULL) {
        return false;
    }
    if (vector->segment_count > 0) {
        memcpy(segments, vector->segments, vector->segment_count * sizeof *segments);
    }
    pyprof_budget_free(budget, vector->segments, vector->directory_size * sizeof *segments);
    vector->segments = segments;
    vector->directory_size = size;
    return true;
}

bool pyprof_vector_reserve(pyprof_vector *vector, pyprof_budget *budget) {
    if (vector->count < vector->segment_count << PYPROF_VECTOR_SHIFT) {
        return true;
    }
    if (vector->count >= LARGEST_VECTOR - (1u << PYPROF_VECTOR_SHIFT)) {
        return false;
    }
    if (vector->segment_count == vector->directory_size && !grow_directory(vector, budget)) {
        return false;
    }
    char *segment = pyprof_budget_alloc(budget, segment_size(vector));
    if (segment == NULL) {
        return false;
    }
    vector->segments[vector->segment_count++] = segment;
    return true;
}

void *pyprof_vector_push(pyprof_vector *vector) { return pyprof_vector_at(vector, vector->count++); }

void pyprof_vector_free(pyprof_vector *vector, pyprof_budget *budget) {
    for (uint32_t i = 0; i < vector->segment_count; i++) {
        pyprof_budget_free(budget, vector->segments[i], segment_size(vector));
    }
    pyprof_budget_free(budget, vector->segments, vector->directory_size * sizeof *vector->segments);
    vector->segments = NULL;
    vector->segment_count = vector->directory_size = vector->count = 0;
}
