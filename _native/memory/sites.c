/* See sites.h. */
#ifndef PYPROF_PORTABLE
#include "memory/sites.h"

#include <string.h>

#include "cpython/contexts.h"
#include "cpython/interpreter.h"
#include "labels/label_reader.h"
#include "windows/hash_index.h"

enum { FIRST_CAPACITY = 256, FIRST_ROOM = 256 };

/* What is looked for; its frames and labels are in the table. */
typedef struct {
    uint32_t depth, label_count, hash;
    bool truncated;
} site_key;

static size_t bytes_of(uint32_t depth) { return sizeof(pyprof_site) + depth * sizeof(pyprof_frame); }

bool pyprof_sites_open(pyprof_sites *sites, size_t max_bytes, uint32_t max_frames) {
    *sites = (pyprof_sites){.budget.limit = max_bytes, .max_frames = max_frames};
    sites->positions = pyprof_budget_alloc(&sites->budget, max_frames * sizeof(*sites->positions));
    sites->frames = pyprof_budget_alloc(&sites->budget, max_frames * sizeof(*sites->frames));
    sites->overflow = pyprof_budget_alloc(&sites->budget, bytes_of(0));
    sites->native = pyprof_symbol_new("[native]", strlen("[native]"), "", 0, 0, NULL, 0);
    sites->slots = pyprof_budget_alloc(&sites->budget, FIRST_CAPACITY * sizeof(*sites->slots));
    sites->sites = pyprof_budget_alloc(&sites->budget, FIRST_ROOM * sizeof(*sites->sites));
    if (sites->positions == NULL || sites->frames == NULL || sites->overflow == NULL ||
        sites->native == NULL || sites->slots == NULL || sites->sites == NULL) {
        pyprof_sites_close(sites);
        return false;
    }
    *sites->overflow = (pyprof_site){0};
    memset(sites->slots, 0, FIRST_CAPACITY * sizeof(*sites->slots));
    sites->capacity = FIRST_CAPACITY;
    sites->room = FIRST_ROOM;
    sites->sites[sites->count++] = sites->overflow;
    return true;
}

static void free_site(pyprof_sites *sites, pyprof_site *site) {
    for (uint32_t i = 0; i < site->depth; i++) {
        pyprof_symbol_release(site->frames[i].symbol);
    }
    if (site->labels != NULL) {
        sites->budget.used -= pyprof_label_set_bytes(site->labels);
        pyprof_label_set_release(site->labels);
    }
    pyprof_budget_free(&sites->budget, site, bytes_of(site->depth));
}

void pyprof_sites_close(pyprof_sites *sites) {
    for (uint32_t i = 0; i < sites->count; i++) {
        free_site(sites, sites->sites[i]);
    }
    if (sites->count == 0) {
        pyprof_budget_free(&sites->budget, sites->overflow, bytes_of(0));
    }
    pyprof_known_code_free(&sites->code, &sites->budget);
    if (sites->native != NULL) {
        pyprof_symbol_release(sites->native);
    }
    pyprof_budget_free(&sites->budget, sites->positions, sites->max_frames * sizeof(*sites->positions));
    pyprof_budget_free(&sites->budget, sites->frames, sites->max_frames * sizeof(*sites->frames));
    pyprof_budget_free(&sites->budget, sites->slots, sites->capacity * sizeof(*sites->slots));
    pyprof_budget_free(&sites->budget, sites->sites, sites->room * sizeof(*sites->sites));
    *sites = (pyprof_sites){0};
}

/* The frames of the thread; false where a symbol finds no room. */
static bool read_frames(pyprof_sites *sites, PyThreadState *thread, site_key *key) {
    if (thread != NULL) {
        key->depth =
            (uint32_t)pyprof_walk_positions(thread, sites->positions, sites->max_frames, &key->truncated);
    }
    uint64_t mixed = key->truncated;
    for (uint32_t i = 0; i < key->depth; i++) {
        const pyprof_code_position *at = &sites->positions[i];
        pyprof_symbol *symbol = pyprof_known_code_get(&sites->code, &sites->budget, at->code);
        if (symbol == NULL) {
            return false;
        }
        sites->frames[i] = (pyprof_frame){symbol, at->lasti};
        mixed = pyprof_mix(mixed, (uintptr_t)symbol ^ (uint64_t)(uint32_t)at->lasti << 40);
    }
    if (key->depth == 0) {
        sites->frames[key->depth++] = (pyprof_frame){sites->native, 0};
    }
    key->hash = (uint32_t)mixed;
    return true;
}

static void read_labels(pyprof_sites *sites, PyThreadState *thread, site_key *key) {
    pyprof_label_set *set =
        thread == NULL ? NULL : pyprof_labels_of_context(pyprof_context_of(thread), PYPROF_STANDS_STILL);
    if (set == NULL) {
        return;
    }
    const uint32_t count = pyprof_label_set_resolve(set, sites->labels);
    uint64_t mixed = key->hash;
    for (uint32_t i = 0; i < count; i++) {
        const pyprof_label *label = &sites->labels[i];
        if (!pyprof_label_is_of_span(label)) {
            mixed = pyprof_mix(mixed, pyprof_hash_bytes(label->name, label->name_size));
            mixed = pyprof_mix(mixed, pyprof_hash_bytes(label->value, label->value_size));
            sites->labels[key->label_count++] = *label;
        }
    }
    key->hash = (uint32_t)mixed;
    pyprof_label_set_release(set); /* the calling thread's context holds it */
}

