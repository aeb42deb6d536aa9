/* See merge.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/merge.h"

#include <stdlib.h>

#include "sampling/charge.h"

/* Whether a thread is back from another interpreter is not known while those cannot be listed: for so long.
 */
#define MOST_OWED_NS INT64_C(1000000000)

static pyprof_thread go_on(const pyprof_thread *known, const pyprof_thread_view *view, bool lacks_others,
                           double share) {
    pyprof_thread thread = *known;
    thread.unread = view->unread || (lacks_others && thread.elsewhere != NULL && view->elsewhere == NULL &&
                                     thread.owed_wall_ns < MOST_OWED_NS);
    thread.elsewhere = view->elsewhere != NULL || !thread.unread ? view->elsewhere : thread.elsewhere;
    if (view->kept_cpu) { /* so nobody has to be asked */
        thread.on_cpu = true;
        thread.presence = 1;
    }
    if (view->moved_on || thread.unread) {
        thread.on_cpu = false;
        thread.presence = 0;
    }
    if (view->clock_ns > thread.clock_ns) {
        const int64_t meanwhile = view->clock_ns - thread.clock_ns;
        thread.certain_ns = (int64_t)(share * (double)meanwhile);
        thread.placeable_ns += thread.certain_ns;
        thread.clock_ns = view->clock_ns;
    }
    return thread;
}

static pyprof_thread begin(const pyprof_threads *known, const pyprof_thread_view *view, int64_t wall_ns) {
    pyprof_thread thread = pyprof_new_thread(known, &view->key, wall_ns, view->unread ? 0 : view->presence);
    thread.unread = view->unread;
    thread.elsewhere = view->elsewhere;
    return thread;
}

/* It has begun since the tick was due. Ticks come later between two threads, where a nap is needed, than
 * while one works; so they would find more of a thread's beginning than there is. */
static bool is_too_new(const pyprof_timer *timer, const pyprof_thread *thread) {
    return thread->clock_ns < timer->late_ns && thread->elsewhere == NULL &&
           thread->key.unique_id > timer->last_left_out;
}

/* clock_is_later: it was read after the stack. If the thread waits now, it may have gone on until then. */
static void take_stack(pyprof_timer *timer, const pyprof_thread_view *view, pyprof_thread *thread,
                       bool clock_is_later) {
    thread->instruction = view->instruction;
    if (!view->walked || thread->unread) {
        return;
    }
    const pyprof_frame *frames = timer->snapshot.frames + view->first_frame;
    thread->gil.at_safe_point = false;
    thread->in_python = view->depth > 0;
    thread->stack =
        thread->in_python
            ? pyprof_window_intern(timer->window, frames, view->depth, view->truncated, view->labels)
            : pyprof_window_intern(timer->window, &timer->native_frame, 1, false, view->labels);
    thread->stack_is_current = !view->is_incomplete && !clock_is_later;
    pyprof_count(&timer->stats.stacks, 1);
}

/* Those that the snapshot takes over have lost their key. */
static size_t settle_others(pyprof_timer *timer, pyprof_thread *items, size_t kept, int64_t wall_ns,
                            int64_t longest_gap_ns) {
    uint64_t unplaced = 0;
    for (size_t i = 0; i < timer->threads.count; i++) {
        pyprof_thread *known = &timer->threads.items[i];
        if (known->key.tstate == NULL) {
            continue;
        }
        if (timer->snapshot.lacks_others && known->elsewhere != NULL && !known->ended) {
            known->unread = true;
            known->on_cpu = false;
            known->presence = 0;
            items[kept++] = *known;
        } else {
            unplaced += (uint64_t)pyprof_charge_ended(known, timer->window, wall_ns, longest_gap_ns);
        }
    }
    pyprof_count(&timer->stats.unplaced_cpu_ns, unplaced);
    return kept;
}

bool pyprof_merge_snapshot(pyprof_timer *timer, int64_t wall_ns, double share, int64_t longest_gap_ns) {
    pyprof_snapshot *snapshot = &timer->snapshot;
    pyprof_threads *known = &timer->threads;
    const size_t most = snapshot->thread_count + known->count + 1;
    pyprof_thread *items = malloc(most * sizeof(*items));
    if (items == NULL) {
        return false;
    }
    size_t kept = 0;
    uint64_t left_out = timer->last_left_out;
    for (size_t i = 0; i < snapshot->thread_count; i++) {
        const pyprof_thread_view *view = &snapshot->threads[i];
        pyprof_thread *item = &items[kept];
        const size_t old = pyprof_threads_find(known, &view->key, i);
        bool clock_is_later = true;
        if (old < known->count) {
            clock_is_later = view->clock_ns > known->items[old].clock_ns;
            *item = go_on(&known->items[old], view, snapshot->lacks_others, share);
            known->items[old].key.tstate = NULL;
        } else {
            *item = begin(known, view, wall_ns);
            if (is_too_new(timer, item)) {
                left_out = view->key.unique_id > left_out ? view->key.unique_id : left_out;
                snapshot->has_starting = true;
                continue;
            }
        }
        take_stack(timer, view, item, clock_is_later);
        kept++;
    }
    kept = settle_others(timer, items, kept, wall_ns, longest_gap_ns);
    free(known->items);
    known->items = items;
    timer->last_left_out = left_out;
    known->count = kept;
    known->capacity = most;
    return true;
}

#endif
