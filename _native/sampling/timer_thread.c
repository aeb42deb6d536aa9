/* See timer_thread.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/timer_thread.h"

#include "cpython/gil.h"
#include "cpython/guarded_read.h"
#include "cpython/interpreter.h"
#include "cpython/live_stacks.h"
#include "memory/heap.h"
#include "random.h"
#include "sampling/charge.h"
#include "sampling/clocks.h"
#include "sampling/current_frames.h"
#include "sampling/gil_waits.h"
#include "sampling/gilfree.h"
#include "sampling/memory_limit.h"
#include "sampling/merge.h"
#include "sampling/on_cpu.h"
#include "sampling/proc.h"
#include "sampling/sigterm.h"
#include "sampling/thread_lists.h"
#include "windows/ring.h"

static uint64_t next_random(pyprof_timer *timer) { return pyprof_next_random(&timer->random); }

/* Where a tick is what makes the kernel go on with another thread, that begins then, often with a phase of
 * its own; what takes less than the shortest gap would hardly ever be seen. */
enum { SHORTEST_GAP = 1, LONGEST_GAP = 19 }; /* tenths of the period */

static int64_t next_gap(pyprof_timer *timer) {
    const int64_t shortest = timer->governor.period_ns * SHORTEST_GAP / 10;
    const int64_t longest = timer->governor.period_ns * LONGEST_GAP / 10;
    return shortest + (int64_t)(next_random(timer) % (uint64_t)(longest - shortest + 1));
}

/* Some ticks are put off, so gaps are longer on average than they were meant to be; by a factor that stays
 * when the period changes. */
enum { GAPS_TO_AVERAGE = 256 };

static void learn_gap(pyprof_timer *timer, int64_t gap_ns) {
    const double stretch = (double)gap_ns / (double)timer->governor.period_ns;
    timer->gap_stretch += (stretch - timer->gap_stretch) / GAPS_TO_AVERAGE;
}

static int64_t longest_gap(const pyprof_timer *timer) {
    return (int64_t)(timer->gap_stretch * (double)timer->governor.period_ns * LONGEST_GAP / 10);
}

/* -- the window -- */

static void begin_window(pyprof_timer *timer, int64_t now) {
    timer->window = pyprof_window_new(timer->options.window_bytes);
    timer->window_start_ns = now;
    timer->window_start_unix_ns = pyprof_unix_ns();
    timer->window_ticks = 0;
    timer->window_rate_changes = timer->stats.rate_changes;
    pyprof_threads_forget_stacks(&timer->threads);
}

/* The mean gap: what was asked for, where the whole window had one period, for the rest is chance. */
static int64_t window_period(const pyprof_timer *timer, int64_t duration_ns) {
    const pyprof_governor *governor = &timer->governor;
    if (timer->stats.rate_changes == timer->window_rate_changes || timer->window_ticks == 0) {
        return governor->period_ns;
    }
    const int64_t mean = duration_ns / (int64_t)timer->window_ticks;
    return mean > governor->wanted_ns ? mean : governor->wanted_ns;
}

static void finish_window(pyprof_timer *timer, int64_t now) {
    if (timer->window != NULL) {
        uint64_t unplaced = 0;
        for (size_t i = 0; i < timer->threads.count; i++) {
            unplaced += (uint64_t)pyprof_charge_rest(&timer->threads.items[i], timer->window, 0);
        }
        pyprof_count(&timer->stats.unplaced_cpu_ns, unplaced);
        if (pyprof_heap_is_open()) {
            pyprof_heap_report(timer->window, PYPROF_HEAP_WINDOW);
        }
        pyprof_window_info *info = pyprof_window_get_info(timer->window);
        info->start_ns = timer->window_start_unix_ns;
        info->duration_ns = now - timer->window_start_ns;
        info->period_ns = window_period(timer, info->duration_ns);
        info->wanted_period_ns = timer->options.period_ns;
        info->unplaced_cpu_ns = unplaced;
        pyprof_count(&timer->stats.overflowed, info->overflowed);
        pyprof_count(&timer->stats.windows, 1);
        pyprof_ring_push(timer->window);
        timer->window = NULL;
    }
    begin_window(timer, now);
}

static void count_missed(pyprof_timer *timer, uint64_t ticks) {
    pyprof_count(&timer->stats.missed, ticks);
    if (timer->window != NULL) {
        pyprof_window_get_info(timer->window)->missed += ticks;
    }
}

