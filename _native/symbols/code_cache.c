/* See code_cache.h. */
#include "symbols/code_cache.h"

#include <stdlib.h>
#include <string.h>

#include "cpython/interpreter.h"

typedef struct {
    PyCodeObject *code; /* NULL: free */
    pyprof_symbol *symbol;
    pyprof_code_shape shape;
    bool dead; /* atomic: set by the thread that frees the code object */
} entry;

/* Deaths between two snapshots that are removed one by one; after more, the whole table is looked through. */
enum { MAX_NOTED_DEATHS = 64 };

static struct {
    entry *entries;  /* open addressing, linear probing */
    size_t capacity; /* power of two, or 0 */
    size_t used;
    size_t bytes;       /* atomic */
    size_t death_count; /* atomic: since the last snapshot */
    const PyCodeObject *deaths[MAX_NOTED_DEATHS];
} cache;

static size_t slot_of(const PyCodeObject *code, size_t capacity) {
    return (size_t)(((uintptr_t)code >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (capacity - 1);
}

/* The entry of `code`, or the free one where it would go. The table is never full. */
static entry *find(entry *entries, size_t capacity, const PyCodeObject *code) {
    size_t slot = slot_of(code, capacity);
    while (entries[slot].code != NULL && entries[slot].code != code) {
        slot = (slot + 1) & (capacity - 1);
    }
    return &entries[slot];
}

static void count_bytes(size_t added, size_t removed) {
    __atomic_add_fetch(&cache.bytes, added - removed, __ATOMIC_RELAXED);
}

/* A table of `capacity` entries with what lives of the old one. False without memory: nothing has changed. */
static bool rebuild(size_t capacity) {
    entry *entries = calloc(capacity, sizeof(entry));
    if (entries == NULL) {
        return false;
    }
    size_t used = 0;
    for (size_t i = 0; i < cache.capacity; i++) {
        entry *old = &cache.entries[i];
        if (old->code == NULL) {
            continue;
        }
        if (__atomic_load_n(&old->dead, __ATOMIC_ACQUIRE)) {
            count_bytes(0, old->symbol->bytes);
            pyprof_symbol_release(old->symbol);
            continue;
        }
        *find(entries, capacity, old->code) = *old;
        used++;
    }
    count_bytes(capacity * sizeof(entry), cache.capacity * sizeof(entry));
    free(cache.entries);
    cache.entries = entries;
    cache.capacity = capacity;
    cache.used = used;
    return true;
}

static void on_death(PyCodeObject *code) {
    if (cache.capacity == 0) {
        return;
    }
    entry *found = find(cache.entries, cache.capacity, code);
    if (found->code == code) {
        __atomic_store_n(&found->dead, true, __ATOMIC_RELEASE);
        size_t place = __atomic_fetch_add(&cache.death_count, 1, __ATOMIC_ACQ_REL);
        if (place < MAX_NOTED_DEATHS) {
            cache.deaths[place] = code;
        }
    }
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

int pyprof_code_cache_open(void) { return pyprof_watch_code_deaths(on_death); }

void pyprof_code_cache_close(void) {
    pyprof_unwatch_code_deaths();
    for (size_t i = 0; i < cache.capacity; i++) {
        if (cache.entries[i].code != NULL) {
            pyprof_symbol_release(cache.entries[i].symbol);
        }
    }
    free(cache.entries);
    memset(&cache, 0, sizeof(cache));
}

void pyprof_code_cache_begin_snapshot(void) {
    size_t deaths = __atomic_load_n(&cache.death_count, __ATOMIC_ACQUIRE);
    if (deaths > MAX_NOTED_DEATHS) {
        if (!rebuild(cache.capacity)) {
            return; /* marked entries are not used, and the next snapshot tries again */
        }
    } else {
        for (size_t i = 0; i < deaths; i++) {
            entry *found = find(cache.entries, cache.capacity, cache.deaths[i]);
            if (found->code != NULL && found->dead) {
                count_bytes(0, found->symbol->bytes);
                pyprof_symbol_release(found->symbol);
                empty_slot((size_t)(found - cache.entries));
            }
        }
    }
    __atomic_store_n(&cache.death_count, 0, __ATOMIC_RELEASE);
}

bool pyprof_code_cache_needs_snapshot(void) {
    return __atomic_load_n(&cache.death_count, __ATOMIC_ACQUIRE) > MAX_NOTED_DEATHS;
}

size_t pyprof_code_cache_bytes(void) { return __atomic_load_n(&cache.bytes, __ATOMIC_RELAXED); }

/* UTF-8 of a str, with `\udcXX` for a lone surrogate, which UTF-8 cannot say. Returns the size; writes where
 * `out` is not NULL. */
static size_t transcode(PyObject *string, char *out) {
    int kind = PyUnicode_KIND(string);
    const void *data = PyUnicode_DATA(string);
    Py_ssize_t length = PyUnicode_GET_LENGTH(string);
    size_t size = 0;
    for (Py_ssize_t i = 0; i < length; i++) {
        Py_UCS4 c = PyUnicode_READ(kind, data, i);
        char bytes[8];
        size_t n = 0;
        if (c < 0x80) {
            bytes[n++] = (char)c;
        } else if (c < 0x800) {
            bytes[n++] = (char)(0xc0 | c >> 6);
            bytes[n++] = (char)(0x80 | (c & 0x3f));
        } else if (c >= 0xd800 && c <= 0xdfff) {
            static const char digits[] = "0123456789abcdef";
            bytes[n++] = '\\';
            bytes[n++] = 'u';
            for (int shift = 12; shift >= 0; shift -= 4) {
                bytes[n++] = digits[c >> shift & 15];
            }
        } else if (c < 0x10000) {
            bytes[n++] = (char)(0xe0 | c >> 12);
            bytes[n++] = (char)(0x80 | (c >> 6 & 0x3f));
            bytes[n++] = (char)(0x80 | (c & 0x3f));
        } else {
            bytes[n++] = (char)(0xf0 | c >> 18);
            bytes[n++] = (char)(0x80 | (c >> 12 & 0x3f));
            bytes[n++] = (char)(0x80 | (c >> 6 & 0x3f));
            bytes[n++] = (char)(0x80 | (c & 0x3f));
        }
        if (out != NULL) {
            memcpy(out + size, bytes, n);
        }
        size += n;
    }
    return size;
}

static pyprof_symbol *make_symbol(PyCodeObject *code) {
    /* An empty table would say that `lasti` is a line; kind 15 of the format says that there is none. */
    static const uint8_t no_lines[] = {0xff};
    const uint8_t *linetable = (const uint8_t *)PyBytes_AS_STRING(code->co_linetable);
    size_t linetable_size = (size_t)PyBytes_GET_SIZE(code->co_linetable);
    if (linetable_size == 0) {
        linetable = no_lines;
        linetable_size = sizeof(no_lines);
    }
    size_t qualname_size = transcode(code->co_qualname, NULL);
    size_t filename_size = transcode(code->co_filename, NULL);
    char *names = malloc(qualname_size + filename_size + 1);
    if (names == NULL) {
        return NULL;
    }
    transcode(code->co_qualname, names);
    transcode(code->co_filename, names + qualname_size);
    pyprof_symbol *symbol = pyprof_symbol_new(names, qualname_size, names + qualname_size, filename_size,
                                              code->co_firstlineno, linetable, linetable_size);
    free(names);
    return symbol;
}

static entry *find_alive(const void *code) {
    if (cache.capacity == 0 || code == NULL) {
        return NULL;
    }
    entry *found = find(cache.entries, cache.capacity, code);
    return found->code != NULL && !__atomic_load_n(&found->dead, __ATOMIC_ACQUIRE) ? found : NULL;
}

pyprof_symbol *pyprof_code_cache_find(const void *code) {
    entry *found = find_alive(code);
    return found == NULL ? NULL : found->symbol;
}

pyprof_code_shape *pyprof_code_cache_find_shape(const void *code) {
    entry *found = find_alive(code);
    return found == NULL ? NULL : &found->shape;
}

enum { FIRST_CAPACITY = 256 };

pyprof_symbol *pyprof_code_cache_get(PyCodeObject *code) {
    entry *known = find_alive(code);
    if (known != NULL) {
        return known->symbol;
    }
    /* At most half full: the probes stay short. */
    if (cache.used * 2 >= cache.capacity &&
        !rebuild(cache.capacity == 0 ? FIRST_CAPACITY : cache.capacity * 2)) {
        return NULL;
    }
    pyprof_symbol *symbol = make_symbol(code);
    if (symbol == NULL) {
        return NULL;
    }
    entry *place = find(cache.entries, cache.capacity, code);
    if (place->code ==
        code) { /* a predecessor at the same address, dead and not yet removed for want of memory */
        count_bytes(0, place->symbol->bytes);
        pyprof_symbol_release(place->symbol);
    } else {
        cache.used++;
    }
    *place = (entry){code, symbol, pyprof_code_shape_of(code), false};
    count_bytes(symbol->bytes, 0);
    return symbol;
}
