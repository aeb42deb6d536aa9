/* See thread_lists.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/thread_lists.h"

#include <stdlib.h>
#include <string.h>

#include "cpython/live_interpreters.h"
#include "sampling/growing.h"
#include "sampling/own_threads.h"
#include "symbols/code_cache.h"

typedef pyprof_thread_list thread_list;
typedef pyprof_thread_node node;

static struct {
    thread_list *lists; /* the main interpreter's, then those of others, oldest first */
    size_t count, capacity;
    node **order; /* all their nodes */
    size_t order_count, order_capacity;
    node **by_thread; /* the same, those of one thread together */
    size_t by_thread_capacity;
    pyprof_read_room room;
    size_t reading; /* counts */
    bool knows_others, is_ordered;
    bool any_roams; /* whose they are changes without a sign */
    size_t bytes;   /* atomic */
} all;

void pyprof_thread_lists_close(void) {
    for (size_t i = 0; i < all.count; i++) {
        pyprof_thread_list_free(&all.lists[i]);
    }
    free(all.lists);
    free(all.order);
    free(all.by_thread);
    free(all.room.reads);
    memset(&all, 0, sizeof(all));
}

void pyprof_thread_lists_reset_child(void) { memset(&all, 0, sizeof(all)); /* it may be half written */ }

size_t pyprof_thread_lists_bytes(void) { return __atomic_load_n(&all.bytes, __ATOMIC_RELAXED); }

static void count_bytes(void) {
    size_t bytes = all.capacity * sizeof(*all.lists) + all.room.capacity * sizeof(*all.room.reads) +
                   (all.order_capacity + all.by_thread_capacity) * sizeof(node *);
    for (size_t i = 0; i < all.count; i++) {
        bytes += pyprof_thread_list_bytes(&all.lists[i]);
    }
    __atomic_store_n(&all.bytes, bytes, __ATOMIC_RELAXED);
}

pyprof_thread_key pyprof_thread_node_key(const node *one) {
    return (pyprof_thread_key){one->thread.address, one->thread.unique_id, one->thread.tid};
}

/* Every so often all threads are read, those that have not run too: a thread state that went while its thread
 * goes on, in C code, leaves the list without a sign. */
enum { READS_ALL_EVERY = 8 };

/* -- the lists of all interpreters -- */

static bool has_list_of(const pyprof_live_interpreter *one, size_t number) {
    return number < all.count && all.lists[number].interp == one->address && all.lists[number].id == one->id;
}

/* One that is gone may have taken code objects with it that it never freed; with its memory, where it had
 * arenas of its own. */
static bool forget_ended(const pyprof_live_interpreter *others, size_t count) {
    size_t kept = 1;
    for (size_t i = 1; i < all.count; i++) {
        bool lives = false;
        for (size_t k = 0; k < count && !lives; k++) {
            lives = all.lists[i].interp == others[k].address && all.lists[i].id == others[k].id;
        }
        if (lives) {
            all.lists[kept++] = all.lists[i];
        } else {
            pyprof_thread_list_free(&all.lists[i]);
        }
    }
    const bool any = kept < all.count;
    all.count = kept;
    return any;
}

/* Lists for the interpreters that there are now. They keep the order in which they were made. */
static bool find_others(const void *main) {
    const pyprof_live_interpreter *others;
    size_t count;
    if (!pyprof_live_interpreters(main, &others, &count)) {
        return false;
    }
    bool same = all.count == count + 1;
    for (size_t i = 0; i < count && same; i++) {
        same = has_list_of(&others[i], count - i);
    }
    if (!same) {
        all.is_ordered = false;
        if (forget_ended(others, count)) {
            pyprof_code_cache_forget();
        }
        if (!pyprof_reserve((void **)&all.lists, &all.capacity, count + 1, sizeof(*all.lists))) {
            return false;
        }
        for (size_t number = all.count; number <= count; number++) {
            const pyprof_live_interpreter *one = &others[count - number];
            all.lists[number] = (thread_list){.interp = one->address, .id = one->id};
        }
        all.count = count + 1;
    }
    for (size_t i = 0; i < count; i++) {
        all.lists[count - i].newest = others[i].newest_thread;
    }
    return true;
}

void pyprof_thread_lists_find(PyInterpreterState *interp) {
    const bool knew_others = all.knows_others;
    if (all.count == 0) {
        if (!pyprof_reserve((void **)&all.lists, &all.capacity, 1, sizeof(*all.lists))) {
            return;
        }
        all.lists[0] = (thread_list){.interp = interp, .is_main = true};
        all.count = 1;
    }
    if (all.count > 1 || !pyprof_is_only_interpreter(interp)) {
        all.knows_others = find_others(interp);
    } else {
        all.knows_others = true;
    }
    all.lists[0].newest = pyprof_newest_thread(interp);
    all.is_ordered &= knew_others == all.knows_others;
}

