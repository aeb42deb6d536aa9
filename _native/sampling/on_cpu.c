/* See on_cpu.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/on_cpu.h"

#include "cpython/gil.h"
#include "cpython/interpreter.h"
#include "sampling/clocks.h"
#include "sampling/proc.h"

/* With several CPUs it is chance whether the timer takes a thread's CPU, and the thread's next tick may find
 * it on one. */
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

enum { MOST_RESTLESS = 2 * PYPROF_RESTLESS };

static bool read_every_clock(pyprof_threads *threads) {
    bool changed = !threads->trust_clocks;
    for (size_t i = 0; i < threads->count; i++) {
        pyprof_thread *thread = &threads->items[i];
        int64_t clock = pyprof_thread_cpu_ns(thread->key.tid);
        thread->ran_ns = clock > thread->clock_ns ? clock - thread->clock_ns : 0;
        thread->moved |= thread->ran_ns > 0;
        if (thread->ran_ns > 0) {
            thread->restless += thread->restless < MOST_RESTLESS;
        } else {
            thread->restless -= thread->restless > 0;
        }
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
        thread->presence = 0;
        if (!thread->moved) {
            continue;
        }
        int64_t clock = pyprof_thread_cpu_ns(thread->key.tid);
        thread->is_running = clock > thread->clock_ns;
        thread->on_cpu = thread->is_running || thread->key.tstate == gil_holder || thread->holds_other_gil;
        if (clock > thread->clock_ns) {
            thread->clock_ns = clock;
        }
        thread->placeable_ns = thread->clock_ns;
        thread->certain_ns = 0;
        thread->on_cpu =
            thread->on_cpu ||
            (!may_wait_to_be_placed(threads, thread) &&
             pyprof_thread_attached(thread->elsewhere != NULL ? thread->elsewhere : thread->key.tstate));
    }
}

bool pyprof_threads_read_clocks(pyprof_threads *threads, const void *gil_holder) {
    for (size_t i = 0; i < threads->count; i++) {
        threads->items[i].moved = false;
    }
    threads->timer_began_ns = 0;
    bool changed = read_every_clock(threads);
    see_who_is_on_cpu(threads, gil_holder);
    return changed;
}

/* Who has the GIL but not the CPU, which another thread or process took from it, stands where it lost that:
 * at system calls, mostly. And C code from which the timer took the CPU would be seen less than Python code
 * from which it did. Both are rare of most threads, and what is presumed of those is believed for long. Of
 * the others what is in doubt and not asked for is not placed. Asking is what costs most, so that is every
 * third tick on average, at random: where C calls keep the GIL there is a tick a call, and functions may take
 * turns. What has used much meanwhile is not left to chance, nor is a thread that has used little so far: at
 * low rates it has few ticks in all.
 *
 * Of a thread that may soon end it matters how likely it is on a CPU (charge.c): where that is not asked, it
 * is as likely as it was of that thread when it was; and of one that is new, as it was of others like it. */
enum {
    TRUST_AFTER = 32,
    ASK_TRUSTED_EVERY = 8,
    ASK_OTHERS_EVERY = 3,
    ASK_OF_NEW_EVERY = 8,
    YOUNG_PERIODS = 10,
    OVERDUE_PERIODS = 4,
    ENOUGH_TO_TELL = 16,
    ODDS_OF_LAST = 64
};

static void learn(pyprof_odds *odds, bool on_cpu) {
    odds->asked += odds->asked < ODDS_OF_LAST;
    odds->share += ((double)on_cpu - odds->share) / odds->asked;
}

static bool is_told(const pyprof_odds *odds) { return odds->asked >= ENOUGH_TO_TELL; }

static bool is_in_doubt(const pyprof_thread *thread) { return thread->moved && !thread->is_running; }

static bool is_trusted(const pyprof_thread *thread) { return thread->confirmations >= TRUST_AFTER; }

