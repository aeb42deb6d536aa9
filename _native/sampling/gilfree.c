/* See gilfree.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/gilfree.h"

#include <stdlib.h>
#include <string.h>

#include "cpython/live_stacks.h"
#include "sampling/clocks.h"
#include "sampling/growing.h"
#include "sampling/own_threads.h"
#include "symbols/code_cache.h"

/* A thread state, and where its stack was found the last time; NULL: its stack was never needed. */
typedef struct {
    pyprof_live_thread thread;
    pyprof_live_stack *stack;
    bool is_own;    /* a thread of pyprof */
    bool is_needed; /* its stack, at this tick */
    bool is_copied; /* its stack is, with all the others */
} node;

/* Of the timer thread alone: the interpreter's list of thread states, as it was the last time. */
static struct {
    node *nodes;
    size_t count, capacity;
    pyprof_read *reads;
    size_t read_capacity;
    size_t bytes;     /* atomic */
    size_t reading;   /* counts */
    size_t new_calls; /* counts */
} list;

enum { MOST_THREADS = 100000 }; /* against a list that was changed into a ring while it was read */

static void forget_threads(void) {
    for (size_t i = 0; i < list.count; i++) {
        pyprof_live_stack_free(list.nodes[i].stack);
    }
    list.count = 0;
}

void pyprof_gilfree_close(void) {
    forget_threads();
    free(list.nodes);
    free(list.reads);
    memset(&list, 0, sizeof(list));
}

void pyprof_gilfree_reset_child(void) { memset(&list, 0, sizeof(list)); /* it may be half written */ }

static bool is_linked(const pyprof_live_thread *thread, const pyprof_snapshot_request *request,
                      const char *previous) {
    return thread->interp == request->interp && thread->previous == previous;
}

size_t pyprof_gilfree_bytes(void) { return __atomic_load_n(&list.bytes, __ATOMIC_RELAXED); }

static void count_bytes(void) {
    size_t bytes = list.capacity * sizeof(node) + list.read_capacity * sizeof(*list.reads);
    for (size_t i = 0; i < list.count; i++) {
        bytes += pyprof_live_stack_bytes(list.nodes[i].stack);
    }
    __atomic_store_n(&list.bytes, bytes, __ATOMIC_RELAXED);
}

/* The list, node by node. */
static bool add_all_threads(const pyprof_snapshot_request *request) {
    const char *previous = NULL, *address = pyprof_newest_thread(request->interp);
    while (address != NULL) {
        pyprof_read reads[PYPROF_LIVE_READS];
        size_t count;
        if (list.count == MOST_THREADS ||
            !pyprof_reserve((void **)&list.nodes, &list.capacity, list.count + 1, sizeof(node))) {
            return false;
        }
        node *added = &list.nodes[list.count];
        *added = (node){.thread = {.address = address}};
        if (!pyprof_live_reads(&added->thread, NULL, reads, &count) || !pyprof_read_memory(reads, count)) {
            return false;
        }
        pyprof_live_parse(&added->thread);
        if (!is_linked(&added->thread, request, previous)) {
            return false; /* a thread has ended here, or begun */
        }
        added->is_own = pyprof_is_own_thread(added->thread.tid);
        list.count++;
        previous = address;
        address = added->thread.next;
    }
    return true;
}

/* The whole list, or none of it: a part would be taken for the whole. */
static bool list_threads(const pyprof_snapshot_request *request) {
    forget_threads();
    if (!add_all_threads(request)) {
        forget_threads();
        return false;
    }
    return true;
}

static pyprof_thread_key key_of(const pyprof_live_thread *thread) {
    return (pyprof_thread_key){thread->address, thread->unique_id, thread->tid};
}

/* Every so often all threads are read, those that have not run too: a thread state that went while its thread
 * goes on, in C code, leaves the list without a sign. */
enum { READS_ALL_EVERY = 8 };

typedef enum { ALONE, WITH_STACKS } read_what;

/* The threads that are needed, in one go, as if nothing had changed since the last time. False: it has. */
static bool read_needed(const pyprof_snapshot_request *request, read_what what, bool all) {
    size_t count = 0;
    for (size_t i = 0; i < list.count; i++) {
        node *one = &list.nodes[i];
        size_t added;
        one->is_copied = what == WITH_STACKS && one->is_needed && one->stack != NULL;
        if (i == 0 || one->is_needed || all) {
            if (!pyprof_live_reads(&one->thread, one->is_copied ? one->stack : NULL, list.reads + count,
                                   &added)) {
                return false;
            }
            count += added;
        }
    }
    if (!pyprof_read_memory(list.reads, count)) {
        return false;
    }
    for (size_t i = 0; i < list.count; i++) {
        node *one = &list.nodes[i];
        if (i == 0 || one->is_needed || all) {
            const pyprof_thread_key before = key_of(&one->thread);
            const char *next = i + 1 < list.count ? list.nodes[i + 1].thread.address : NULL;
            pyprof_live_parse(&one->thread);
            if (!is_linked(&one->thread, request, i == 0 ? NULL : list.nodes[i - 1].thread.address) ||
                one->thread.next != next || one->thread.unique_id != before.unique_id ||
                one->thread.tid != before.tid) {
                return false;
            }
        }
    }
    return true;
}

