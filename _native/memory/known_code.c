/* See known_code.h. */
#ifndef PYPROF_PORTABLE
#include "memory/known_code.h"

#include <string.h>

#include "cpython/code_view.h"
#include "symbols/code_symbol.h"

enum { FIRST_CAPACITY = 256, FIRST_DEAD = 256 };

static uint32_t home_of(const void *code, uint32_t capacity) {
    return (uint32_t)(((uintptr_t)code >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 32) & (capacity - 1);
}

/* The entry of `code`, or the free one where it would go. The table is never full. */
static pyprof_known_code_entry *find(pyprof_known_code_entry *entries, uint32_t capacity, const void *code) {
    uint32_t slot = home_of(code, capacity);
    while (entries[slot].code != NULL && entries[slot].code != code) {
        slot = (slot + 1) & (capacity - 1);
    }
    return &entries[slot];
}

static bool grow(pyprof_known_code *known, pyprof_budget *budget) {
    const uint32_t capacity = known->capacity == 0 ? FIRST_CAPACITY : known->capacity * 2;
    pyprof_known_code_entry *entries = pyprof_budget_alloc(budget, capacity * sizeof(*entries));
    if (entries == NULL) {
        return false;
    }
    memset(entries, 0, capacity * sizeof(*entries));
    for (uint32_t i = 0; i < known->capacity; i++) {
        if (known->entries[i].code != NULL) {
            *find(entries, capacity, known->entries[i].code) = known->entries[i];
        }
    }
    pyprof_budget_free(budget, known->entries, known->capacity * sizeof(*entries));
    known->entries = entries;
    known->capacity = capacity;
    return true;
}

static pyprof_symbol *add(pyprof_known_code *known, pyprof_budget *budget, PyCodeObject *code) {
    if (known->count * 2 >= known->capacity && !grow(known, budget)) {
        return NULL;
    }
    const pyprof_code_view view = pyprof_view_code(code);
    pyprof_symbol *symbol = pyprof_symbol_of_code(&view);
    if (symbol != NULL && !pyprof_budget_charge(budget, symbol->bytes)) {
        pyprof_symbol_release(symbol);
        symbol = NULL;
    }
    if (symbol != NULL) {
        *find(known->entries, known->capacity, code) = (pyprof_known_code_entry){code, symbol};
        known->count++;
    }
    return symbol;
}

pyprof_symbol *pyprof_known_code_get(pyprof_known_code *known, pyprof_budget *budget, PyCodeObject *code) {
    if (known->capacity > 0) {
        const pyprof_known_code_entry *entry = find(known->entries, known->capacity, code);
        if (entry->code != NULL) {
            return entry->symbol;
        }
    }
    return add(known, budget, code);
}

static void let_go(pyprof_symbol *symbol, pyprof_budget *budget) {
    budget->used -= symbol->bytes;
    pyprof_symbol_release(symbol);
}

void pyprof_known_code_sweep(pyprof_known_code *known, pyprof_budget *budget) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < known->dead_count; i++) {
        if (__atomic_load_n(&known->dead[i]->refs, __ATOMIC_ACQUIRE) == 1) {
            let_go(known->dead[i], budget);
        } else {
            known->dead[kept++] = known->dead[i];
        }
    }
    known->dead_count = kept;
}

static bool reserve_dead(pyprof_known_code *known, pyprof_budget *budget) {
    if (known->dead_count < known->dead_room) {
        return true;
    }
    pyprof_known_code_sweep(known, budget);
    if (known->dead_count * 2 < known->dead_room) {
        return true;
    }
    const uint32_t room = known->dead_room == 0 ? FIRST_DEAD : known->dead_room * 2;
    pyprof_symbol **dead = pyprof_budget_alloc(budget, room * sizeof(*dead));
    if (dead == NULL) {
        return known->dead_count < known->dead_room;
    }
    if (known->dead_count > 0) {
        memcpy(dead, known->dead, known->dead_count * sizeof(*dead));
    }
    pyprof_budget_free(budget, known->dead, known->dead_room * sizeof(*dead));
    known->dead = dead;
    known->dead_room = room;
    return true;
}

/* Knuth, The Art of Computer Programming, 6.4, algorithm R. */
static void empty_slot(pyprof_known_code *known, uint32_t slot) {
    const uint32_t mask = known->capacity - 1;
    uint32_t next = slot;
    for (;;) {
        known->entries[slot].code = NULL;
        uint32_t home;
        do {
            next = (next + 1) & mask;
            if (known->entries[next].code == NULL) {
                return;
            }
            home = home_of(known->entries[next].code, known->capacity);
        } while (((next - home) & mask) < ((next - slot) & mask));
        known->entries[slot] = known->entries[next];
        slot = next;
    }
}

void pyprof_known_code_forget(pyprof_known_code *known, pyprof_budget *budget, const void *code) {
    if (known->capacity == 0) {
        return;
    }
    pyprof_known_code_entry *entry = find(known->entries, known->capacity, code);
    if (entry->code == NULL) {
        return;
    }
    if (reserve_dead(known, budget)) {
        known->dead[known->dead_count++] = entry->symbol;
    } else {
        let_go(entry->symbol, budget); /* who has it goes on with it; it only counts no more */
    }
    empty_slot(known, (uint32_t)(entry - known->entries));
    known->count--;
}

void pyprof_known_code_free(pyprof_known_code *known, pyprof_budget *budget) {
    for (uint32_t i = 0; i < known->capacity; i++) {
        if (known->entries[i].code != NULL) {
            let_go(known->entries[i].symbol, budget);
        }
    }
    for (uint32_t i = 0; i < known->dead_count; i++) {
        let_go(known->dead[i], budget);
    }
    pyprof_budget_free(budget, known->entries, known->capacity * sizeof(*known->entries));
    pyprof_budget_free(budget, known->dead, known->dead_room * sizeof(*known->dead));
    *known = (pyprof_known_code){0};
}

#endif
