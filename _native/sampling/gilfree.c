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
    size_t bytes;   /* atomic */
    size_t reading; /* counts */
    size_t leaving; /* counts */
    uint64_t
        given_up; /* a bit for each of the last stacks of threads on a CPU: the first look was, for another */
} list;

enum { MOST_THREADS = 100000 }; /* against a list that was changed into a ring while it was read */

static void free_stacks(node *nodes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        pyprof_live_stack_free(nodes[i].stack);
    }
}

void pyprof_gilfree_close(void) {
    free_stacks(list.nodes, list.count);
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

static void parse(node *one) {
    pyprof_live_parse(&one->thread);
    one->is_own = pyprof_is_own_thread(one->thread.tid); /* another thread may have taken the address */
}

static bool read_thread(node *one, const pyprof_snapshot_request *request, const char *previous) {
    pyprof_read reads[PYPROF_LIVE_READS];
    size_t count;
    if (!pyprof_live_reads(&one->thread, NULL, reads, &count) || !pyprof_read_memory(reads, count)) {
        return false;
    }
    parse(one);
    return is_linked(&one->thread, request, previous);
}

static size_t find_known(const char *address) {
    size_t i = 0;
    while (i < list.count && list.nodes[i].thread.address != address) {
        i++;
    }
    return i;
}

typedef enum { UP_TO_KNOWN, TO_THE_END } list_how_far;

/* Follows the list from thread to thread: up to one that is known, after which the others are expected as
 * they were, for CPython puts new threads first; or to its end. All of it or nothing: a part would be taken
 * for the whole. */
static bool list_threads(const pyprof_snapshot_request *request, list_how_far how_far) {
    node *nodes = NULL;
    size_t count = 0, capacity = 0, known = list.count;
    const char *previous = NULL, *address = pyprof_newest_thread(request->interp);
    while (address != NULL && (how_far == TO_THE_END || (known = find_known(address)) == list.count)) {
        if (count == MOST_THREADS || !pyprof_reserve((void **)&nodes, &capacity, count + 1, sizeof(*nodes))) {
            break;
        }
        nodes[count] = (node){.thread = {.address = address}};
        if (!read_thread(&nodes[count], request, previous)) {
            break; /* a thread has ended here, or begun */
        }
        previous = address;
        address = nodes[count++].thread.next;
    }
    const size_t kept = list.count - known;
    const bool whole = (address == NULL || kept > 0) &&
                       pyprof_reserve((void **)&nodes, &capacity, count + kept, sizeof(*nodes));
    free_stacks(list.nodes, whole ? known : list.count);
    if (whole && kept > 0) {
        memcpy(nodes + count, list.nodes + known, kept * sizeof(*nodes));
    }
    free(list.nodes);
    if (!whole) {
        free(nodes);
        nodes = NULL;
        capacity = 0;
    }
    list.nodes = nodes;
    list.capacity = capacity;
    list.count = whole ? count + kept : 0;
    return whole;
}

static pyprof_thread_key key_of(const pyprof_live_thread *thread) {
    return (pyprof_thread_key){thread->address, thread->unique_id, thread->tid};
}

/* Every so often all threads are read, those that have not run too: a thread state that went while its thread
 * goes on, in C code, leaves the list without a sign. */
enum { READS_ALL_EVERY = 8 };

static bool is_to_be_read(const node *one, bool all) { return one->is_needed || one == list.nodes || all; }

/* The threads that are needed, in one go, as if nothing had changed since the last time. False: it has. */
static bool read_needed(const pyprof_snapshot_request *request, bool all) {
    size_t count = 0;
    for (size_t i = 0; i < list.count; i++) {
        node *one = &list.nodes[i];
        size_t added;
        if (one->is_needed && one->stack == NULL && (one->stack = pyprof_live_stack_new()) == NULL) {
            return false;
        }
        one->is_copied = one->is_needed;
        if (is_to_be_read(one, all)) {
            if (!pyprof_live_reads(&one->thread, one->is_copied ? one->stack : NULL, list.reads + count,
                                   &added)) {
                return false;
            }
            count += added;
        }
    }
    if (count > 0 && !pyprof_read_memory(list.reads, count)) {
        return false;
    }
    for (size_t i = 0; i < list.count; i++) {
        node *one = &list.nodes[i];
        if (is_to_be_read(one, all)) {
            const char *next = i + 1 < list.count ? list.nodes[i + 1].thread.address : NULL;
            parse(one);
            if (!is_linked(&one->thread, request, i == 0 ? NULL : list.nodes[i - 1].thread.address) ||
                one->thread.next != next) {
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
    bool changed = list.count == 0 || list.nodes[0].thread.address != pyprof_newest_thread(request->interp);
    if ((changed && !list_threads(request, UP_TO_KNOWN)) ||
        !pyprof_reserve((void **)&list.reads, &list.read_capacity, list.count * PYPROF_LIVE_READS,
                        sizeof(*list.reads))) {
        return false;
    }
    size_t known = 0;
    for (size_t i = 0; i < list.count; i++) {
        node *one = &list.nodes[i];
        const pyprof_thread_key key = key_of(&one->thread);
        size_t place = one->is_own ? 0 : pyprof_threads_find(request->known, &key, known);
        changed |= !one->is_own && place < request->known->count && request->known->items[place].ended;
        one->is_needed = !one->is_own && pyprof_snapshot_needs_walk(request, place);
        known += !one->is_own;
    }
    bool all = changed || list.reading++ % READS_ALL_EVERY == 0;
    if (all) {
        free_idle_stacks();
        count_bytes();
    }
    return read_needed(request, all);
}

/* On free-threaded builds a stack with an unknown call is not left to `current_frames`: there everybody would
 * wait until the last thread has come to its next safe point, which a thread in a C call does at the end of
 * the call. */
static bool leaves_to_other_engine(pyprof_live_result result) {
    switch (result) {
    case PYPROF_LIVE_EXACT:
    case PYPROF_LIVE_UNVERIFIED:
        return false;
    case PYPROF_LIVE_ODD_CALL:
        return !pyprof_is_free_threaded();
    case PYPROF_LIVE_UNKNOWN:
    case PYPROF_LIVE_TORN:
        break;
    }
    return true;
}

static pyprof_symbol *symbol_of(PyCodeObject *code) { return pyprof_code_cache_find(code); }

/* A stack that changes while it is read is given up for a later one, if neither copy of it is credible:
 * functions that run for microseconds lose to longer ones. Where that is more than the odd stack, they are
 * left to `current_frames`, which has their threads wait; whichever it finds, so that none has more weight.
 * Now and then they are read here too, to see whether it is still so. Safe points have a bias of their own,
 * which is the larger one as long as reads are fast and most first looks good. */
enum { MOST_GIVEN_UP = 4, MOST_GIVEN_UP_OF_FAST_READS = 16, READ_ALL_THE_SAME = 8 };

static bool gives_up_too_often(void) {
    const int most = pyprof_reads_fast() ? MOST_GIVEN_UP_OF_FAST_READS : MOST_GIVEN_UP;
    return !pyprof_is_free_threaded() && __builtin_popcountll(list.given_up) > most;
}

static bool any_runs(const pyprof_threads *known) {
    for (size_t i = 0; i < known->count; i++) {
        if (known->items[i].on_cpu && !known->items[i].stack_is_current) {
            return true;
        }
    }
    return false;
}

static bool walk(const pyprof_snapshot_request *request, node *one, bool on_cpu, pyprof_thread_view *view,
                 pyprof_gilfree_losses *losses) {
    static pyprof_code_frame frames[PYPROF_MAX_DEPTH + PYPROF_SPARE_FRAMES]; /* too large for the stack */
    size_t max = request->max_frames < PYPROF_MAX_DEPTH ? request->max_frames : PYPROF_MAX_DEPTH;
    if (one->stack == NULL && (one->stack = pyprof_live_stack_new()) == NULL) {
        return false;
    }
    pyprof_live_walk live = {.frames = frames, .max = max};
    const pyprof_live_result result =
        pyprof_walk_live(&one->thread, one->stack, one->is_copied, pyprof_code_cache_find_shape, &live);
    view->truncated = live.truncated;
    const bool left = leaves_to_other_engine(result);
    if (on_cpu) {
        list.given_up = list.given_up << 1 | (live.gave_up_whole_copy && !left);
    }
    const bool has_died = !pyprof_code_cache_end_walk(frames, left ? 0 : live.depth);
    losses->torn += result == PYPROF_LIVE_TORN || has_died;
    if (left || has_died) {
        return false;
    }
    losses->unverified += result != PYPROF_LIVE_EXACT;
    return pyprof_snapshot_add_frames(request, view, frames, live.depth, symbol_of);
}

/* No frames and no clock of its own yet. */
static bool is_starting(size_t i, bool is_new) {
    const uint64_t tid = list.nodes[i].thread.tid;
    if (tid != 0 && is_new && pyprof_new_thread_has_creators_id()) {
        for (size_t older = i + 1; older < list.count; older++) {
            if (list.nodes[older].thread.tid == tid) {
                return true;
            }
        }
    }
    return tid == 0;
}

static bool take(const pyprof_snapshot_request *request, pyprof_gilfree_losses *losses) {
    pyprof_code_cache_begin_snapshot();
    if (!read_threads(request) && !list_threads(request, TO_THE_END)) {
        losses->torn++;
        return false;
    }
    pyprof_snapshot_begin(request);
    const bool late = request->snapshot->taken_ns - request->asked_ns > PYPROF_LATE_NS;
    for (size_t i = 0; i < list.count; i++) {
        node *one = &list.nodes[i];
        const pyprof_thread_key key = key_of(&one->thread);
        if (one->is_own) {
            continue;
        }
        const size_t place = pyprof_snapshot_find(request, &key);
        if (is_starting(i, place >= request->known->count)) {
            request->snapshot->has_starting = true;
            continue;
        }
        pyprof_thread_view *view = pyprof_snapshot_add(request, &key);
        if (view == NULL) {
            return false;
        }
        view->moved_on = late; /* the timer lost its CPU after it had read the clocks */
        if (place >= request->known->count) {
            view->on_cpu = pyprof_thread_is_on_cpu(key.tid) ||
                           pyprof_timer_took_cpu_of(key.tid, key.tstate == request->gil_holder ||
                                                                 pyprof_thread_attached(key.tstate));
        }
        const bool on_cpu = place < request->known->count && request->known->items[place].on_cpu;
        if (pyprof_snapshot_needs_walk(request, place) && !walk(request, one, on_cpu, view, losses)) {
            return false;
        }
    }
    return true;
}

bool pyprof_gilfree_take(const pyprof_snapshot_request *request, pyprof_gilfree_losses *losses) {
    if (!gives_up_too_often() || !any_runs(request->known)) {
        return take(request, losses);
    }
    if (++list.leaving % READ_ALL_THE_SAME == 0) {
        pyprof_gilfree_losses of_nobody = {0};
        take(request, &of_nobody);
    }
    return false;
}

#endif