static bool is_young(const pyprof_threads *threads, const pyprof_thread *thread) {
    return thread->clock_ns < YOUNG_PERIODS * 2 * threads->patience_ns;
}

static bool is_overdue(const pyprof_threads *threads, const pyprof_thread *thread) {
    return thread->clock_ns - thread->charged_ns > OVERDUE_PERIODS * 2 * threads->patience_ns;
}

static bool has_used_much(const pyprof_threads *threads, const pyprof_thread *thread) {
    return thread->clock_ns - thread->charged_ns >= threads->patience_ns;
}

/* Those that are in doubt, and not trusted. */
static void place_the_certain_only(pyprof_threads *threads) {
    for (size_t i = 0; i < threads->count; i++) {
        pyprof_thread *thread = &threads->items[i];
        if (is_in_doubt(thread) && !is_trusted(thread)) {
            thread->presence = thread->odds[thread->on_cpu].share;
            thread->on_cpu = false;
        }
    }
}

pyprof_doubt pyprof_threads_doubt(pyprof_threads *threads, const void *gil_holder, uint64_t chance) {
    /* With several CPUs, who has run Python code is seen when it holds the GIL again. */
    const bool can_wait = pyprof_can_look_on() && gil_holder != NULL && gil_holder != PYPROF_UNKNOWN_HOLDER;
    bool asks = false, nobody_presumed = false;
    for (size_t i = 0; i < threads->count; i++) {
        const pyprof_thread *thread = &threads->items[i];
        if (!is_in_doubt(thread)) {
            continue;
        }
        const bool is_due = !may_wait_to_be_placed(threads, thread);
        const bool is_unexplained = is_due && !thread->on_cpu && !can_wait;
        nobody_presumed |= is_unexplained;
        if (is_trusted(thread)) {
            asks |= chance % ASK_TRUSTED_EVERY == 0 || (is_unexplained && has_used_much(threads, thread));
        } else {
            asks |= is_overdue(threads, thread) || is_young(threads, thread) ||
                    (is_due && chance % ASK_OTHERS_EVERY == 0);
        }
    }
    if (asks) {
        return nobody_presumed ? PYPROF_NOBODY_PRESUMED : PYPROF_UNCONFIRMED;
    }
    place_the_certain_only(threads);
    return PYPROF_NO_DOUBT;
}

/* -- which thread the timer took the CPU of -- */

enum { SAME_MOMENT_NS = 1000, SOON_NS = 100000, MOST_ASKED = 8 };
enum { NOT_BY_TIMER = INT32_MAX, NOT_TOLD = -INT32_MAX };

static int64_t timer_began_ns(pyprof_threads *threads) {
    if (threads->timer_began_ns == 0) {
        threads->timer_began_ns = pyprof_thread_last_ran_ns(pyprof_own_tid());
    }
    return threads->timer_began_ns;
}

static int64_t if_it_wants_cpu(uint64_t tid, int64_t ns) {
    const pyprof_answer wants_cpu = pyprof_thread_is_runnable(tid);
    const bool is_told = wants_cpu != PYPROF_NOT_TOLD || pyprof_thread_cpu_ns(tid) < 0; /* it has ended */
    return !is_told ? NOT_TOLD : wants_cpu == PYPROF_YES ? ns : NOT_BY_TIMER;
}

/* For how long a thread had no CPU when the timer got one, if the timer took it: at the very moment when the
 * timer got it; or just before, by one of the kernel's own threads, which the same interrupt woke. A thread
 * that wants no CPU gave its own up by itself: it was woken by the tick's interrupt, got the CPU first and
 * went back to wait, for the GIL mostly. What is likely to decide is asked first. */
