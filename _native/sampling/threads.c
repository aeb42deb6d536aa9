/* See threads.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/threads.h"

#include <stdlib.h>
#include <string.h>

#include "cpython/gil.h"
#include "cpython/interpreter.h"
#include "sampling/clocks.h"
#include "sampling/own_threads.h"
#include "sampling/proc.h"

/* With several CPUs it is chance whether the timer takes a thread's CPU, and the thread's next tick may find
 * it on one. */
static bool may_wait_to_be_placed(const pyprof_threads *threads, const pyprof_thread *thread) {
    return pyprof_can_look_on() && thread->clock_ns - thread->charged_ns < threads->patience_ns;
}

const void *pyprof_threads_gil_holder(const pyprof_threads *threads, PyInterpreterState *interp) {
    const void *holder = pyprof_gil_holder(interp);
    if (holder == NULL || holder == PYPROF_UNKNOWN_HOLDER) {
        return holder;
    }
    for (size_t i = 0; i < threads->count; i++) {
        if (threads->items[i].key.tstate == holder) {
            return holder;
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
            .sampled_ns = clock,
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

static bool read_every_clock(pyprof_threads *threads) {
    bool changed = !threads->trust_clocks;
    for (size_t i = 0; i < threads->count; i++) {
        pyprof_thread *thread = &threads->items[i];
        int64_t clock = pyprof_thread_cpu_ns(thread->key.tid);
        thread->ran_ns = clock > thread->clock_ns ? clock - thread->clock_ns : 0;
        thread->moved |= thread->ran_ns > 0;
        thread->ended = clock < 0;
        if (thread->ran_ns > 0) {
            thread->clock_ns = clock;
        }
        if (thread->ran_ns > 0 || thread->ended || !threads->trust_clocks) {
            thread->stack_is_current = false;
        }
        changed |= !thread->stack_is_current;
    }
    return changed;
}

/* A clock that goes on between two reads, the second at least one system call later, belongs to a thread that
 * is on a CPU now. That is blind to a thread from which the timer took the CPU; there holding the GIL (or,
 * free-threaded, being attached) makes it likely. */
static void see_who_is_on_cpu(pyprof_threads *threads, const void *gil_holder) {
    for (size_t i = 0; i < threads->count; i++) {
        pyprof_thread *thread = &threads->items[i];
        thread->on_cpu = thread->is_running = false;
        if (!thread->moved) {
            continue;
        }
        int64_t clock = pyprof_thread_cpu_ns(thread->key.tid);
        thread->is_running = clock > thread->clock_ns;
        thread->on_cpu = thread->is_running || thread->key.tstate == gil_holder;
        if (clock > thread->clock_ns) {
            thread->clock_ns = clock;
        }
        thread->placeable_ns = thread->clock_ns;
        thread->certain_ns = 0;
        thread->on_cpu = thread->on_cpu || (!may_wait_to_be_placed(threads, thread) &&
                                            pyprof_thread_attached(thread->key.tstate));
    }
}

bool pyprof_threads_read_clocks(pyprof_threads *threads, const void *gil_holder) {
    for (size_t i = 0; i < threads->count; i++) {
        threads->items[i].moved = false;
    }
    bool changed = read_every_clock(threads);
    see_who_is_on_cpu(threads, gil_holder);
    return changed;
}

/* Who has the GIL but not the CPU, which another thread or process took from it, stands where it lost that:
 * at system calls, mostly. And C code from which the timer took the CPU would be seen less than Python code
 * from which it did. Both are rare unless they happen all the time: then what is in doubt and not asked for
 * is not placed. Asking is what costs most, so that is every third tick on average, at random: where C calls
 * keep the GIL there is a tick a call, and functions may take turns. But of a thread that may soon end it
 * must be known whether it is on a CPU at all (charge.c), and a call that long is not left to chance. */
enum {
    TRUST_AFTER = 16,
    ASK_TRUSTED_EVERY = 8,
    ASK_OTHERS_EVERY = 3,
    YOUNG_PERIODS = 10,
    OVERDUE_PERIODS = 4
};

static bool is_urgent(const pyprof_threads *threads, const pyprof_thread *thread) {
    const int64_t period_ns = 2 * threads->patience_ns;
    return thread->clock_ns < YOUNG_PERIODS * period_ns ||
           thread->clock_ns - thread->charged_ns > OVERDUE_PERIODS * period_ns;
}

static void place_the_certain_only(pyprof_threads *threads) {
    for (size_t i = 0; i < threads->count; i++) {
        threads->items[i].on_cpu = threads->items[i].is_running;
    }
}

pyprof_doubt pyprof_threads_doubt(pyprof_threads *threads, const void *gil_holder, uint64_t chance) {
    /* With several CPUs, who has run Python code is seen when it holds the GIL again. */
    const bool can_wait = pyprof_can_look_on() && gil_holder != NULL && gil_holder != PYPROF_UNKNOWN_HOLDER;
    bool any = false, any_urgent = false, any_due = false, nobody_presumed = false;
    for (size_t i = 0; i < threads->count; i++) {
        const pyprof_thread *thread = &threads->items[i];
        if (thread->moved && !thread->is_running) {
            const bool is_due = !may_wait_to_be_placed(threads, thread);
            any = true;
            any_urgent |= is_urgent(threads, thread);
            any_due |= is_due;
            nobody_presumed |= is_due && !thread->on_cpu && !can_wait;
        }
    }
    const bool trusted = threads->confirmations >= TRUST_AFTER;
    const uint32_t every = trusted ? ASK_TRUSTED_EVERY : ASK_OTHERS_EVERY;
    if (!any) {
        return PYPROF_NO_DOUBT;
    }
    if ((trusted && nobody_presumed) || (!trusted && any_urgent) ||
        ((trusted || any_due) && chance % every == 0)) {
        return nobody_presumed ? PYPROF_NOBODY_PRESUMED : PYPROF_UNCONFIRMED;
    }
    if (!trusted) {
        place_the_certain_only(threads);
    }
    return PYPROF_NO_DOUBT;
}

enum { SAME_MOMENT_NS = 1000, SOON_NS = 100000, MOST_ASKED = 8 };

/* For how long the thread had no CPU when the timer got one. */
static int64_t ns_without_cpu(uint64_t tid, int64_t timer_began_ns) {
    return timer_began_ns - pyprof_thread_last_ran_ns(tid);
}

/* It lost its CPU at the very moment when the timer got one; or just before, to one of the kernel's own
 * threads, which the same interrupt woke. */
static bool may_have_been_preempted(int64_t ns) { return ns > -SAME_MOMENT_NS && ns < SOON_NS; }

bool pyprof_timer_took_cpu_of(uint64_t tid, bool presumed) {
    const int64_t timer_began_ns = pyprof_thread_last_ran_ns(pyprof_own_tid());
    return timer_began_ns < 0 ? presumed || pyprof_thread_is_runnable(tid)
                              : may_have_been_preempted(ns_without_cpu(tid, timer_began_ns)) &&
                                    pyprof_thread_is_runnable(tid);
}

typedef struct {
    const pyprof_thread *thread; /* or NULL */
    int64_t ns_without_cpu;
    size_t asked;
} preempted;

/* From which thread the timer took its CPU; of those that are presumed to have been on one, or of the others
 * that have run since the last tick. One that wants no CPU gave its own up by itself: it was woken by the
 * tick's interrupt, got the CPU first and went back to wait, for the GIL mostly. */
static void find_preempted(const pyprof_threads *threads, int64_t timer_began_ns, bool presumed,
                           preempted *found) {
    for (size_t i = 0; i < threads->count && found->ns_without_cpu >= SAME_MOMENT_NS; i++) {
        const pyprof_thread *thread = &threads->items[i];
        if (!thread->moved || thread->is_running || thread->on_cpu != presumed) {
            continue;
        }
        if (++found->asked > MOST_ASKED) {
            return;
        }
        const int64_t ns = ns_without_cpu(thread->key.tid, timer_began_ns);
        if (may_have_been_preempted(ns) && ns < found->ns_without_cpu &&
            pyprof_thread_is_runnable(thread->key.tid)) {
            found->thread = thread;
            found->ns_without_cpu = ns;
        }
    }
}

bool pyprof_threads_ask_who_was_preempted(pyprof_threads *threads) {
    const int64_t timer_began_ns = pyprof_thread_last_ran_ns(pyprof_own_tid());
    if (timer_began_ns < 0) {
        return false;
    }
    preempted found = {.ns_without_cpu = SOON_NS};
    find_preempted(threads, timer_began_ns, true, &found);
    find_preempted(threads, timer_began_ns, false, &found);
    if (found.asked > MOST_ASKED) {
        return false;
    }
    threads->confirmations++;
    for (size_t i = 0; i < threads->count; i++) {
        pyprof_thread *thread = &threads->items[i];
        const bool on_cpu = thread->is_running || thread == found.thread;
        if (thread->on_cpu != on_cpu) {
            threads->confirmations = 0;
        }
        thread->on_cpu = on_cpu;
    }
    return true;
}

enum { NAP_NS = 40000, OVERSLEPT_NS = 40000 };

bool pyprof_nap(void) {
    uint32_t never_changes = 0;
    const int64_t end = pyprof_monotonic_ns() + NAP_NS;
    pyprof_futex_wait(&never_changes, 0, end);
    return pyprof_monotonic_ns() < end + OVERSLEPT_NS;
}

void pyprof_threads_read_clocks_again(pyprof_threads *threads, const void *gil_holder, bool after_a_nap) {
    read_every_clock(threads);
    see_who_is_on_cpu(threads, gil_holder);
    for (size_t i = 0; i < threads->count; i++) {
        pyprof_thread *thread = &threads->items[i];
        const bool ran = threads->trust_clocks ? thread->ran_ns > NAP_NS / 2 && after_a_nap : thread->moved;
        /* That it could run is not enough: a thread that wakes up can, long before it does. That it ran is
         * not enough either: it may have gone to sleep since. */
        thread->on_cpu = thread->on_cpu || (ran && pyprof_thread_is_runnable(thread->key.tid));
    }
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
        .sampled_ns = clock,
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