/* -- one tick -- */

/* Deadlines that have passed by `now` count as ticks; all but the first were missed. The last of them, or 0.
 */
static int64_t pass_deadlines(pyprof_timer *timer, int64_t now, bool first_is_missed) {
    int64_t last = 0;
    uint64_t passed = 0;
    for (; timer->deadline_ns <= now; timer->deadline_ns += next_gap(timer)) {
        last = timer->deadline_ns;
        passed++;
    }
    timer->pending_ticks += passed;
    timer->window_ticks += passed;
    pyprof_count(&timer->stats.ticks, passed);
    count_missed(timer, passed - (passed > 0 && !first_is_missed));
    return last;
}

/* A tick without a snapshot harms less than that all threads wait for the longest C call; but some sandboxes
 * forbid in the middle of a run what `gilfree` needs. */
enum { FAILURES_BEFORE_WORLD_STOPS = 20 };

static bool may_fall_back(pyprof_timer *timer) {
    return !pyprof_is_free_threaded() || ++timer->gilfree_failures > FAILURES_BEFORE_WORLD_STOPS;
}

static void note_how_it_reads(pyprof_timer *timer) {
    __atomic_store_n(&timer->reading, pyprof_way_of_reading_memory(), __ATOMIC_RELAXED);
}

static void count_losses(pyprof_timer *timer, const pyprof_gilfree_losses *losses) {
    pyprof_count(&timer->stats.unverified, losses->unverified);
    pyprof_count(&timer->stats.incomplete, losses->incomplete);
    pyprof_count(&timer->stats.torn, losses->torn);
}

static bool take_snapshot(pyprof_timer *timer, const pyprof_snapshot_request *request) {
    if (timer->gilfree_obstacle == NULL) {
        const char *obstacle = pyprof_evaluation_obstacle(timer->interp);
        __atomic_store_n(&timer->gilfree_obstacle, obstacle, __ATOMIC_RELAXED);
    }
    if (timer->gilfree_obstacle != NULL) {
        return pyprof_current_frames_take(request, timer->kept);
    }
    pyprof_gilfree_losses losses = {0};
    bool taken = pyprof_gilfree_take(request, &losses);
    count_losses(timer, &losses);
    note_how_it_reads(timer);
    if (taken) {
        timer->gilfree_failures = 0;
    } else if (may_fall_back(timer)) {
        pyprof_count(&timer->stats.fallbacks, 1);
        taken = pyprof_current_frames_take(request, timer->kept);
        if (taken) {
            pyprof_gilfree_losses of_others = {0};
            pyprof_gilfree_add_others(request, &of_others);
            count_losses(timer, &of_others);
        }
    }
    return taken;
}

/* A snapshot, merged into what is known of the threads. Returns up to when it speaks for them, or 0: not at
 * this tick.
 *
 * While a C call keeps the GIL, ticks come due; all of them would have found that call. So a late snapshot
 * stands for them too, and what is after the last of them is left to the next sample: weighing it all here
 * would favour long calls over short ones. */
static int64_t look(pyprof_timer *timer, int64_t now, const void *gil_holder) {
    const pyprof_snapshot_request request = {
        .interp = timer->interp,
        .max_frames = timer->options.max_frames,
        .raw_walk = timer->walk_obstacle == NULL,
        .snapshot = &timer->snapshot,
        .known = &timer->threads,
        .asked_ns = pyprof_monotonic_ns(),
        .gil_holder = gil_holder,
        .gil_mark = pyprof_gil_mark_now(timer->interp),
        .asked = &timer->threads,
        .asks_of_new = pyprof_threads_ask_of_new(&timer->threads, next_random(timer)),
    };
    if (timer->window == NULL || !take_snapshot(timer, &request)) {
        return 0;
    }
    const int64_t asked = request.asked_ns, taken = timer->snapshot.taken_ns;
    const int64_t last = taken - asked > PYPROF_LATE_NS ? pass_deadlines(timer, taken, true) : 0;
    int64_t until = last > now ? last : now;
    double share = until > asked && taken > asked ? (double)(until - asked) / (double)(taken - asked) : 0;
    return pyprof_merge_snapshot(timer, until - timer->last_tick_ns, share, longest_gap(timer)) ? until : 0;
}