static bool has_labels(const pyprof_site *site, const pyprof_label *labels, uint32_t count) {
    const pyprof_label_list *own = site->labels == NULL ? NULL : pyprof_label_set_own(site->labels);
    bool same = (own == NULL ? 0 : own->count) == count;
    for (uint32_t i = 0; i < count && same; i++) {
        same = pyprof_is_same_label(&own->labels[i], &labels[i]);
    }
    return same;
}

static bool is_of(const pyprof_site *site, const pyprof_sites *sites, const site_key *key) {
    if (site->hash != key->hash || site->depth != key->depth || site->truncated != key->truncated) {
        return false;
    }
    for (uint32_t i = 0; i < key->depth; i++) {
        if (site->frames[i].symbol != sites->frames[i].symbol ||
            site->frames[i].lasti != sites->frames[i].lasti) {
            return false;
        }
    }
    return has_labels(site, sites->labels, key->label_count);
}

/* Room for one more; where slots cannot grow, chains get longer. */
static bool reserve(pyprof_sites *sites) {
    if (sites->count == sites->room) {
        const size_t before = sites->room * sizeof(*sites->sites);
        pyprof_site **larger = pyprof_budget_alloc(&sites->budget, before * 2);
        if (larger == NULL) {
            return false;
        }
        memcpy(larger, sites->sites, before);
        pyprof_budget_free(&sites->budget, sites->sites, before);
        sites->sites = larger;
        sites->room *= 2;
    }
    if (sites->count < sites->capacity) {
        return true;
    }
    const size_t bytes = sites->capacity * sizeof(*sites->slots);
    pyprof_site **slots = pyprof_budget_alloc(&sites->budget, bytes * 2);
    if (slots != NULL) {
        pyprof_budget_free(&sites->budget, sites->slots, bytes);
        memset(slots, 0, bytes * 2);
        sites->slots = slots;
        sites->capacity *= 2;
        for (uint32_t i = 0; i < sites->count; i++) {
            pyprof_site *site = sites->sites[i];
            if (site != sites->overflow) {
                site->next = slots[site->hash & (sites->capacity - 1)];
                slots[site->hash & (sites->capacity - 1)] = site;
            }
        }
    }
    return true;
}

/* False without memory. */
static bool keep_labels(pyprof_sites *sites, const site_key *key, pyprof_label_set **labels) {
    *labels = NULL;
    if (key->label_count == 0) {
        return true;
    }
    pyprof_label_list *list = pyprof_label_list_new(sites->labels, key->label_count);
    *labels = list == NULL ? NULL : pyprof_label_set_new(list, NULL);
    pyprof_label_list_release(list);
    if (*labels != NULL && !pyprof_budget_charge(&sites->budget, pyprof_label_set_bytes(*labels))) {
        pyprof_label_set_release(*labels);
        *labels = NULL;
    }
    return *labels != NULL;
}

static pyprof_site *insert(pyprof_sites *sites, const site_key *key) {
    pyprof_label_set *labels;
    pyprof_site *site = reserve(sites) ? pyprof_budget_alloc(&sites->budget, bytes_of(key->depth)) : NULL;
    if (site == NULL) {
        return sites->overflow;
    }
    if (!keep_labels(sites, key, &labels)) {
        pyprof_budget_free(&sites->budget, site, bytes_of(key->depth));
        return sites->overflow;
    }
    pyprof_site **slot = &sites->slots[key->hash & (sites->capacity - 1)];
    *site = (pyprof_site){
        .next = *slot, .hash = key->hash, .depth = key->depth, .truncated = key->truncated, .labels = labels};
    memcpy(site->frames, sites->frames, key->depth * sizeof(*site->frames));
    for (uint32_t i = 0; i < key->depth; i++) {
        pyprof_symbol_retain(site->frames[i].symbol);
    }
    *slot = site;
    sites->sites[sites->count++] = site;
    return site;
}

pyprof_site *pyprof_sites_find(pyprof_sites *sites, PyThreadState *thread) {
    site_key key = {0};
    if (!read_frames(sites, thread, &key)) {
        return sites->overflow;
    }
    read_labels(sites, thread, &key);
    for (pyprof_site *site = sites->slots[key.hash & (sites->capacity - 1)]; site != NULL;
         site = site->next) {
        if (is_of(site, sites, &key)) {
            return site;
        }
    }
    return insert(sites, &key);
}

static void unlink_site(pyprof_sites *sites, const pyprof_site *site) {
    pyprof_site **link = &sites->slots[site->hash & (sites->capacity - 1)];
    while (*link != site) {
        link = &(*link)->next;
    }
    *link = site->next;
}

void pyprof_sites_evict(pyprof_sites *sites, bool (*is_idle)(const pyprof_site *)) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < sites->count; i++) {
        pyprof_site *site = sites->sites[i];
        if (site != sites->overflow && is_idle(site)) {
            unlink_site(sites, site);
            free_site(sites, site);
        } else {
            sites->sites[kept++] = site;
        }
    }
    sites->count = kept;
    pyprof_known_code_sweep(&sites->code, &sites->budget);
}

#endif
