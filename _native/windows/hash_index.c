/* See hash_index.h. */
#include "windows/hash_index.h"

#define FIRST_SIZE 32u
#define LARGEST_SIZE (1u << 30)

/* Full at three quarters: longer probes beyond that cost more than the memory they save. */
static bool is_full(const pyprof_hash_index *index) { return index->count >= index->size / 4 * 3; }

bool pyprof_hash_index_reserve(pyprof_hash_index *index, pyprof_budget *budget) {
    if (!is_full(index)) {
        return true;
    }
    if (index->size == LARGEST_SIZE) {
        return false;
    }
    pyprof_hash_index larger = {.size = index->size == 0 ? FIRST_SIZE : index->size * 2};
    larger.slots = pyprof_budget_alloc(budget, larger.size * sizeof *larger.slots);
    if (larger.slots == NULL) {
        return false;
    }
    memset(larger.slots, 0, larger.size * sizeof *larger.slots);
    for (uint32_t i = 0; i < index->size; i++) {
        if (index->slots[i].number != 0) {
            pyprof_hash_index_insert(&larger, index->slots[i].hash, index->slots[i].number - 1);
        }
    }
    pyprof_hash_index_free(index, budget);
    *index = larger;
    return true;
}

void pyprof_hash_index_insert(pyprof_hash_index *index, uint32_t hash, uint32_t number) {
    uint32_t at = hash & (index->size - 1);
    while (index->slots[at].number != 0) {
        at = (at + 1) & (index->size - 1);
    }
    index->slots[at] = (pyprof_hash_slot){hash, number + 1};
    index->count++;
}

void pyprof_hash_index_free(pyprof_hash_index *index, pyprof_budget *budget) {
    pyprof_budget_free(budget, index->slots, index->size * sizeof *index->slots);
    *index = (pyprof_hash_index){0};
}
