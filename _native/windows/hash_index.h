/* Hash index: from a hash to the numbers filed under it, by open addressing with linear probing.
 *
 * The index keeps numbers only; what they stand for, and whether it is equal, the caller knows:
 *
 *     pyprof_probe probe = pyprof_hash_index_probe(&index, hash);
 *     while (pyprof_hash_index_next(&index, &probe, &number)) {
 *         if (equal(number, key)) return number;
 *     }
 *
 * Nothing is ever removed. No lock: one thread at a time.
 */
#ifndef PYPROF_HASH_INDEX_H
#define PYPROF_HASH_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "windows/budget.h"

typedef struct {
    uint32_t hash;
    uint32_t number; /* plus one; 0: the slot is free */
} pyprof_hash_slot;

typedef struct {
    pyprof_hash_slot *slots;
    uint32_t size; /* a power of two, or 0 */
    uint32_t count;
} pyprof_hash_index;

typedef struct {
    uint32_t hash;
    uint32_t at;
} pyprof_probe;

bool pyprof_hash_index_reserve(pyprof_hash_index *index, pyprof_budget *budget); /* room for one more */
void pyprof_hash_index_insert(pyprof_hash_index *index, uint32_t hash, uint32_t number); /* after a reserve */
void pyprof_hash_index_free(pyprof_hash_index *index, pyprof_budget *budget);

static inline pyprof_probe pyprof_hash_index_probe(const pyprof_hash_index *index, uint32_t hash) {
    return (pyprof_probe){hash, index->size == 0 ? 0 : hash & (index->size - 1)};
}

static inline bool pyprof_hash_index_next(const pyprof_hash_index *index, pyprof_probe *probe,
                                          uint32_t *number) {
    if (index->size == 0) {
        return false;
    }
    for (;;) {
        const pyprof_hash_slot *slot = &index->slots[probe->at];
        if (slot->number == 0) {
            return false;
        }
        probe->at = (probe->at + 1) & (index->size - 1);
        if (slot->hash == probe->hash) {
            *number = slot->number - 1;
            return true;
        }
    }
}

/* Mixing in the manner of multiply-and-fold: each input bit reaches the high half, which folds down. */
static inline uint64_t pyprof_mix(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * UINT64_C(0x9E3779B97F4A7C15);
    return hash ^ (hash >> 32);
}

static inline uint32_t pyprof_hash_words(const uint32_t *words, size_t count) {
    uint64_t hash = count;
    for (size_t i = 0; i < count; i++) {
        hash = pyprof_mix(hash, words[i]);
    }
    return (uint32_t)hash;
}

static inline uint32_t pyprof_hash_bytes(const char *bytes, size_t size) {
    uint64_t hash = size, word;
    for (; size >= sizeof word; bytes += sizeof word, size -= sizeof word) {
        memcpy(&word, bytes, sizeof word);
        hash = pyprof_mix(hash, word);
    }
    word = 0;
    if (size > 0) {
        memcpy(&word, bytes, size);
    }
    return (uint32_t)pyprof_mix(hash, word);
}

#endif
