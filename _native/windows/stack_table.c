/* See stack_table.h. */
#include "windows/stack_table.h"

#include <string.h>

#define UNKNOWN UINT32_MAX
#define OVERFLOW_STACKS 1u /* stack 0 is not in the vector */

#define FIRST_FRAMES 64u
#define LARGEST_FRAMES (1u << 28)
#define FIRST_SCRATCH 128u
#define LARGEST_DEPTH (UINT32_MAX / 8)

#define PSEUDO_SYMBOL(name)                                                                                  \
    {                                                                                                        \
        .refs = 1, .qualname = name, .qualname_size = sizeof(name) - 1, .filename = "",                      \
        .linetable = (const uint8_t *)"", .bytes = 0                                                         \
    }

static const pyprof_symbol pseudo_symbols[PYPROF_PSEUDO_SYMBOLS] = {
    [PYPROF_OVERFLOW_LOCATION] = PSEUDO_SYMBOL("[overflow]"),
    [PYPROF_TRUNCATED_LOCATION] = PSEUDO_SYMBOL("[truncated]"),
};

static const uint32_t overflow_run[] = {PYPROF_OVERFLOW_LOCATION};

void pyprof_stack_table_init(pyprof_stack_table *table) {
    *table = (pyprof_stack_table){
        .symbols.element_size = sizeof(pyprof_symbol *),
        .locations.element_size = sizeof(pyprof_location),
        .stacks.element_size = sizeof(pyprof_stack),
    };
}

void pyprof_stack_table_free(pyprof_stack_table *table, pyprof_budget *budget) {
    for (uint32_t i = 0; i < table->symbols.count; i++) {
        pyprof_symbol *symbol = *(pyprof_symbol **)pyprof_vector_at(&table->symbols, i);
        budget->used -= symbol->bytes;
        pyprof_symbol_release(symbol);
    }
    pyprof_vector_free(&table->symbols, budget);
    pyprof_vector_free(&table->locations, budget);
    pyprof_vector_free(&table->stacks, budget);
    pyprof_hash_index_free(&table->symbol_index, budget);
    pyprof_hash_index_free(&table->location_index, budget);
    pyprof_hash_index_free(&table->stack_index, budget);
    pyprof_arena_free(&table->runs, budget);
    pyprof_budget_free(budget, table->frames, table->frames_size * sizeof *table->frames);
    pyprof_budget_free(budget, table->scratch, table->scratch_size * sizeof *table->scratch);
    pyprof_stack_table_init(table);
}

/* ---- Symbols ---- */

static uint32_t hash_symbol(const pyprof_symbol *symbol) {
    return (uint32_t)pyprof_mix(0, (uintptr_t)symbol);
}

static uint32_t find_symbol(const pyprof_stack_table *table, const pyprof_symbol *symbol) {
    uint32_t number;
    pyprof_probe probe = pyprof_hash_index_probe(&table->symbol_index, hash_symbol(symbol));
    while (pyprof_hash_index_next(&table->symbol_index, &probe, &number)) {
        if (pyprof_stack_table_symbol(table, number) == symbol) {
            return number;
        }
    }
    return UNKNOWN;
}

static uint32_t insert_symbol(pyprof_stack_table *table, pyprof_budget *budget, pyprof_symbol *symbol) {
    if (!pyprof_vector_reserve(&table->symbols, budget) ||
        !pyprof_hash_index_reserve(&table->symbol_index, budget) ||
        !pyprof_budget_charge(budget, symbol->bytes)) {
        return UNKNOWN;
    }
    uint32_t number = table->symbols.count + PYPROF_PSEUDO_SYMBOLS;
    *(pyprof_symbol **)pyprof_vector_push(&table->symbols) = pyprof_symbol_retain(symbol);
    pyprof_hash_index_insert(&table->symbol_index, hash_symbol(symbol), number);
    return number;
}

/* ---- Locations ---- */

static uint32_t hash_location(uint32_t symbol, int32_t line) {
    return pyprof_hash_words((const uint32_t[]){symbol, (uint32_t)line}, 2);
}

static uint32_t find_location(const pyprof_stack_table *table, uint32_t symbol, int32_t line) {
    uint32_t number;
    pyprof_probe probe = pyprof_hash_index_probe(&table->location_index, hash_location(symbol, line));
    while (pyprof_hash_index_next(&table->location_index, &probe, &number)) {
        pyprof_location location = pyprof_stack_table_location(table, number);
        if (location.symbol == symbol && location.line == line) {
            return number;
        }
    }
    return UNKNOWN;
}

