/* See code_cache.h. */
#include "symbols/code_cache.h"

#include <stdlib.h>
#include <string.h>

#include "symbols/code_deaths.h"
#include "symbols/code_symbol.h"

typedef struct {
    const void *code; /* NULL: free */
    pyprof_symbol *symbol;
    pyprof_code_shape shape;
} entry;

enum { FIRST_CAPACITY = 256, MOST_NEW = 1024 };

static struct {
    entry *entries;  /* open addressing, linear probing */
    size_t capacity; /* power of two, or 0 */
    size_t used;
    size_t bytes;                   /* atomic */
    bool is_stale;                  /* to be emptied by the next snapshot */
    bool changing;                  /* in the child of a fork: half done */
    pyprof_death_mark settled;      /* deaths before this one are not in the table any more */
    const void *new_code[MOST_NEW]; /* since the last walk */
    size_t new_count;
} cache;

static size_t slot_of(const void *code, size_t capacity) {
    return (size_t)(((uintptr_t)code >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (capacity - 1);
}

/* The entry of `code`, or the free one where it would go. The table is never full. */
static entry *find(entry *entries, size_t capacity, const void *code) {
    size_t slot = slot_of(code, capacity);
    while (entries[slot].code != NULL && entries[slot].code != code) {
        slot = (slot + 1) & (capacity - 1);
    }
    return &entries[slot];
}

static void begin_change(void) { __atomic_store_n(&cache.changing, true, __ATOMIC_SEQ_CST); }

static void end_change(void) { __atomic_store_n(&cache.changing, false, __ATOMIC_SEQ_CST); }

static void count_bytes(size_t added, size_t removed) {
    __atomic_add_fetch(&cache.bytes, added - removed, __ATOMIC_RELAXED);
}

static bool grow(void) {
    const size_t capacity = cache.capacity == 0 ? FIRST_CAPACITY : cache.capacity * 2;
    entry *entries = calloc(capacity, sizeof(entry));
    if (entries == NULL) {
        return false;
    }
    for (size_t i = 0; i < cache.capacity; i++) {
        if (cache.entries[i].code != NULL) {
            *find(entries, capacity, cache.entries[i].code) = cache.entries[i];
        }
    }
    count_bytes(capacity * sizeof(entry), cache.capacity * sizeof(entry));
    free(cache.entries);
    cache.entries = entries;
    cache.capacity = capacity;
    return true;
}

/* Empties a slot and moves up what had to probe past it (Knuth, The Art of Computer Programming, 6.4,
 * algorithm R). */
static void empty_slot(size_t slot) {
    const size_t mask = cache.capacity - 1;
    size_t next = slot;
    cache.used--;
    for (;;) {
        cache.entries[slot] = (entry){0};
        size_t home;
        do {
            next = (next + 1) & mask;
            if (cache.entries[next].code == NULL) {
                return;
            }
            home = slot_of(cache.entries[next].code, cache.capacity);
        } while (((next - home) & mask) < ((next - slot) & mask));
        cache.entries[slot] = cache.entries[next];
        slot = next;
    }
}

static void forget(const void *code) {
    if (cache.capacity > 0) {
        entry *found = find(cache.entries, cache.capacity, code);
        if (found->code != NULL) {
            count_bytes(0, found->symbol->bytes);
            pyprof_symbol_release(found->symbol);
            pyprof_free_call_sites(found->shape.call_sites);
            empty_slot((size_t)(found - cache.entries));
        }
    }
}

static void forget_everything(void) {
    for (size_t i = 0; i < cache.capacity; i++) {
        if (cache.entries[i].code != NULL) {
            pyprof_symbol_release(cache.entries[i].symbol);
            pyprof_free_call_sites(cache.entries[i].shape.call_sites);
        }
    }
    free(cache.entries);
    cache.entries = NULL;
    cache.capacity = cache.used = cache.new_count = 0;
    __atomic_store_n(&cache.bytes, 0, __ATOMIC_RELAXED);
}

void pyprof_code_cache_open(void) { pyprof_watch_code_deaths(pyprof_note_death); }

void pyprof_code_cache_close(void) {
    pyprof_unwatch_code_deaths(pyprof_note_death);
    forget_everything();
    pyprof_copied_code_close();
}

void pyprof_code_cache_reset_child(void) {
    pyprof_copied_code_reset_child();
    if (cache.changing) {
        memset(&cache, 0, sizeof(cache)); /* with what it held: nobody can tell any more what that was */
    } else {
        pyprof_code_cache_begin_snapshot();
    }
    cache.settled = pyprof_deaths_so_far(); /* who was just noting one does not exist here */
}

void pyprof_code_cache_begin_snapshot(void) {
    begin_change();
    if (!pyprof_settle_deaths(&cache.settled, forget) || cache.is_stale) {
        forget_everything();
        cache.is_stale = false;
    }
    end_change();
}

void pyprof_code_cache_forget(void) { cache.is_stale = true; }

size_t pyprof_code_cache_bytes(void) {
    return __atomic_load_n(&cache.bytes, __ATOMIC_RELAXED) + pyprof_copied_code_bytes() +
           pyprof_call_sites_bytes();
}

static entry *find_known(const void *code) {
    if (cache.capacity == 0 || code == NULL) {
        return NULL;
    }
    entry *found = find(cache.entries, cache.capacity, code);
    return found->code == NULL ? NULL : found;
}

static entry *add(const void *code, const pyprof_code_view *view) {
    entry *added = NULL;
    begin_change();
    /* At most half full: the probes stay short. */
    if (cache.used * 2 < cache.capacity || grow()) {
        pyprof_symbol *symbol = pyprof_symbol_of_code(view);
        if (symbol != NULL) {
            added = find(cache.entries, cache.capacity, code);
            *added = (entry){code, symbol, view->shape};
            cache.used++;
            count_bytes(symbol->bytes, 0);
        }
    }
    end_change();
    return added;
}

pyprof_symbol *pyprof_code_cache_get(PyCodeObject *code) {
    entry *found = find_known(code);
    if (found == NULL) {
        const pyprof_code_view view = pyprof_view_code(code);
        found = add(code, &view);
    }
    return found == NULL ? NULL : found->symbol;
}

pyprof_symbol *pyprof_code_cache_find(const void *code) {
    entry *found = find_known(code);
    return found == NULL ? NULL : found->symbol;
}

pyprof_code_shape *pyprof_code_cache_find_shape(const void *code) {
    entry *found = find_known(code);
    pyprof_code_view view;
    if (found == NULL && cache.new_count < MOST_NEW && pyprof_copy_code(code, &view)) {
        found = add(code, &view);
        if (found != NULL) {
            cache.new_code[cache.new_count++] = code;
        }
    }
    return found == NULL ? NULL : &found->shape;
}

static bool has_code(const pyprof_code_frame *frames, size_t depth, const void *code) {
    for (size_t i = 0; i < depth; i++) {
        if (frames[i].code == code) {
            return true;
        }
    }
    return false;
}

bool pyprof_code_cache_end_walk(const pyprof_code_frame *frames, size_t depth) {
    bool all_alive = true;
    for (pyprof_death_mark at = cache.settled; all_alive && at != pyprof_deaths_so_far(); at++) {
        const void *dead;
        all_alive = pyprof_death_at(cache.settled, at, &dead) && !has_code(frames, depth, dead);
    }
    begin_change();
    for (size_t i = 0; i < cache.new_count; i++) {
        if (!all_alive || !has_code(frames, depth, cache.new_code[i])) {
            forget(cache.new_code[i]);
        }
    }
    cache.new_count = 0;
    end_change();
    return all_alive;
}