/* Of threads that run no more; there may be many. */
static void free_idle_stacks(void) {
    for (size_t i = 0; i < list.count; i++) {
        if (!list.nodes[i].is_needed) {
            pyprof_live_stack_free(list.nodes[i].stack);
            list.nodes[i].stack = NULL;
        }
    }
}

static bool read_threads(const pyprof_snapshot_request *request) {
    if (list.count == 0 || list.nodes[0].thread.address != pyprof_newest_thread(request->interp) ||
        !pyprof_reserve((void **)&list.reads, &list.read_capacity, list.count * PYPROF_LIVE_READS,
                        sizeof(*list.reads))) {
        return false;
    }
    size_t known = 0;
    for (size_t i = 0; i < list.count; i++) {
        node *one = &list.nodes[i];
        const pyprof_thread_key key = key_of(&one->thread);
        size_t place = one->is_own ? 0 : pyprof_threads_find(request->known, &key, known);
        if (!one->is_own && place < request->known->count && request->known->items[place].ended) {
            return false;
        }
        one->is_needed = !one->is_own && pyprof_snapshot_needs_walk(request, place);
        known += !one->is_own;
    }
    bool all = list.reading++ % READS_ALL_EVERY == 0;
    if (all) {
        free_idle_stacks();
        count_bytes();
    }
    return (!pyprof_live_stack_moves() || read_needed(request, ALONE, all)) &&
           read_needed(request, WITH_STACKS, all);
}

/* A stack with a call that was never seen with the GIL must be read twice; so now and then `current_frames`
 * has a look at it. On free-threaded builds it does not: there everybody would wait until the last thread has
 * come to its next safe point, which a thread in a C call does at the end of the call. */
enum { NEW_CALLS_EVERY = 8 };

static bool leaves_to_other_engine(pyprof_live_result result) {
    switch (result) {
    case PYPROF_LIVE_EXACT:
    case PYPROF_LIVE_UNVERIFIED:
        return false;
    case PYPROF_LIVE_NEW_CALL:
        return !pyprof_is_free_threaded() && ++list.new_calls % NEW_CALLS_EVERY == 0;
    case PYPROF_LIVE_ODD_CALL:
        return !pyprof_is_free_threaded();
    case PYPROF_LIVE_UNKNOWN:
    case PYPROF_LIVE_TORN:
        break;
    }
    return true;
}

static pyprof_symbol *symbol_of(PyCodeObject *code) { return pyprof_code_cache_find(code); }

static bool walk(const pyprof_snapshot_request *request, node *one, pyprof_thread_view *view,
                 pyprof_gilfree_losses *losses) {
    static pyprof_code_frame frames[PYPROF_MAX_DEPTH + PYPROF_SPARE_FRAMES]; /* too large for the stack */
    size_t max = request->max_frames < PYPROF_MAX_DEPTH ? request->max_frames : PYPROF_MAX_DEPTH;
    size_t depth;
    if (one->stack == NULL && (one->stack = pyprof_live_stack_new()) == NULL) {
        return false;
    }
    pyprof_live_result result =
        pyprof_walk_live(&one->thread, one->stack, one->is_copied, pyprof_code_cache_find_shape, frames, max,
                         &depth, &view->truncated);
    const bool left = leaves_to_other_engine(result);
    const bool has_died = !pyprof_code_cache_end_walk(frames, left ? 0 : depth);
    losses->torn += result == PYPROF_LIVE_TORN || has_died;
    if (left || has_died) {
        return false;
    }
    losses->unverified += result != PYPROF_LIVE_EXACT;
    return pyprof_snapshot_add_frames(request, view, frames, depth, symbol_of);
}

bool pyprof_gilfree_take(const pyprof_snapshot_request *request, pyprof_gilfree_losses *losses) {
    pyprof_code_cache_begin_snapshot();
    if (!read_threads(request) && !list_threads(request)) {
        losses->torn++;
        return false;
    }
    pyprof_snapshot_begin(request);
    const bool late = request->snapshot->taken_ns - request->asked_ns > PYPROF_LATE_NS;
    for (size_t i = 0; i < list.count; i++) {
        node *one = &list.nodes[i];
        const pyprof_thread_key key = key_of(&one->thread);
        if (key.tid == 0 || one->is_own) {
            request->snapshot->has_starting |= key.tid == 0; /* no frames and no clock of its own yet */
            continue;
        }
        size_t place;
        pyprof_thread_view *view = pyprof_snapshot_add(request, &key, &place);
        if (view == NULL) {
            return false;
        }
        view->moved_on = late; /* the timer lost its CPU after it had read the clocks */
        if (place >= request->known->count) {
            view->on_cpu = key.tstate == request->gil_holder || pyprof_thread_is_on_cpu(key.tid) ||
                           pyprof_thread_attached(key.tstate);
        }
        if (pyprof_snapshot_needs_walk(request, place) && !walk(request, one, view, losses)) {
            return false;
        }
    }
    return true;
}

#endif