static uint32_t insert_location(pyprof_stack_table *table, pyprof_budget *budget, uint32_t symbol,
                                int32_t line) {
    if (!pyprof_vector_reserve(&table->locations, budget) ||
        !pyprof_hash_index_reserve(&table->location_index, budget)) {
        return UNKNOWN;
    }
    uint32_t number = table->locations.count + PYPROF_PSEUDO_LOCATIONS;
    *(pyprof_location *)pyprof_vector_push(&table->locations) = (pyprof_location){symbol, line};
    pyprof_hash_index_insert(&table->location_index, hash_location(symbol, line), number);
    return number;
}

/* ---- Frames ---- */

/* The slot of the frame, or the free one where it would go; the table is never full. */
static pyprof_frame_slot *frame_slot(const pyprof_stack_table *table, const pyprof_symbol *symbol,
                                     int32_t lasti) {
    uint64_t hash = ((uintptr_t)symbol ^ (uint64_t)(uint32_t)lasti << 40) * UINT64_C(0x9E3779B97F4A7C15);
    for (uint32_t at = (uint32_t)(hash >> table->frames_shift);; at = (at + 1) & (table->frames_size - 1)) {
        pyprof_frame_slot *slot = &table->frames[at];
        if (slot->symbol == NULL || (slot->symbol == symbol && slot->lasti == lasti)) {
            return slot;
        }
    }
}

static bool reserve_frame(pyprof_stack_table *table, pyprof_budget *budget) {
    if (table->frames_count < table->frames_size / 2) {
        return true;
    }
    pyprof_stack_table larger = {.frames_size = FIRST_FRAMES, .frames_shift = 64 - 6};
    if (table->frames_size > 0) {
        larger.frames_size = table->frames_size * 2;
        larger.frames_shift = table->frames_shift - 1;
    }
    if (larger.frames_size > LARGEST_FRAMES) {
        return false;
    }
    size_t bytes = larger.frames_size * sizeof *larger.frames;
    larger.frames = pyprof_budget_alloc(budget, bytes);
    if (larger.frames == NULL) {
        return false;
    }
    memset(larger.frames, 0, bytes);
    for (uint32_t i = 0; i < table->frames_size; i++) {
        const pyprof_frame_slot *slot = &table->frames[i];
        if (slot->symbol != NULL) {
            *frame_slot(&larger, slot->symbol, slot->lasti) = *slot;
        }
    }
    pyprof_budget_free(budget, table->frames, table->frames_size * sizeof *table->frames);
    table->frames = larger.frames;
    table->frames_size = larger.frames_size;
    table->frames_shift = larger.frames_shift;
    return true;
}

static void remember_frame(pyprof_stack_table *table, pyprof_budget *budget, const pyprof_frame *frame,
                           uint32_t location) {
    if (reserve_frame(table, budget)) {
        *frame_slot(table, frame->symbol, frame->lasti) =
            (pyprof_frame_slot){frame->symbol, frame->lasti, location};
        table->frames_count++;
    }
}

/* The location of a frame; UNKNOWN where there is none yet. */
static uint32_t find_frame(pyprof_stack_table *table, pyprof_budget *budget, const pyprof_frame *frame) {
    if (table->frames_size > 0) {
        const pyprof_frame_slot *slot = frame_slot(table, frame->symbol, frame->lasti);
        if (slot->symbol != NULL) {
            return slot->location;
        }
    }
    uint32_t symbol = find_symbol(table, frame->symbol);
    if (symbol == UNKNOWN) {
        return UNKNOWN;
    }
    uint32_t location = find_location(table, symbol, pyprof_symbol_line(frame->symbol, frame->lasti));
    if (location != UNKNOWN) {
        remember_frame(table, budget, frame, location);
    }
    return location;
}

/* The location of a frame that has none yet; UNKNOWN where there is no room. */
static uint32_t insert_frame(pyprof_stack_table *table, pyprof_budget *budget, const pyprof_frame *frame) {
    uint32_t location = UNKNOWN, symbol = UNKNOWN;
    if (!table->closed) {
        symbol = find_symbol(table, frame->symbol);
        if (symbol == UNKNOWN) {
            symbol = insert_symbol(table, budget, frame->symbol);
        }
    }
    if (symbol != UNKNOWN) {
        int32_t line = pyprof_symbol_line(frame->symbol, frame->lasti);
        location = insert_location(table, budget, symbol, line);
    }
    table->closed = location == UNKNOWN;
    if (location != UNKNOWN) {
        remember_frame(table, budget, frame, location);
    }
    return location;
}

/* ---- Stacks ---- */

static bool reserve_scratch(pyprof_stack_table *table, pyprof_budget *budget, size_t depth) {
    if (depth <= table->scratch_size) {
        return true;
    }
    size_t size = table->scratch_size == 0 ? FIRST_SCRATCH : table->scratch_size * 2;
    if (size < depth) {
        size = depth;
    }
    uint32_t *scratch = pyprof_budget_alloc(budget, size * sizeof *scratch);
    if (scratch == NULL) {
        return false;
    }
    pyprof_budget_free(budget, table->scratch, table->scratch_size * sizeof *scratch);
    table->scratch = scratch;
    table->scratch_size = size;
    return true;
}