/* -- the GIL -- */

/* Who has it, and who waits for it. NULL: nobody has, or it is not wanted. */
static const void *look_at_gil(pyprof_timer *timer, const void *gil_holder) {
    if (!timer->options.gil) {
        return NULL;
    }
    const void *holder = pyprof_is_free_threaded() ? pyprof_gil_holder_if_on(timer->interp) : gil_holder;
    if (timer->gil_wait_obstacle == NULL) {
        const pyprof_gil_tick tick = {
            .interp = timer->interp,
            .holder = holder,
            .period_ns = timer->options.period_ns,
            .chance = next_random(timer),
        };
        const char *obstacle = pyprof_gil_waits_decide(&timer->threads, &tick);
        __atomic_store_n(&timer->gil_wait_obstacle, obstacle, __ATOMIC_RELAXED);
    }
    return holder;
}

static void charge_threads(pyprof_timer *timer, int64_t wall_ns) {
    int64_t untold_ns = 0;
    for (size_t i = 0; i < timer->threads.count; i++) {
        pyprof_thread *thread = &timer->threads.items[i];
        untold_ns += pyprof_untold_gil_ns(thread, wall_ns);
        pyprof_charge_sample(thread, timer->window, wall_ns, timer->pending_ticks);
    }
    if (timer->options.gil && timer->gil_wait_obstacle == NULL) {
        pyprof_count(&timer->stats.untold_gil_ns, (uint64_t)untold_ns);
    }
}

/* `current_frames` alone knows of no other interpreter. */
static uint64_t mark_threads(pyprof_timer *timer) {
    return timer->gilfree_obstacle == NULL ? pyprof_thread_lists_mark(timer->interp, &timer->threads)
                                           : (uintptr_t)pyprof_newest_thread(timer->interp);
}

/* Deadlines that come so shortly after another one are met one after the other. */
enum { SOON_AFTER_NS = 100000 };

static void tick(pyprof_timer *timer, int64_t now) {
    const int64_t due = timer->deadline_ns;
    timer->late_ns = now - due;
    pass_deadlines(timer, due > now - SOON_AFTER_NS ? due : now - SOON_AFTER_NS, false);
    uint64_t mark = mark_threads(timer);
    const void *gil_holder = pyprof_threads_gil_holder(&timer->threads, timer->interp);
    bool changed = pyprof_threads_read_clocks(&timer->threads, gil_holder) || mark != timer->thread_mark;
    const pyprof_doubt doubt = pyprof_threads_doubt(&timer->threads, gil_holder, next_random(timer));
    if (doubt != PYPROF_NO_DOUBT && !pyprof_threads_ask_who_was_preempted(&timer->threads) &&
        doubt == PYPROF_NOBODY_PRESUMED) {
        bool punctual = pyprof_nap();
        timer->late_ns = pyprof_monotonic_ns() - due;
        mark = mark_threads(timer);
        gil_holder = pyprof_threads_gil_holder(&timer->threads, timer->interp);
        pyprof_threads_read_clocks_again(&timer->threads, gil_holder, punctual);
    }
    pyprof_threads_share_cpus(&timer->threads);
    pyprof_threads_weigh(&timer->threads, gil_holder, next_random(timer));
    const void *told_holder = look_at_gil(timer, gil_holder);
    if (timer->window == NULL) {
        begin_window(timer, now); /* there was no memory for it */
    }
    if (changed) {
        now = look(timer, now, gil_holder);
        if (now == 0) {
            pyprof_count(&timer->stats.discarded, 1);
            count_missed(timer, 1);
            return; /* the next sample carries this tick's weight */
        }
        timer->thread_mark = timer->snapshot.has_starting ? 0 : mark;
        if (timer->threads.count == 0) {
            __atomic_store_n(&timer->abandoned, true, __ATOMIC_RELEASE);
        }
    }
    int64_t wall_ns = now - timer->last_tick_ns;
    if (timer->options.gil) {
        pyprof_gil_waits_settle(&timer->threads, told_holder);
    }
    charge_threads(timer, wall_ns);
    learn_gap(timer, wall_ns);
    pyprof_window_get_info(timer->window)->ticks++;
    __atomic_store_n(&timer->stats.threads, timer->threads.count, __ATOMIC_RELAXED);
    timer->last_tick_ns = now;
    timer->pending_ticks = 0;
}

