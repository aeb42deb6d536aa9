/* See gilfree.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/gilfree.h"

#include "cpython/live_interpreters.h"
#include "cpython/live_stacks.h"
#include "labels/label_reader.h"
#include "sampling/clocks.h"
#include "sampling/on_cpu.h"
#include "sampling/thread_lists.h"
#include "symbols/code_cache.h"

/* Of the timer thread alone. */
static size_t leaving;       /* counts */
static bool all_stood_still; /* the threads on a CPU, in the last snapshot, at the first look */
static uint64_t
    given_up; /* a bit for each of the last stacks of threads on a CPU: the first look was, for another */

void pyprof_gilfree_close(void) {
    pyprof_thread_lists_close();
    leaving = 0;
    given_up = 0;
}

void pyprof_gilfree_reset_child(void) {
    pyprof_thread_lists_reset_child();
    leaving = 0;
    given_up = 0;
}

size_t pyprof_gilfree_bytes(void) { return pyprof_thread_lists_bytes(); }

static bool is_accepted(pyprof_live_result result) { return result <= PYPROF_LIVE_INCOMPLETE; }

static pyprof_symbol *symbol_of(PyCodeObject *code) { return pyprof_code_cache_find(code); }

/* A stack that changes while it is read is given up for a later one, if neither copy of it is credible:
 * functions that run for microseconds lose to longer ones. Where that is more than the odd stack, none is
 * read twice: one that stands still is taken, and the others are left to `current_frames`, which has their
 * threads wait at the next safe point. That has a bias of its own, which is the larger one as long as reads
 * are fast and most first looks good. Now and then they are read as before, to see whether it is still so. */
enum { MOST_GIVEN_UP = 4, MOST_GIVEN_UP_OF_FAST_READS = 16, READ_ALL_THE_SAME = 8 };

static bool gives_up_too_often(void) {
    const int most =
        pyprof_way_of_reading_memory() == PYPROF_BY_MEMFD ? MOST_GIVEN_UP_OF_FAST_READS : MOST_GIVEN_UP;
    return !pyprof_is_free_threaded() && __builtin_popcountll(given_up) > most;
}

static bool any_runs(const pyprof_threads *known) {
    for (size_t i = 0; i < known->count; i++) {
        if (known->items[i].on_cpu && !known->items[i].stack_is_current) {
            return true;
        }
    }
    return false;
}

typedef struct {
    const pyprof_snapshot_request *request;
    pyprof_gilfree_losses *losses;
    bool is_exact_only; /* of those that run; a look that finds one moving ends the snapshot */
    uint32_t epoch;     /* of labels */
} reader;

/* Interpreters that a thread runs code in, from one to the next. */
enum { MOST_NESTED = 8 };

static pyprof_code_frame frames[MOST_NESTED]
                               [PYPROF_MAX_DEPTH + PYPROF_SPARE_FRAMES]; /* too large for a stack */

/* False: no credible stack. */
static bool walk(const reader *reads, pyprof_thread_node *one, bool is_copied, pyprof_live_walk *live) {
    const size_t max_frames = reads->request->max_frames;
    live->max = max_frames < PYPROF_MAX_DEPTH ? max_frames : PYPROF_MAX_DEPTH;
    live->reads_context = pyprof_label_sets_any();
    if (one->stack == NULL && (one->stack = pyprof_live_stack_new()) == NULL) {
        return false;
    }
    const pyprof_live_result result =
        pyprof_walk_live(&one->thread, one->stack, is_copied, pyprof_code_cache_find_shape, live);
    const bool accepted = is_accepted(result);
    const bool has_died = !pyprof_code_cache_end_walk(live->frames, accepted ? live->depth : 0);
    reads->losses->torn += result == PYPROF_LIVE_TORN || has_died;
    reads->losses->unverified += accepted && !has_died && result == PYPROF_LIVE_UNVERIFIED;
    reads->losses->incomplete += accepted && !has_died && result == PYPROF_LIVE_INCOMPLETE;
    return accepted && !has_died;
}

/* Those that the thread had when its stack was copied. False: they may be those of a moment later. */
static bool read_labels(const reader *reads, const pyprof_thread_node *one, const pyprof_live_walk *live,
                        pyprof_thread_view *view) {
    const void *variables = NULL;
    if (!live->reads_context) {
        return true; /* nobody has any */
    }
    const bool are_copied = pyprof_live_variables(&one->thread, one->stack, live, &variables);
    pyprof_label_set_release(view->labels);
    view->labels = are_copied ? pyprof_labels_among(variables, PYPROF_MAY_CHANGE)
                              : pyprof_labels_of_context(one->thread.context, PYPROF_MAY_CHANGE);
    return view->labels != NULL ? pyprof_label_set_is_older(view->labels, reads->epoch)
                                : are_copied && pyprof_live_has_variables(&one->thread, variables);
}

/* -- a thread of the main interpreter alone -- */

/* Where labels change within microseconds they are taken as they are at last. */
enum { MOST_LABEL_READS = 4 };

