/* See label_set.h. */
#include "labels/label_set.h"

#include <stdlib.h>
#include <string.h>

#include "labels/label_slab.h"

/* -- labels -- */

static bool is_same_name(const pyprof_label *a, const pyprof_label *b) {
    return a->name_size == b->name_size && memcmp(a->name, b->name, a->name_size) == 0;
}

bool pyprof_is_same_label(const pyprof_label *a, const pyprof_label *b) {
    return is_same_name(a, b) && a->value_size == b->value_size &&
           memcmp(a->value, b->value, a->value_size) == 0;
}

bool pyprof_label_is_of_span(const pyprof_label *label) {
    static const pyprof_label span = {"span_id", "", 7, 0}, trace = {"trace_id", "", 8, 0};
    return is_same_name(label, &span) || is_same_name(label, &trace);
}

/* -- lists -- */

pyprof_label_list *pyprof_label_list_new(const pyprof_label *labels, uint32_t count) {
    size_t texts = 0;
    for (uint32_t i = 0; i < count; i++) {
        texts += labels[i].name_size + labels[i].value_size;
    }
    const size_t bytes = sizeof(pyprof_label_list) + count * sizeof(pyprof_label) + texts;
    pyprof_label_list *list = malloc(bytes);
    if (list == NULL) {
        return NULL;
    }
    *list = (pyprof_label_list){.refs = 1, .count = count, .bytes = bytes};
    char *at = (char *)&list->labels[count];
    for (uint32_t i = 0; i < count; i++) {
        const pyprof_label *from = &labels[i];
        list->labels[i] = (pyprof_label){at, at + from->name_size, from->name_size, from->value_size};
        memcpy(at, from->name, from->name_size);
        memcpy(at + from->name_size, from->value, from->value_size);
        at += from->name_size + from->value_size;
    }
    return list;
}

pyprof_label_list *pyprof_label_list_retain(pyprof_label_list *list) {
    __atomic_add_fetch(&list->refs, 1, __ATOMIC_RELAXED);
    return list;
}

