/* See c_functions.h. */
#include "symbols/c_functions.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "cpython/callables.h"
#include "cpython/guarded_read.h"

enum { CAPACITY = 2048, MOST_USED = CAPACITY / 2, MOST_AT_ONCE = 16 };

typedef struct {
    pyprof_symbol *symbol; /* NULL: free */
    const void *definition, *owner;
    const char *own_name; /* where it is in memory; the end of the symbol's, but for that of a type */
    size_t own_size;
} entry;

static struct {
    entry entries[CAPACITY]; /* open addressing, linear probing; only touched pages take memory */
    size_t used;
    bool is_stale;
    size_t bytes; /* atomic */
} table;

static void count_bytes(size_t bytes) {
    __atomic_store_n(&table.bytes, bytes == 0 ? 0 : table.bytes + bytes, __ATOMIC_RELAXED);
}

size_t pyprof_c_functions_bytes(void) { return __atomic_load_n(&table.bytes, __ATOMIC_RELAXED); }

static void empty(bool releases) {
    for (size_t i = 0; i < CAPACITY; i++) {
        if (table.entries[i].symbol != NULL) {
            if (releases) {
                pyprof_symbol_release(table.entries[i].symbol);
            }
            table.entries[i] = (entry){0};
        }
    }
    table.used = 0;
    table.is_stale = false;
    count_bytes(0);
}

void pyprof_c_functions_close(void) { empty(true); }

void pyprof_c_functions_reset_child(void) { empty(false); }

void pyprof_c_functions_begin_snapshot(void) {
    if (table.is_stale || table.used == MOST_USED) {
        empty(true);
    }
}

/* The entry of the function, or the free one where it would go. The table is never full. */
static entry *find(const pyprof_c_function *function) {
    const uint64_t mixed = ((uintptr_t)function->definition >> 3) * UINT64_C(0x9e3779b97f4a7c15) ^
                           (uintptr_t)function->owner >> 4;
    size_t slot = (size_t)(mixed >> 20) % CAPACITY;
    while (table.entries[slot].symbol != NULL && (table.entries[slot].definition != function->definition ||
                                                  table.entries[slot].owner != function->owner)) {
        slot = (slot + 1) % CAPACITY;
    }
    return &table.entries[slot];
}

static pyprof_symbol *add(entry *place, const pyprof_c_function *function) {
    if (place->symbol != NULL) {
        return place->symbol;
    }
    char name[PYPROF_C_NAME_BYTES];
    entry added = {.definition = function->definition, .owner = function->owner};
    const size_t size = pyprof_read_c_name(function, name, &added.own_name, &added.own_size);
    if (size == 0 || table.used == MOST_USED) {
        return NULL;
    }
    /* No table of lines: a C function has none. */
    added.symbol = pyprof_symbol_new(name, size, "", 0, 0, NULL, 0);
    if (added.symbol != NULL) {
        count_bytes(sizeof(added) + added.symbol->bytes);
        table.used++;
        *place = added;
    }
    return added.symbol;
}

/* What must be read again of a function that is known. */
typedef struct {
    entry *known;
    const char *name_at;
    char name[PYPROF_C_NAME_BYTES];
} check;

static bool is_as_known(const check *one) {
    const pyprof_symbol *symbol = one->known->symbol;
    const size_t size = one->known->own_size;
    const char *name = symbol->qualname + symbol->qualname_size - size;
    return one->name_at == one->known->own_name && memcmp(one->name, name, size) == 0 &&
           one->name[size] == '\0';
}

static size_t reads_of(const pyprof_c_function *function, check *one, pyprof_read *reads) {
    one->known = find(function);
    if (one->known->symbol == NULL) {
        return 0;
    }
    reads[0] = (pyprof_read){&one->name_at, function->name_field, sizeof(one->name_at)};
    reads[1] = (pyprof_read){one->name, one->known->own_name, one->known->own_size + 1};
    return 2;
}

static pyprof_symbol *symbol_of(const pyprof_c_function *function, const check *one, bool was_known) {
    if (!was_known) {
        return add(find(function), function);
    }
    if (!is_as_known(one)) {
        table.is_stale = true;
        return NULL;
    }
    return one->known->symbol;
}

/* `which`: the frames that call something, at most MOST_AT_ONCE. */
static void find_some(const pyprof_code_frame *frames, const size_t *which, size_t count,
                      pyprof_symbol **symbols) {
    static check checks[MOST_AT_ONCE]; /* of the one thread that is here, and may have a small stack */
    static pyprof_read reads[2 * MOST_AT_ONCE];
    static pyprof_c_function functions[MOST_AT_ONCE];
    const pyprof_callee *callees[MOST_AT_ONCE];
    bool was_known[MOST_AT_ONCE] = {false};
    size_t read_count = 0;
    for (size_t i = 0; i < count; i++) {
        callees[i] = &frames[which[i]].callee;
    }
    pyprof_identify_callees(callees, count, functions);
    for (size_t i = 0; i < count; i++) {
        if (functions[i].definition != NULL) {
            const size_t added = reads_of(&functions[i], &checks[i], reads + read_count);
            was_known[i] = added > 0;
            read_count += added;
        }
    }
    if (read_count > 0 && !pyprof_read_memory(reads, read_count)) {
        table.is_stale = true; /* of one of them the name is gone */
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (functions[i].definition != NULL) {
            symbols[which[i]] = symbol_of(&functions[i], &checks[i], was_known[i]);
        }
    }
}

void pyprof_find_c_functions(const pyprof_code_frame *frames, size_t depth, pyprof_symbol **symbols) {
    size_t which[MOST_AT_ONCE], count = 0;
    for (size_t i = 0; i < depth; i++) {
        symbols[i] = NULL;
        if (frames[i].callee.object != NULL) {
            which[count++] = i;
        }
        if (count == MOST_AT_ONCE || (i + 1 == depth && count > 0)) {
            find_some(frames, which, count, symbols);
            count = 0;
        }
    }
}