static int64_t ns_without_cpu(pyprof_threads *threads, uint64_t tid, bool presumed) {
    const int64_t wants_cpu = presumed ? 0 : if_it_wants_cpu(tid, 0);
    if (wants_cpu != 0) {
        return wants_cpu;
    }
    const int64_t began_ns = timer_began_ns(threads);
    if (began_ns < 0) {
        return NOT_TOLD;
    }
    const int64_t ns = began_ns - pyprof_thread_last_ran_ns(tid);
    if (ns <= -SAME_MOMENT_NS || ns >= SOON_NS) {
        return NOT_BY_TIMER;
    }
    return presumed && ns >= SAME_MOMENT_NS ? if_it_wants_cpu(tid, ns) : ns;
}

bool pyprof_threads_ask_of_new(pyprof_threads *threads, uint64_t chance) {
    return !is_told(&threads->odds[false]) || !is_told(&threads->odds[true]) ||
           chance % ASK_OF_NEW_EVERY == 0;
}

double pyprof_presence_of_new(pyprof_threads *threads, uint64_t tid, bool presumed, bool asks) {
    pyprof_odds *odds = &threads->odds[presumed];
    if (!asks) {
        return odds->share;
    }
    const int64_t ns = ns_without_cpu(threads, tid, presumed);
    const bool on_cpu =
        ns == NOT_TOLD ? presumed || pyprof_thread_is_runnable(tid) == PYPROF_YES : ns != NOT_BY_TIMER;
    learn(odds, on_cpu);
    return on_cpu;
}

typedef struct {
    const pyprof_thread *thread; /* or NULL */
    int64_t ns_without_cpu;
    size_t asked;
} preempted;

/* Of those that are presumed to have been on a CPU, or of the others that have run since the last tick.
 * False: that is not told, or there are too many. */
static bool find_preempted(pyprof_threads *threads, bool presumed, preempted *found) {
    for (size_t i = 0; i < threads->count && found->ns_without_cpu >= SAME_MOMENT_NS; i++) {
        const pyprof_thread *thread = &threads->items[i];
        if (!is_in_doubt(thread) || thread->on_cpu != presumed) {
            continue;
        }
        const int64_t ns =
            found->asked++ == MOST_ASKED ? NOT_TOLD : ns_without_cpu(threads, thread->key.tid, presumed);
        if (ns == NOT_TOLD) {
            return false;
        }
        if (ns < found->ns_without_cpu) {
            found->thread = thread;
            found->ns_without_cpu = ns;
        }
    }
    return true;
}

bool pyprof_threads_ask_who_was_preempted(pyprof_threads *threads) {
    preempted found = {.ns_without_cpu = SOON_NS};
    if (!find_preempted(threads, true, &found) || !find_preempted(threads, false, &found)) {
        return false;
    }
    for (size_t i = 0; i < threads->count; i++) {
        pyprof_thread *thread = &threads->items[i];
        if (!is_in_doubt(thread)) {
            continue;
        }
        const bool on_cpu = thread == found.thread;
        thread->confirmations = thread->on_cpu == on_cpu ? thread->confirmations + 1 : 0;
        learn(&thread->odds[thread->on_cpu], on_cpu);
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
        thread->on_cpu = thread->on_cpu || (ran && pyprof_thread_is_runnable(thread->key.tid) == PYPROF_YES);
    }
}

/* Without a GIL all that are attached are presumed to be on a CPU, which may be many more than there are. */
void pyprof_threads_share_cpus(pyprof_threads *threads) {
    size_t running = 0, presumed = 0;
    for (size_t i = 0; i < threads->count; i++) {
        if (threads->items[i].on_cpu) {
            threads->items[i].presence = 1;
        }
        running += threads->items[i].is_running;
        presumed += threads->items[i].on_cpu && !threads->items[i].is_running;
    }
    const size_t cpus = presumed > 1 ? pyprof_cpu_count() : presumed + running;
    const size_t left = cpus > running ? cpus - running : 0;
    for (size_t i = 0; i < threads->count && presumed > left; i++) {
        if (threads->items[i].on_cpu && !threads->items[i].is_running) {
            threads->items[i].presence = (double)left / (double)presumed;
        }
    }
}

#endif