void pyprof_label_list_release(pyprof_label_list *list) {
    if (list != NULL && __atomic_sub_fetch(&list->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        free(list);
    }
}

static bool has_name(const pyprof_label *labels, uint32_t count, const pyprof_label *one) {
    for (uint32_t i = 0; i < count; i++) {
        if (is_same_name(&labels[i], one)) {
            return true;
        }
    }
    return false;
}

static uint32_t add_missing(const pyprof_label_list *list, pyprof_label *labels, uint32_t count) {
    for (uint32_t i = 0; list != NULL && i < list->count && count < PYPROF_MOST_LABELS; i++) {
        if (!has_name(labels, count, &list->labels[i])) {
            labels[count++] = list->labels[i];
        }
    }
    return count;
}

pyprof_label_list *pyprof_label_list_join(const pyprof_label_list *inner, const pyprof_label_list *outer) {
    pyprof_label labels[PYPROF_MOST_LABELS];
    return pyprof_label_list_new(labels, add_missing(outer, labels, add_missing(inner, labels, 0)));
}

/* -- sets -- */

struct pyprof_added_labels {
    struct pyprof_added_labels *earlier;
    pyprof_label_list *labels;
};

static uint32_t epoch = 1; /* atomic */

uint32_t pyprof_label_epoch_begin(void) { return __atomic_add_fetch(&epoch, 1, __ATOMIC_SEQ_CST); }

void pyprof_label_set_mark_current(pyprof_label_set *set) {
    __atomic_store_n(&set->epoch, __atomic_load_n(&epoch, __ATOMIC_RELAXED), __ATOMIC_RELEASE);
}

bool pyprof_label_set_is_older(const pyprof_label_set *set, uint32_t now) {
    return (int32_t)(__atomic_load_n(&set->epoch, __ATOMIC_ACQUIRE) - now) < 0;
}

pyprof_label_set *pyprof_label_set_new(pyprof_label_list *labels, pyprof_label_set *parent) {
    pyprof_label_set *set = pyprof_label_slab_take();
    if (set == NULL) {
        return NULL;
    }
    pyprof_label_set_mark_current(set);
    set->own = pyprof_label_list_retain(labels);
    set->added = NULL;
    set->parent = parent == NULL ? NULL : pyprof_label_set_retain(parent);
    __atomic_store_n(&set->id, set->id + 1, __ATOMIC_RELAXED);
    __atomic_store_n(&set->refs, 1, __ATOMIC_RELEASE);
    return set;
}

pyprof_label_set *pyprof_label_set_retain(pyprof_label_set *set) {
    __atomic_add_fetch(&set->refs, 1, __ATOMIC_RELAXED);
    return set;
}

void pyprof_label_set_release(pyprof_label_set *set) {
    while (set != NULL && __atomic_sub_fetch(&set->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        pyprof_label_set *parent = set->parent;
        pyprof_label_list_release(set->own);
        while (set->added != NULL) {
            pyprof_added_labels *added = set->added;
            set->added = added->earlier;
            pyprof_label_list_release(added->labels);
            free(added);
        }
        pyprof_label_slab_give_back(set);
        set = parent;
    }
}

pyprof_label_reference pyprof_label_set_reference(const pyprof_label_set *set) {
    return (pyprof_label_reference){set->id, set->index};
}

const pyprof_label_list *pyprof_label_set_own(const pyprof_label_set *set) { return set->own; }

size_t pyprof_label_set_bytes(const pyprof_label_set *set) { return sizeof(*set) + set->own->bytes; }

/* A set that has no references left is not revived; one that has some may be another one by now. */
pyprof_label_set *pyprof_label_set_find(pyprof_label_reference reference) {
    pyprof_label_set *set = reference.id == 0 ? NULL : pyprof_label_slab_at(reference.index);
    if (set == NULL) {
        return NULL;
    }
    uint32_t refs = __atomic_load_n(&set->refs, __ATOMIC_RELAXED);
    do {
        if (refs == 0) {
            return NULL;
        }
    } while (
        !__atomic_compare_exchange_n(&set->refs, &refs, refs + 1, true, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED));
    if (__atomic_load_n(&set->id, __ATOMIC_RELAXED) != reference.id) {
        pyprof_label_set_release(set);
        return NULL;
    }
    return set;
}

bool pyprof_label_set_add(pyprof_label_set *set, pyprof_label_list *labels) {
    pyprof_added_labels *added = malloc(sizeof(*added));
    if (added == NULL) {
        return false;
    }
    added->labels = pyprof_label_list_retain(labels);
    added->earlier = __atomic_load_n(&set->added, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&set->added, &added->earlier, added, true, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED)) {
    }
    return true;
}

static void sort_by_name(pyprof_label *labels, uint32_t count) {
    for (uint32_t i = 1; i < count; i++) {
        const pyprof_label one = labels[i];
        uint32_t at = i;
        for (; at > 0; at--) {
            const pyprof_label *before = &labels[at - 1];
            const uint32_t common = before->name_size < one.name_size ? before->name_size : one.name_size;
            const int order = memcmp(before->name, one.name, common);
            if (order < 0 || (order == 0 && before->name_size < one.name_size)) {
                break;
            }
            labels[at] = labels[at - 1];
        }
        labels[at] = one;
    }
}

uint32_t pyprof_label_set_resolve(const pyprof_label_set *set, pyprof_label *labels) {
    uint32_t count = 0;
    for (; set != NULL; set = set->parent) {
        for (const pyprof_added_labels *added = __atomic_load_n(&set->added, __ATOMIC_ACQUIRE); added != NULL;
             added = added->earlier) {
            count = add_missing(added->labels, labels, count);
        }
        count = add_missing(set->own, labels, count);
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (labels[i].value_size > 0) {
            labels[kept++] = labels[i];
        }
    }
    sort_by_name(labels, kept);
    return kept;
}