static pyprof_stack_id find_stack(const pyprof_stack_table *table, const uint32_t *locations, uint32_t depth,
                                  uint32_t hash) {
    uint32_t number;
    pyprof_probe probe = pyprof_hash_index_probe(&table->stack_index, hash);
    while (pyprof_hash_index_next(&table->stack_index, &probe, &number)) {
        pyprof_stack stack = pyprof_stack_table_stack(table, number);
        if (stack.depth == depth && memcmp(stack.locations, locations, depth * sizeof *locations) == 0) {
            return number;
        }
    }
    return UNKNOWN;
}

static bool reserve_stack(pyprof_stack_table *table, pyprof_budget *budget, uint32_t depth) {
    return pyprof_vector_reserve(&table->stacks, budget) &&
           pyprof_hash_index_reserve(&table->stack_index, budget) &&
           pyprof_arena_reserve(&table->runs, budget, depth * sizeof(uint32_t));
}

pyprof_stack_id pyprof_stack_table_intern(pyprof_stack_table *table, pyprof_budget *budget,
                                          const pyprof_frame *frames, size_t depth, bool truncated) {
    if (depth > LARGEST_DEPTH || !reserve_scratch(table, budget, depth + 1)) {
        return PYPROF_OVERFLOW_STACK;
    }
    uint32_t *locations = table->scratch;
    uint32_t length = (uint32_t)depth + truncated;
    if (truncated) {
        locations[depth] = PYPROF_TRUNCATED_LOCATION;
    }
    size_t known = 0;
    while (known < depth) {
        locations[known] = find_frame(table, budget, &frames[known]);
        if (locations[known] == UNKNOWN) {
            break;
        }
        known++;
    }
    if (known == depth) {
        pyprof_stack_id stack = find_stack(table, locations, length, pyprof_hash_words(locations, length));
        if (stack != UNKNOWN) {
            return stack;
        }
    }
    /* Room for the stack comes first: one that is refused must not fill the table with its symbols. */
    if (!reserve_stack(table, budget, length)) {
        return PYPROF_OVERFLOW_STACK;
    }
    for (; known < depth; known++) {
        locations[known] = find_frame(table, budget, &frames[known]);
        if (locations[known] == UNKNOWN) {
            locations[known] = insert_frame(table, budget, &frames[known]);
        }
        if (locations[known] == UNKNOWN) {
            return PYPROF_OVERFLOW_STACK;
        }
    }
    uint32_t *run = pyprof_arena_take(&table->runs, length * sizeof *run);
    memcpy(run, locations, length * sizeof *run);
    pyprof_stack_id number = table->stacks.count + OVERFLOW_STACKS;
    *(pyprof_stack *)pyprof_vector_push(&table->stacks) = (pyprof_stack){run, length};
    pyprof_hash_index_insert(&table->stack_index, pyprof_hash_words(run, length), number);
    return number;
}

/* ---- Reading ---- */

uint32_t pyprof_stack_table_symbol_count(const pyprof_stack_table *table) {
    return table->symbols.count + PYPROF_PSEUDO_SYMBOLS;
}

uint32_t pyprof_stack_table_location_count(const pyprof_stack_table *table) {
    return table->locations.count + PYPROF_PSEUDO_LOCATIONS;
}

uint32_t pyprof_stack_table_stack_count(const pyprof_stack_table *table) {
    return table->stacks.count + OVERFLOW_STACKS;
}

const pyprof_symbol *pyprof_stack_table_symbol(const pyprof_stack_table *table, uint32_t number) {
    if (number < PYPROF_PSEUDO_SYMBOLS) {
        return &pseudo_symbols[number];
    }
    return *(pyprof_symbol **)pyprof_vector_at(&table->symbols, number - PYPROF_PSEUDO_SYMBOLS);
}

pyprof_location pyprof_stack_table_location(const pyprof_stack_table *table, uint32_t number) {
    if (number < PYPROF_PSEUDO_LOCATIONS) {
        return (pyprof_location){number, 0};
    }
    return *(pyprof_location *)pyprof_vector_at(&table->locations, number - PYPROF_PSEUDO_LOCATIONS);
}

pyprof_stack pyprof_stack_table_stack(const pyprof_stack_table *table, pyprof_stack_id number) {
    if (number == PYPROF_OVERFLOW_STACK) {
        return (pyprof_stack){overflow_run, 1};
    }
    return *(pyprof_stack *)pyprof_vector_at(&table->stacks, number - OVERFLOW_STACKS);
}
