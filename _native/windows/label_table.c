/* See label_table.h. */
#include "windows/label_table.h"

#include <string.h>

#define UNKNOWN UINT32_MAX

void pyprof_label_table_init(pyprof_label_table *table) {
    *table = (pyprof_label_table){
        .sets.element_size = sizeof(pyprof_label_set *),
        .unlimited.limit = SIZE_MAX,
        .labels.element_size = sizeof(pyprof_label),
        .runs.element_size = sizeof(pyprof_label_run),
    };
}

static pyprof_label_set *set_at(const pyprof_label_table *table, uint32_t number) {
    return *(pyprof_label_set **)pyprof_vector_at(&table->sets, number - 1);
}

void pyprof_label_table_free(pyprof_label_table *table, pyprof_budget *budget) {
    for (uint32_t number = 1; number <= table->sets.count; number++) {
        pyprof_label_set *set = set_at(table, number);
        budget->used -= pyprof_label_set_bytes(set);
        pyprof_label_set_release(set);
    }
    pyprof_vector_free(&table->sets, budget);
    pyprof_hash_index_free(&table->set_index, budget);
    pyprof_vector_free(&table->labels, &table->unlimited);
    pyprof_hash_index_free(&table->label_index, &table->unlimited);
    pyprof_vector_free(&table->runs, &table->unlimited);
    pyprof_arena_free(&table->numbers, &table->unlimited);
    pyprof_label_table_init(table);
}

bool pyprof_label_table_intern(pyprof_label_table *table, pyprof_budget *budget, pyprof_label_set *set,
                               uint32_t *number) {
    *number = 0;
    if (set == NULL) {
        return true;
    }
    const uint32_t hash = (uint32_t)pyprof_mix(0, (uintptr_t)set);
    pyprof_probe probe = pyprof_hash_index_probe(&table->set_index, hash);
    while (pyprof_hash_index_next(&table->set_index, &probe, number)) {
        if (set_at(table, *number) == set) {
            return true;
        }
    }
    if (!pyprof_vector_reserve(&table->sets, budget) ||
        !pyprof_hash_index_reserve(&table->set_index, budget) ||
        !pyprof_budget_charge(budget, pyprof_label_set_bytes(set))) {
        return false;
    }
    *(pyprof_label_set **)pyprof_vector_push(&table->sets) = pyprof_label_set_retain(set);
    *number = table->sets.count;
    pyprof_hash_index_insert(&table->set_index, hash, *number);
    return true;
}

uint32_t pyprof_label_table_set_count(const pyprof_label_table *table) { return table->sets.count + 1; }

/* ---- What they say ---- */

/* The number of a label; UNKNOWN without memory. */
static uint32_t number_of(pyprof_label_table *table, const pyprof_label *label) {
    const uint32_t hash =
        pyprof_hash_words((const uint32_t[]){pyprof_hash_bytes(label->name, label->name_size),
                                             pyprof_hash_bytes(label->value, label->value_size)},
                          2);
    uint32_t number;
    pyprof_probe probe = pyprof_hash_index_probe(&table->label_index, hash);
    while (pyprof_hash_index_next(&table->label_index, &probe, &number)) {
        if (pyprof_is_same_label(pyprof_label_table_label(table, number), label)) {
            return number;
        }
    }
    if (!pyprof_vector_reserve(&table->labels, &table->unlimited) ||
        !pyprof_hash_index_reserve(&table->label_index, &table->unlimited)) {
        return UNKNOWN;
    }
    number = table->labels.count;
    *(pyprof_label *)pyprof_vector_push(&table->labels) = *label;
    pyprof_hash_index_insert(&table->label_index, hash, number);
    return number;
}

static bool resolve(pyprof_label_table *table, const pyprof_label_set *set) {
    pyprof_label labels[PYPROF_MOST_LABELS];
    const uint32_t count = pyprof_label_set_resolve(set, labels);
    if (!pyprof_vector_reserve(&table->runs, &table->unlimited) ||
        !pyprof_arena_reserve(&table->numbers, &table->unlimited, (count + 1) * sizeof(uint32_t))) {
        return false;
    }
    uint32_t *numbers = pyprof_arena_take(&table->numbers, (count + 1) * sizeof(*numbers));
    bool has_room = true;
    for (uint32_t i = 0; i < count && has_room; i++) {
        numbers[i] = number_of(table, &labels[i]);
        has_room = numbers[i] != UNKNOWN;
    }
    if (has_room) {
        *(pyprof_label_run *)pyprof_vector_push(&table->runs) = (pyprof_label_run){numbers, count};
    }
    return has_room;
}

bool pyprof_label_table_resolve(pyprof_label_table *table) {
    while (table->runs.count < table->sets.count) {
        if (!resolve(table, set_at(table, table->runs.count + 1))) {
            return false;
        }
    }
    return true;
}

uint32_t pyprof_label_table_label_count(const pyprof_label_table *table) { return table->labels.count; }

const pyprof_label *pyprof_label_table_label(const pyprof_label_table *table, uint32_t label) {
    return pyprof_vector_at(&table->labels, label);
}

pyprof_label_run pyprof_label_table_run(const pyprof_label_table *table, uint32_t number) {
    return number == 0 ? (pyprof_label_run){NULL, 0}
                       : *(pyprof_label_run *)pyprof_vector_at(&table->runs, number - 1);
}
