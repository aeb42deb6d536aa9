/* See threads.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/threads.h"

#include <stdlib.h>
#include <string.h>

#include "cpython/gil.h"
#include "cpython/interpreter.h"
#include "sampling/clocks.h"
#include "sampling/own_threads.h"

/* Asking /proc is dear, and only needed where the timer itself took the CPU from the thread. With several
 * CPUs that is chance, and the thread's next tick may be another's; only where they are all taken it is the
 * rule. */
enum { RUNNABLE_CHECKS_A_TICK = 2 };

static bool may_wait_to_be_placed(const pyprof_threads *threads, const pyprof_thread *thread) {
    return pyprof_can_look_on() && thread->clock_ns - thread->charged_ns < threads->patience_ns;
}

enum { PROOF_SPIN_NS = 50000, PROOF_NOISE_NS = 20000 };

bool pyprof_clocks_are_fine_grained(void) {
    uint64_t tid = pyprof_own_tid();
    for (int attempt = 0; attempt < 3; attempt++) {
        int64_t before = pyprof_thread_cpu_ns(tid);
        int64_t start = pyprof_monotonic_ns();
        while (pyprof_monotonic_ns() - start < PROOF_SPIN_NS) {
        }
        int64_t moved = pyprof_thread_cpu_ns(tid) - before;
        if (before >= 0 && moved >= PROOF_NOISE_NS && moved <= 100 * PROOF_SPIN_NS) {
            return true;
        }
    }
    return false;
}

bool pyprof_threads_open(pyprof_threads *threads, PyInterpreterState *interp, bool trust_clocks) {
    memset(threads, 0, sizeof(*threads));
    threads->trust_clocks = trust_clocks;
    for (PyThreadState *tstate = PyInterpreterState_ThreadHead(interp); tstate != NULL;
         tstate = PyThreadState_Next(tstate)) {
        uint64_t tid = pyprof_native_thread_id(tstate);
        if (tid == 0 || pyprof_is_own_thread(tid)) {
            continue;
        }
        if (threads->count == threads->capacity) {
            size_t capacity = threads->capacity == 0 ? 16 : threads->capacity * 2;
            pyprof_thread *grown = realloc(threads->items, capacity * sizeof(*grown));
            if (grown == NULL) {
                pyprof_threads_close(threads);
                return false;
            }
            threads->items = grown;
            threads->capacity = capacity;
        }
        int64_t clock = pyprof_thread_cpu_ns(tid);
        threads->items[threads->count++] = (pyprof_thread){
            .key = {tstate, PyThreadState_GetID(tstate), tid},
            .clock_ns = clock,
            .placeable_ns = clock,
            .charged_ns = clock,
            .tail_ns = PYPROF_UNKNOWN,
            .stack = PYPROF_NO_STACK,
            .placed_stack = PYPROF_NO_STACK,
            .moved_stack = PYPROF_NO_STACK,
        };
    }
    return true;
}

void pyprof_threads_close(pyprof_threads *threads) {
    free(threads->items);
    memset(threads, 0, sizeof(*threads));
}

bool pyprof_threads_read_clocks(pyprof_threads *threads, const void *gil_holder) {
    bool changed = !threads->trust_clocks;
    for (size_t i = 0; i < threads->count; i++) {
        pyprof_thread *thread = &threads->items[i];
        int64_t clock = pyprof_thread_cpu_ns(thread->key.tid);
        thread->moved = clock > thread->clock_ns;
        thread->ended = clock < 0;
        if (clock >= 0) {
            thread->clock_ns = clock;
        }
        if (thread->moved || clock < 0 || !threads->trust_clocks) {
            thread->stack_is_current = false;
        }
        changed |= !thread->stack_is_current;
    }
    /* A clock that goes on between two reads, the second at least one system call later, belongs to a thread
     * that is on a CPU now. That is blind to a thread from which the timer took the CPU: then holding the GIL
     * (or, free-threaded, being attached) tells, and as a last resort whether the kernel would run it if it
     * could. While somebody holds the GIL that last one tells nothing: a thread that is woken for the GIL is
     * ready to run too, at a place where it waits. */
    size_t runnable_checks = 0;
    for (size_t i = 0; i < threads->count; i++) {
        pyprof_thread *thread = &threads->items[i];
        thread->on_cpu = false;
        if (!thread->moved) {
            continue;
        }
        int64_t clock = pyprof_thread_cpu_ns(thread->key.tid);
        thread->on_cpu = clock > thread->clock_ns || thread->key.tstate == gil_holder;
        if (clock > thread->clock_ns) {
            thread->clock_ns = clock;
        }
        thread->placeable_ns = thread->clock_ns;
        thread->certain_ns = 0;
    }
    if (gil_holder != NULL && gil_holder != PYPROF_UNKNOWN_HOLDER) {
        return changed;
    }
    for (size_t n = 0; n < threads->count && runnable_checks < RUNNABLE_CHECKS_A_TICK; n++) {
        threads->next_runnable_check = (threads->next_runnable_check + 1) % threads->count;
        pyprof_thread *thread = &threads->items[threads->next_runnable_check];
        if (thread->moved && !thread->on_cpu && !may_wait_to_be_placed(threads, thread)) {
            thread->on_cpu =
                pyprof_thread_attached(thread->key.tstate) || pyprof_thread_is_runnable(thread->key.tid);
            runnable_checks++;
        }
    }
    return changed;
}

static bool same_key(const pyprof_thread_key *a, const pyprof_thread_key *b) {
    return a->tstate == b->tstate && a->unique_id == b->unique_id && a->tid == b->tid;
}

size_t pyprof_threads_find(const pyprof_threads *threads, const pyprof_thread_key *key, size_t hint) {
    /* CPython's list of threads changes little from tick to tick, and at its head: the thread is at its old
     * place, or some places further on or back. */
    for (size_t i = hint; i < threads->count; i++) {
        if (same_key(&threads->items[i].key, key)) {
            return i;
        }
    }
    for (size_t i = 0; i < hint && i < threads->count; i++) {
        if (same_key(&threads->items[i].key, key)) {
            return i;
        }
    }
    return threads->count;
}

/* A thread that was not there at the tick before: all its CPU time is new, but a thread of C code that comes
 * to Python for the first time brings hours of it. More than has passed since that tick cannot belong to
 * Python code. */
pyprof_thread pyprof_new_thread(const pyprof_thread_key *key, int64_t wall_ns, bool on_cpu) {
    int64_t clock = pyprof_thread_cpu_ns(key->tid);
    clock = clock < 0 ? 0 : clock;
    int64_t head = clock < wall_ns ? clock : wall_ns;
    return (pyprof_thread){
        .key = *key,
        .clock_ns = clock,
        .placeable_ns = clock,
        .charged_ns = clock - head,
        .tail_ns = on_cpu ? wall_ns - head : PYPROF_UNKNOWN,
        .moved = true,
        .on_cpu = on_cpu,
        .stack = PYPROF_NO_STACK,
        .placed_stack = PYPROF_NO_STACK,
        .moved_stack = PYPROF_NO_STACK,
    };
}

void pyprof_threads_forget_stacks(pyprof_threads *threads) {
    for (size_t i = 0; i < threads->count; i++) {
        pyprof_thread *thread = &threads->items[i];
        thread->stack = thread->placed_stack = thread->moved_stack = PYPROF_NO_STACK;
        thread->stack_is_current = false;
    }
}

#endif