/* -- how often -- */

static pyprof_usage read_usage(const pyprof_timer *timer, int64_t now) {
    const int64_t by_timer = pyprof_thread_cpu_ns(pyprof_own_tid());
    return (pyprof_usage){
        .now_ns = now,
        .sampling_ns = by_timer + pyprof_own_threads_borrowed_cpu_ns(),
        .own_ns = pyprof_own_threads_cpu_ns(),
        .ticks = timer->stats.ticks,
    };
}

/* Everything that goes by the length of a gap. */
static void apply_period(pyprof_timer *timer) {
    timer->threads.patience_ns = timer->governor.period_ns / 2;
    __atomic_store_n(&timer->stats.period_ns, (uint64_t)timer->governor.period_ns, __ATOMIC_RELAXED);
}

/* After a tick, and for the gap after it as well: so that a gap is drawn from one distribution, the one which
 * what happens at its end reckons with. */
static void govern(pyprof_timer *timer) {
    const int64_t now = pyprof_monotonic_ns();
    if (!pyprof_governor_is_due(&timer->governor, now)) {
        return;
    }
    const pyprof_usage usage = read_usage(timer, now);
    if (pyprof_governor_review(&timer->governor, &usage)) {
        apply_period(timer);
        pyprof_count(&timer->stats.rate_changes, 1);
        timer->deadline_ns = now + next_gap(timer);
    }
}

/* -- from the first tick to the last -- */

/* A timer that wakes about as long after its deadline as it usually does has preempted whoever ran, or found
 * its CPU idle; one that wakes much later has waited until another thread made way. */
enum { FIRST_USUAL_NS = 20000, USUAL_STEP_NS = 500, LATE_FACTOR = 3, MOST_PUT_OFF = 10 };

static bool is_late(pyprof_timer *timer, int64_t late_ns) {
    const int64_t usual = timer->usual_late_ns; /* follows the median */
    timer->usual_late_ns += late_ns > usual ? USUAL_STEP_NS : -USUAL_STEP_NS;
    return late_ns > LATE_FACTOR * usual;
}

void pyprof_timer_thread_prepare(pyprof_timer *timer) {
    pyprof_governor_init(&timer->governor, timer->options.period_ns, timer->options.max_overhead);
    apply_period(timer);
    timer->last_tick_ns = pyprof_monotonic_ns();
    timer->deadline_ns = timer->last_tick_ns + next_gap(timer);
    timer->usual_late_ns = FIRST_USUAL_NS;
    timer->gap_stretch = 1;
    timer->last_left_out = 0;
    begin_window(timer, timer->last_tick_ns);
}

/* A tick that came due while this thread did not have the CPU has lost its random moment: it would find the
 * application where that made way, in a system call or going to sleep. So the next one carries its weight;
 * but not for ever, if the machine is that busy. */
static bool put_off(pyprof_timer *timer, int64_t now, int64_t free_since) {
    const bool late = timer->deadline_ns > free_since && is_late(timer, now - timer->deadline_ns);
    timer->put_off = late && timer->put_off < MOST_PUT_OFF ? timer->put_off + 1 : 0;
    if (timer->put_off > 0) {
        pass_deadlines(timer, now, true);
    }
    return timer->put_off > 0;
}

/* -- memory -- */

enum { LOOK_AT_SIZE_NS = 100000000 };

/* Timers come and go, the process is what it is. Of one timer at a time. */
static bool has_been_half_way; /* or the process that this one was forked from */
static bool is_short;          /* it was too large when that was last looked at */

void pyprof_timer_thread_reset_child(void) { is_short = false; }

typedef enum { MEMORY_IS_AS_IT_WAS, MEMORY_IS_HALF_WAY, MEMORY_IS_SHORT } memory_change;

/* Whether the process has come close to its limit of memory since the last look, which is not long ago where
 * nothing tells that it has grown; or half-way for the first time: what is delivered then loads what a later
 * alarm has no time to load. */