/* Lists of others that may be gone are not to be looked at. */
static size_t used_lists(void) { return all.knows_others || all.count == 0 ? all.count : 1; }

/* -- which belong to one thread -- */

/* The states of one thread together; of older interpreters first, and older states first. */
static int compare(const void *a, const void *b) {
    const node *x = *(node *const *)a, *y = *(node *const *)b;
    return x->tid != y->tid     ? (x->tid < y->tid ? -1 : 1)
           : x->list != y->list ? (x->list < y->list ? -1 : 1)
                                : (x->place > y->place ? -1 : x->place < y->place);
}

/* Of the thread that has entered the interpreter: on its C stack, from the evaluation next to this one. */
static uint64_t tid_of_caller(const node *called) {
    const node *caller = NULL;
    for (size_t i = 0; i < all.order_count; i++) {
        const node *one = all.order[i];
        if (one->list != called->list && pyprof_is_in_evaluation(&one->thread) &&
            one->thread.frame_holder > called->thread.frame_holder &&
            (caller == NULL || one->thread.frame_holder < caller->thread.frame_holder)) {
            caller = one;
        }
    }
    return caller == NULL ? called->thread.tid : caller->thread.tid;
}

static bool roams(const node *one) { return one->list > 0 && pyprof_runs_under_other_ids(&one->thread); }

static uint64_t tid_of(const node *one) {
    return one->is_own   ? 0
           : !roams(one) ? one->thread.tid
                         : (pyprof_is_in_evaluation(&one->thread) ? tid_of_caller(one) : 0);
}

/* Several states of one thread in the main interpreter stay several threads: which of them is meant nobody
 * can tell. A thread that has none there goes on as the state by which it is known. */
static void join(const pyprof_threads *known, node **nodes, size_t count) {
    node *first = nodes[0];
    for (size_t i = 0; i < count && first->list > 0; i++) {
        const pyprof_thread_key key = pyprof_thread_node_key(nodes[i]);
        if (pyprof_threads_find(known, &key, 0) < known->count) {
            first = nodes[i];
            break;
        }
    }
    node **end = &first->companion;
    for (size_t i = 0; i < count; i++) {
        if (nodes[i] != first && nodes[i]->list > 0) {
            nodes[i]->is_companion = true;
            *end = nodes[i];
            end = &nodes[i]->companion;
        }
    }
}

static bool order_lists(void) {
    size_t count = 0;
    for (size_t number = 0; number < used_lists(); number++) {
        count += all.lists[number].count;
    }
    all.order_count = 0;
    if (!pyprof_reserve((void **)&all.order, &all.order_capacity, count, sizeof(*all.order))) {
        return false;
    }
    for (size_t number = 0; number < used_lists(); number++) {
        for (size_t place = 0; place < all.lists[number].count; place++) {
            node *one = &all.lists[number].nodes[place];
            one->list = number;
            one->place = place;
            one->companion = NULL;
            one->is_companion = false;
            all.order[all.order_count++] = one;
        }
    }
    return true;
}

/* Nodes have moved, or are of other threads than before. */
static bool find_companions(const pyprof_threads *known) {
    for (size_t number = 0; number < used_lists(); number++) {
        all.is_ordered &= !all.lists[number].has_changed;
        all.lists[number].has_changed = false;
    }
    if (all.is_ordered) {
        return true;
    }
    if (!order_lists()) {
        return false;
    }
    all.any_roams = false;
    for (size_t i = 0; i < all.order_count; i++) {
        all.any_roams |= roams(all.order[i]);
        all.order[i]->tid = tid_of(all.order[i]);
    }
    all.is_ordered = !all.any_roams;
    if (used_lists() == 1) {
        return true;
    }
    if (!pyprof_reserve((void **)&all.by_thread, &all.by_thread_capacity, all.order_count,
                        sizeof(*all.by_thread))) {
        all.is_ordered = false;
        all.order_count = 0;
        return false;
    }
    memcpy(all.by_thread, all.order, all.order_count * sizeof(*all.order));
    qsort(all.by_thread, all.order_count, sizeof(*all.by_thread), compare);
    for (size_t begin = 0, end = 0; begin < all.order_count; begin = end) {
        while (end < all.order_count && all.by_thread[end]->tid == all.by_thread[begin]->tid) {
            end++;
        }
        if (end - begin > 1 && all.by_thread[begin]->tid != 0) {
            join(known, all.by_thread + begin, end - begin);
        }
    }
    return true;
}

bool pyprof_thread_is_starting(const node *one, bool is_new) {
    const uint64_t tid = one->thread.tid;
    if (tid != 0 && is_new && pyprof_new_thread_has_creators_id()) {
        const thread_list *list = &all.lists[one->list];
        for (size_t older = one->place + 1; older < list->count; older++) {
            if (list->nodes[older].thread.tid == tid) {
                return true;
            }
        }
    }
    return tid == 0;
}