static bool read_alone(const reader *reads, pyprof_thread_node *one, bool on_cpu, pyprof_thread_view *view) {
    reader again = *reads;
    pyprof_live_walk live = {.frames = frames[0],
                             .is_exact_only = reads->is_exact_only && on_cpu,
                             .is_read_by_nobody_else = pyprof_is_free_threaded()};
    bool read = walk(reads, one, one->is_copied, &live);
    if (on_cpu && !reads->is_exact_only) {
        given_up = given_up << 1 | (live.gave_up_whole_copy && read);
    }
    all_stood_still &= live.stood_still || !on_cpu;
    for (int i = 1; read && !read_labels(&again, one, &live, view) && i < MOST_LABEL_READS; i++) {
        again.epoch = pyprof_label_epoch_begin();
        read = walk(&again, one, false, &live);
    }
    view->truncated = live.truncated;
    view->is_incomplete = live.is_incomplete;
    return read && pyprof_snapshot_add_frames(reads->request, view, frames[0], live.depth, symbol_of);
}

/* -- a thread that may run code of other interpreters -- */

typedef struct {
    pyprof_thread_node *node;
    pyprof_live_walk live;
} part; /* of its stack: what it runs in one interpreter */

/* The innermost is first. */
typedef struct {
    part parts[MOST_NESTED];
    size_t count;
} nested_stack;

/* C stacks grow downwards. A part that was cut off before it came to C code is the others' caller. */
static bool is_called_by(const part *one, const part *other) {
    return one->live.c_stack != NULL &&
           (other->live.c_stack == NULL || one->live.c_stack < other->live.c_stack);
}

/* False: it cannot be read. A state without frames adds nothing: of one that has left an interpreter, CPython
 * may keep the state. */
static bool add_part(const reader *reads, nested_stack *stack, pyprof_thread_node *one) {
    const size_t last = stack->count;
    part added = {.node = one, .live = {.frames = frames[last], .is_read_by_nobody_else = true}};
    if (!walk(reads, one, one->is_copied, &added.live)) {
        return false;
    }
    if (added.live.depth > 0) {
        size_t place = last;
        for (; place > 0 && is_called_by(&added, &stack->parts[place - 1]); place--) {
            stack->parts[place] = stack->parts[place - 1];
        }
        stack->parts[place] = added;
        stack->count++;
    }
    return true;
}

/* The parts were read one after the other. They belong together if the callers stand still from before the
 * innermost is read until after it. */
static bool read_together(const reader *reads, nested_stack *stack, pyprof_thread_view *view) {
    part *parts = stack->parts;
    if (stack->count > 1 && !walk(reads, parts[0].node, false, &parts[0].live)) {
        return false;
    }
    for (size_t i = 0; i < stack->count; i++) {
        const bool stands = i == 0 || (!parts[i].live.is_incomplete &&
                                       pyprof_live_stands_still(&parts[i].node->thread, &parts[i].live));
        if (!stands || !pyprof_code_cache_end_walk(parts[i].live.frames, parts[i].live.depth)) {
            reads->losses->torn++;
            return false;
        }
    }
    for (size_t i = 0; i < stack->count; i++) {
        if (!pyprof_snapshot_add_frames(reads->request, view, parts[i].live.frames, parts[i].live.depth,
                                        symbol_of)) {
            return false;
        }
        view->truncated |= parts[i].live.truncated;
        view->is_incomplete |= parts[i].live.is_incomplete;
    }
    return true;
}

/* False: it runs none. Else its view says what it runs, or that this cannot be read. */
static bool read_elsewhere(const reader *reads, pyprof_thread_node *first, pyprof_thread_view *view) {
    nested_stack stack = {.count = 0};
    bool read = true;
    for (pyprof_thread_node *one = first->companion; one != NULL && read; one = one->companion) {
        read = stack.count < MOST_NESTED - 1 && add_part(reads, &stack, one);
    }
    if (read && stack.count == 0 && first->list == 0) {
        return false;
    }
    view->walked = view->truncated = view->is_incomplete = false;
    read = read && add_part(reads, &stack, first) && read_together(reads, &stack, view);
    view->walked = read;
    view->unread = !read;
    if (read) {
        pyprof_label_set_release(view->labels);
        view->labels = pyprof_labels_of_context(first->thread.context, PYPROF_MAY_CHANGE);
    }
    view->instruction = NULL; /* it may have the GIL of the other interpreter */
    const pyprof_thread_node *last = first->companion == NULL ? first : first->companion;
    view->elsewhere = (stack.count > 0 ? stack.parts[0].node : last)->thread.address;
    return true;
}

/* -- all of them -- */

static bool is_late(const pyprof_snapshot_request *request) {
    return pyprof_monotonic_ns() - request->asked_ns > PYPROF_LATE_NS;
}

static bool is_thread(const pyprof_thread_node *one) {
    return !one->is_own && !one->is_companion && (one->tid != 0 || one->thread.tid == 0);
}