static memory_change look_at_size(pyprof_timer *timer, int64_t now) {
    const bool grew = __atomic_exchange_n(&timer->memory_grew, false, __ATOMIC_ACQ_REL);
    if (now < timer->next_size_ns && !grew) {
        return MEMORY_IS_AS_IT_WAS;
    }
    timer->next_size_ns = now + LOOK_AT_SIZE_NS;
    if (!pyprof_memory_limit_is_set()) {
        return MEMORY_IS_AS_IT_WAS;
    }
    const pyprof_memory_room room = pyprof_memory_room_left();
    const bool was_short = is_short;
    is_short = room == PYPROF_BEYOND_LIMIT || (was_short && room == PYPROF_NEAR_LIMIT);
    const bool half_way = room >= PYPROF_HALF_WAY_TO_LIMIT && !has_been_half_way;
    has_been_half_way |= half_way;
    return is_short && !was_short ? MEMORY_IS_SHORT : half_way ? MEMORY_IS_HALF_WAY : MEMORY_IS_AS_IT_WAS;
}

static void run_until_stopped(pyprof_timer *timer) {
    int64_t window_end = timer->window_start_ns + timer->options.window_ns;
    const pyprof_usage usage = read_usage(timer, pyprof_monotonic_ns());
    pyprof_governor_begin(&timer->governor, &usage);
    int64_t free_since = 0; /* from the ticks before */
    for (;;) {
        uint32_t commands = __atomic_load_n(&timer->commands, __ATOMIC_ACQUIRE);
        if (__atomic_load_n(&timer->stop_wanted, __ATOMIC_ACQUIRE) || timer->abandoned ||
            pyprof_is_finalizing()) {
            return;
        }
        int64_t now = pyprof_monotonic_ns();
        const bool last = pyprof_sigterm_wants_window();
        const memory_change memory = look_at_size(timer, now);
        if (__atomic_exchange_n(&timer->rotate_wanted, false, __ATOMIC_ACQ_REL) || last ||
            memory != MEMORY_IS_AS_IT_WAS || now >= window_end) {
            if (timer->window != NULL) {
                pyprof_window_get_info(timer->window)->memory_is_short = memory == MEMORY_IS_SHORT;
            }
            finish_window(timer, now);
            window_end = now + timer->options.window_ns;
            __atomic_add_fetch(&timer->rotations, 1, __ATOMIC_RELEASE);
            pyprof_futex_wake(&timer->rotations);
        }
        if (last) {
            pyprof_sigterm_has_window();
            pyprof_ring_wake();
        }
        if (now < timer->deadline_ns) {
            int64_t next = timer->deadline_ns < window_end ? timer->deadline_ns : window_end;
            if (next > now + LOOK_AT_SIZE_NS && pyprof_memory_limit_is_set()) {
                next = now + LOOK_AT_SIZE_NS;
            }
            pyprof_futex_wait(&timer->commands, commands, next);
        } else if (!put_off(timer, now, free_since)) {
            tick(timer, now);
            govern(timer);
            free_since = pyprof_monotonic_ns();
        }
    }
}

/* What the threads have used since the last tick belongs to the stacks they had then. */
static void settle_everything(pyprof_timer *timer, int64_t now) {
    if (timer->window == NULL) {
        return;
    }
    pyprof_threads_read_clocks(&timer->threads, NULL);
    for (size_t i = 0; i < timer->threads.count; i++) {
        pyprof_thread *thread = &timer->threads.items[i];
        pyprof_charge_rest(thread, timer->window, now - timer->last_tick_ns + thread->owed_wall_ns);
    }
    timer->last_tick_ns = now;
}

void pyprof_timer_thread_finish(pyprof_timer *timer) {
    int64_t now = pyprof_monotonic_ns();
    settle_everything(timer, now);
    finish_window(timer, now);
}

void pyprof_timer_thread_run(void *argument) {
    pyprof_timer *timer = argument;
    pyprof_wake_promptly();
    if (pyprof_own_thread_unshares_descriptors()) {
        pyprof_proc_begin();
        pyprof_read_memory_begin();
    }
    note_how_it_reads(timer);
    timer->kept = timer->keeps_thread_state ? pyprof_current_frames_keep(timer->interp) : NULL;
    pyprof_own_thread_is_attachable();
    run_until_stopped(timer);
    if (!timer->paused) {
        pyprof_timer_thread_finish(timer);
        pyprof_ring_wake();
    }
    pyprof_current_frames_drop(timer->kept);
    pyprof_read_memory_end();
    __atomic_store_n(&timer->reading, 0, __ATOMIC_RELAXED);
}

#endif