size_t pyprof_thread_lists_count(void) { return all.order_count; }

node *pyprof_thread_lists_at(size_t i) { return all.order[i]; }

/* -- a tick -- */

/* Whether a thread that was known has ended. */
static bool find_needed(const pyprof_snapshot_request *request) {
    bool any_ended = false, any_needed = false;
    size_t known = 0;
    for (size_t i = 0; i < all.order_count; i++) {
        node *one = all.order[i];
        if (one->is_companion) {
            continue;
        }
        const pyprof_thread_key key = pyprof_thread_node_key(one);
        const size_t place = one->is_own ? 0 : pyprof_threads_find(request->known, &key, known);
        any_ended |= !one->is_own && place < request->known->count && request->known->items[place].ended;
        one->is_needed = !one->is_own && pyprof_snapshot_needs_walk(request, place);
        one->is_stood_for =
            !one->is_own && place < request->known->count && request->known->items[place].weight <= 0;
        any_needed |= one->is_needed;
        known += !one->is_own;
        for (node *other = one->companion; other != NULL; other = other->companion) {
            other->is_needed = one->is_needed;
        }
    }
    for (size_t i = 0; i < all.order_count && all.any_roams; i++) {
        all.order[i]->is_needed |= any_needed && roams(all.order[i]);
    }
    return any_ended;
}

/* False: it has no nodes now. */
static bool list_again(thread_list *list) {
    return pyprof_thread_list_follow(list, PYPROF_UP_TO_KNOWN) ||
           pyprof_thread_list_follow(list, PYPROF_TO_THE_END);
}

static bool read_list(thread_list *list, bool whole) {
    if (!list->is_main && !whole && !pyprof_thread_list_needs_any(list)) {
        return true; /* its newest is what it was */
    }
    return pyprof_thread_list_read(list, whole, &all.room) ||
           pyprof_thread_list_follow(list, PYPROF_TO_THE_END);
}

bool pyprof_thread_lists_read(const pyprof_snapshot_request *request, bool *others) {
    bool changed = false, main_is_read = all.count > 0;
    *others = all.knows_others;
    for (size_t number = 0; number < used_lists(); number++) {
        thread_list *list = &all.lists[number];
        if (pyprof_thread_list_is_old(list) || (list->is_main && list->count == 0)) {
            changed = true;
            if (!list_again(list)) {
                *others &= list->is_main;
                main_is_read &= number > 0;
            }
        }
    }
    if (!find_companions(request->known)) {
        return false;
    }
    changed |= find_needed(request);
    const bool whole = changed || all.reading++ % READS_ALL_EVERY == 0;
    for (size_t number = 0; number < used_lists(); number++) {
        thread_list *list = &all.lists[number];
        if (whole) {
            pyprof_thread_list_free_idle_stacks(list);
        }
        if (!read_list(list, whole)) {
            *others &= list->is_main;
            main_is_read &= number > 0;
        }
    }
    if (whole) {
        count_bytes();
    }
    return find_companions(request->known) && main_is_read;
}

static void note_holder(pyprof_threads *known, const void *holder) {
    for (size_t i = 0; i < known->count; i++) {
        pyprof_thread *thread = &known->items[i];
        if (thread->elsewhere == holder || thread->key.tstate == holder) {
            thread->holds_other_gil = true;
            return;
        }
    }
    const uint64_t tid = pyprof_live_native_thread_id(holder);
    for (size_t i = 0; i < known->count; i++) {
        if (known->items[i].key.tid == tid) {
            known->items[i].holds_other_gil = true;
            return;
        }
    }
}

uint64_t pyprof_thread_lists_mark(PyInterpreterState *interp, pyprof_threads *known) {
    const pyprof_live_interpreter *others;
    size_t count;
    uint64_t mark = (uintptr_t)pyprof_newest_thread(interp);
    if (pyprof_is_only_interpreter(interp) && all.count < 2) {
        return mark;
    }
    for (size_t i = 0; i < known->count; i++) {
        known->items[i].holds_other_gil = false;
    }
    if (!pyprof_live_interpreters(interp, &others, &count)) {
        return mark;
    }
    for (size_t i = 0; i < count; i++) {
        const void *holder = pyprof_own_gil_holder(&others[i]);
        if (holder != NULL) {
            note_holder(known, holder);
        }
        const uint64_t words[] = {(uintptr_t)others[i].address, (uint64_t)others[i].id,
                                  (uintptr_t)others[i].newest_thread};
        for (size_t k = 0; k < sizeof(words) / sizeof(words[0]); k++) {
            mark = (mark ^ words[k]) * UINT64_C(0x100000001b3); /* FNV */
        }
    }
    return mark;
}

#endif