/* False: no memory, or its stack is left to `current_frames`. */
static bool add_thread(const reader *reads, pyprof_thread_node *one, bool late) {
    const pyprof_snapshot_request *request = reads->request;
    const pyprof_thread_key key = pyprof_thread_node_key(one);
    const size_t place = pyprof_snapshot_find(request, &key);
    const bool is_new = place >= request->known->count;
    if (pyprof_thread_is_starting(one, is_new)) {
        request->snapshot->has_starting = true;
        return true;
    }
    pyprof_thread_view *view = pyprof_snapshot_add(request, &key);
    if (view == NULL) {
        return false;
    }
    view->moved_on = late; /* the timer lost its CPU after it had read the clocks */
    if (is_new) {
        const bool presumed = key.tstate == request->gil_holder || pyprof_thread_attached(key.tstate);
        view->presence =
            pyprof_thread_is_on_cpu(key.tid)
                ? 1
                : pyprof_presence_of_new(request->asked, key.tid, presumed, request->asks_of_new);
    } else if (!pyprof_snapshot_needs_walk(request, place)) {
        view->elsewhere = request->known->items[place].elsewhere;
        return true;
    }
    const bool on_cpu = !is_new && request->known->items[place].on_cpu;
    return ((one->list > 0 || one->companion != NULL) && read_elsewhere(reads, one, view)) ||
           read_alone(reads, one, on_cpu, view);
}

/* Frames tell where a thread stands without the GIL only if it has not had it meanwhile. */
static void forget_instructions(const pyprof_snapshot_request *request) {
    for (size_t i = 0; i < request->snapshot->thread_count; i++) {
        request->snapshot->threads[i].instruction = NULL;
    }
}

static bool take(const pyprof_snapshot_request *request, pyprof_gilfree_losses *losses, bool is_exact_only) {
    const reader reads = {request, losses, is_exact_only, pyprof_label_epoch_begin()};
    bool others;
    pyprof_thread_lists_find(request->interp);
    pyprof_code_cache_begin_snapshot();
    if (!pyprof_thread_lists_read(request, &others)) {
        losses->torn++;
        return false;
    }
    losses->torn += !others;
    pyprof_snapshot_begin(request);
    all_stood_still = true;
    request->snapshot->lacks_others = !others;
    const bool late = request->snapshot->taken_ns - request->asked_ns > PYPROF_LATE_NS;
    for (size_t i = 0; i < pyprof_thread_lists_count(); i++) {
        pyprof_thread_node *one = pyprof_thread_lists_at(i);
        if (is_thread(one) && !add_thread(&reads, one, late)) {
            return false;
        }
    }
    const pyprof_gil_mark mark = pyprof_gil_mark_now(request->interp);
    if (request->gil_mark.holder != request->gil_holder || !pyprof_gil_stayed(&request->gil_mark, &mark)) {
        forget_instructions(request);
    }
    return true;
}

/* What the other engine says of a thread of the main interpreter that runs code of another one ends where it
 * went there. */
static void complete(const reader *reads, pyprof_thread_node *one) {
    const pyprof_snapshot_request *request = reads->request;
    const pyprof_thread_key key = pyprof_thread_node_key(one);
    pyprof_thread_view *view = pyprof_snapshot_view_of(request, &key);
    if (view == NULL) {
        return;
    }
    const size_t place = pyprof_threads_find(request->known, &key, 0);
    if (pyprof_snapshot_needs_walk(request, place)) {
        read_elsewhere(reads, one, view);
    } else {
        view->elsewhere = request->known->items[place].elsewhere;
    }
}

void pyprof_gilfree_add_others(const pyprof_snapshot_request *request, pyprof_gilfree_losses *losses) {
    if (pyprof_is_only_interpreter(request->interp)) {
        return;
    }
    const reader reads = {request, losses, false, pyprof_label_epoch_begin()};
    const bool late = is_late(request);
    bool others;
    pyprof_thread_lists_find(request->interp);
    if (!pyprof_thread_lists_read(request, &others)) {
        request->snapshot->lacks_others = true; /* which of their threads are the main one's is not known */
        losses->torn++;
        return;
    }
    bool read = others;
    for (size_t i = 0; i < pyprof_thread_lists_count(); i++) {
        pyprof_thread_node *one = pyprof_thread_lists_at(i);
        if (one->list > 0 && is_thread(one)) {
            read &= add_thread(&reads, one, late);
        } else if (one->companion != NULL) {
            complete(&reads, one);
        }
    }
    request->snapshot->lacks_others = !read;
    losses->torn += !read;
}

bool pyprof_gilfree_take(const pyprof_snapshot_request *request, pyprof_gilfree_losses *losses) {
    if (!gives_up_too_often() || !any_runs(request->known)) {
        return take(request, losses, false);
    }
    if (++leaving % READ_ALL_THE_SAME == 0) {
        pyprof_gilfree_losses if_taken = {0};
        const bool taken = take(request, &if_taken, false) && all_stood_still;
        *losses = taken ? if_taken : *losses;
        return taken;
    }
    return take(request, losses, true);
}

#endif
