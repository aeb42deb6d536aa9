/* See threads.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/threads.h"

#include <stdlib.h>
#include <string.h>

#include "cpython/gil.h"
#include "cpython/interpreter.h"
#include "sampling/clocks.h"
#include "sampling/growing.h"
#include "sampling/own_threads.h"

const void *pyprof_threads_gil_holder(const pyprof_threads *threads, PyInterpreterState *interp) {
    const void *holder = pyprof_gil_holder(interp);
    if (holder == NULL || holder == PYPROF_UNKNOWN_HOLDER) {
        return holder;
    }
    for (size_t i = 0; i < threads->count; i++) {
        if (threads->items[i].key.tstate == holder || threads->items[i].elsewhere == holder) {
            return threads->items[i].key.tstate;
        }
    }
    const uint64_t tid = pyprof_live_native_thread_id(holder);
    for (size_t i = 0; i < threads->count; i++) {
        if (threads->items[i].key.tid == tid) {
            return threads->items[i].key.tstate;
        }
    }
    return holder;
}

static bool add_thread(pyprof_threads *threads, PyThreadState *tstate) {
    const uint64_t tid = pyprof_native_thread_id(tstate);
    if (tid == 0 || pyprof_is_own_thread(tid)) {
        return true;
    }
    if (!pyprof_reserve((void **)&threads->items, &threads->capacity, threads->count + 1,
                        sizeof(*threads->items))) {
        return false;
    }
    const pyprof_thread_key key = {tstate, PyThreadState_GetID(tstate), tid};
    threads->items[threads->count++] = pyprof_new_thread(threads, &key, 0, 0);
    return true;
}

bool pyprof_threads_open(pyprof_threads *threads, PyInterpreterState *interp, bool trust_clocks) {
    memset(threads, 0, sizeof(*threads));
    threads->trust_clocks = trust_clocks;
    bool added = true;
    while (!pyprof_hold_thread_states()) {
    }
    for (PyThreadState *tstate = PyInterpreterState_ThreadHead(interp); tstate != NULL && added;
         tstate = PyThreadState_Next(tstate)) {
        added = add_thread(threads, tstate);
    }
    pyprof_release_thread_states();
    if (!added) {
        pyprof_threads_close(threads);
    }
    return added;
}

void pyprof_threads_close(pyprof_threads *threads) {
    free(threads->items);
    memset(threads, 0, sizeof(*threads));
}

/* Threads that want the GIL wake every 5 ms to ask for it: of fifty all would be read at each tick, and stand
 * where they stood. So of many that do so, that have hardly run since their last sample and are on no CPU,
 * some are read, at random, and stand for the others at that tick. An earlier or later sample of the others
 * would not do: a stack that is soon gone would lose to one that stays. */
enum { MOST_HARDLY_RAN = 4, HARDLY = 16 };

static bool hardly_ran(const pyprof_threads *threads, const pyprof_thread *thread, const void *gil_holder) {
    return threads->trust_clocks && thread->restless >= PYPROF_RESTLESS && !thread->stack_is_current &&
           thread->stack != PYPROF_NO_STACK && thread->in_python && !thread->on_cpu && !thread->ended &&
           thread->elsewhere == NULL && thread->key.tstate != gil_holder &&
           thread->clock_ns - thread->sampled_ns < threads->patience_ns / HARDLY;
}

void pyprof_threads_weigh(pyprof_threads *threads, const void *gil_holder, uint64_t chance) {
    size_t count = 0, number = 0;
    for (size_t i = 0; i < threads->count; i++) {
        threads->items[i].weight = 1;
        count += hardly_ran(threads, &threads->items[i], gil_holder);
    }
    if (count <= MOST_HARDLY_RAN) {
        return;
    }
    const size_t first = chance % count;
    for (size_t i = 0; i < threads->count; i++) {
        pyprof_thread *thread = &threads->items[i];
        if (hardly_ran(threads, thread, gil_holder)) {
            /* Evenly spread, since neighbours may do the same at the same time. */
            const bool is_read = (first + number++) * MOST_HARDLY_RAN % count < MOST_HARDLY_RAN;
            thread->weight = is_read ? (double)count / MOST_HARDLY_RAN : 0;
        }
    }
}

bool pyprof_is_same_thread(const pyprof_thread_key *a, const pyprof_thread_key *b) {
    return a->tstate == b->tstate && a->unique_id == b->unique_id && a->tid == b->tid;
}

size_t pyprof_threads_find(const pyprof_threads *threads, const pyprof_thread_key *key, size_t hint) {
    /* CPython's list of threads changes little from tick to tick, and at its head: the thread is at its old
     * place, or some places further on or back. */
    for (size_t i = hint; i < threads->count; i++) {
        if (pyprof_is_same_thread(&threads->items[i].key, key)) {
            return i;
        }
    }
    for (size_t i = 0; i < hint && i < threads->count; i++) {
        if (pyprof_is_same_thread(&threads->items[i].key, key)) {
            return i;
        }
    }
    return threads->count;
}

/* What is known of others counts as much as one answer of its own. */
static pyprof_odds prior(const pyprof_odds *of_others) {
    return (pyprof_odds){of_others->share, of_others->asked > 0};
}

/* A thread that was not there at the tick before: all its CPU time is new, but a thread of C code that comes
 * to Python for the first time brings hours of it. More than has passed since that tick cannot belong to
 * Python code. */
pyprof_thread pyprof_new_thread(const pyprof_threads *threads, const pyprof_thread_key *key, int64_t wall_ns,
                                double presence) {
    int64_t clock = pyprof_thread_cpu_ns(key->tid);
    clock = clock < 0 ? 0 : clock;
    int64_t head = clock < wall_ns ? clock : wall_ns;
    return (pyprof_thread){
        .key = *key,
        .clock_ns = clock,
        .placeable_ns = clock,
        .charged_ns = clock - head,
        .sampled_ns = clock,
        .seen_ns = clock,
        .moved = true,
        .on_cpu = presence >= 1,
        .presence = presence,
        .odds = {prior(&threads->odds[false]), prior(&threads->odds[true])},
        .weight = 1,
        .stack = PYPROF_NO_STACK,
        .placed_stack = PYPROF_NO_STACK,
        .moved_stack = PYPROF_NO_STACK,
        .gil.part = PYPROF_GIL_UNTOLD,
        .gil_weight = 1,
    };
}

void pyprof_threads_forget_stacks(pyprof_threads *threads) {
    for (size_t i = 0; i < threads->count; i++) {
        pyprof_thread *thread = &threads->items[i];
        thread->stack = thread->placed_stack = thread->moved_stack = PYPROF_NO_STACK;
        thread->moved_most_ns = 0;
        thread->stack_is_current = false;
    }
}

#endif
