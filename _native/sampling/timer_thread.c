/* See timer_thread.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/timer_thread.h"

#include <stdlib.h>

#include "cpython/gil.h"
#include "cpython/guarded_read.h"
#include "cpython/interpreter.h"
#include "sampling/charge.h"
#include "sampling/clocks.h"
#include "sampling/current_frames.h"
#include "sampling/gilfree.h"
#include "sampling/proc.h"
#include "sampling/sigterm.h"
#include "windows/ring.h"

static void count(uint64_t *counter, uint64_t n) { __atomic_add_fetch(counter, n, __ATOMIC_RELAXED); }

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t next_random(pyprof_timer *timer) {
    uint64_t z = timer->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Where a tick is what makes the kernel go on with another thread, that begins then, often with a phase of
 * its own; what takes less than the shortest gap would hardly ever be seen. */
enum { SHORTEST_GAP = 1, LONGEST_GAP = 19 }; /* tenths of the period */

static int64_t next_gap(pyprof_timer *timer) {
    const int64_t shortest = timer->options.period_ns * SHORTEST_GAP / 10;
    const int64_t longest = timer->options.period_ns * LONGEST_GAP / 10;
    return shortest + (int64_t)(next_random(timer) % (uint64_t)(longest - shortest + 1));
}

/* Some ticks are put off, so gaps are longer on average than they were meant to be. */
enum { GAPS_TO_AVERAGE = 256 };

static void learn_gap(pyprof_timer *timer, int64_t gap_ns) {
    timer->mean_gap_ns += (gap_ns - timer->mean_gap_ns) / GAPS_TO_AVERAGE;
}

/* -- the window -- */

static void begin_window(pyprof_timer *timer, int64_t now) {
    timer->window = pyprof_window_new(timer->options.window_bytes);
    timer->window_start_ns = now;
    timer->window_start_unix_ns = pyprof_unix_ns();
    pyprof_threads_forget_stacks(&timer->threads);
}

static void finish_window(pyprof_timer *timer, int64_t now) {
    if (timer->window != NULL) {
        uint64_t unplaced = 0;
        for (size_t i = 0; i < timer->threads.count; i++) {
            unplaced += (uint64_t)pyprof_charge_rest(&timer->threads.items[i], timer->window, 0);
        }
        count(&timer->stats.unplaced_cpu_ns, unplaced);
        pyprof_window_info *info = pyprof_window_get_info(timer->window);
        info->start_ns = timer->window_start_unix_ns;
        info->duration_ns = now - timer->window_start_ns;
        info->period_ns = timer->options.period_ns;
        info->unplaced_cpu_ns = unplaced;
        count(&timer->stats.overflowed, info->overflowed);
        count(&timer->stats.windows, 1);
        pyprof_ring_push(timer->window);
        timer->window = NULL;
    }
    begin_window(timer, now);
}

static void count_missed(pyprof_timer *timer, uint64_t ticks) {
    count(&timer->stats.missed, ticks);
    if (timer->window != NULL) {
        pyprof_window_get_info(timer->window)->missed += ticks;
    }
}

/* -- one tick -- */

/* The threads of the snapshot become the known ones; the CPU time of those that are gone is settled. `share`:
 * how much of the time between the reading of the clocks and the snapshot this tick may place. */
static bool merge_snapshot(pyprof_timer *timer, int64_t wall_ns, double share) {
    const pyprof_snapshot *snapshot = &timer->snapshot;
    pyprof_threads *known = &timer->threads;
    pyprof_thread *items = malloc((snapshot->thread_count + 1) * sizeof(*items));
    if (items == NULL) {
        return false;
    }
    size_t kept = 0;
    uint64_t left_out = timer->last_left_out;
    for (size_t i = 0; i < snapshot->thread_count; i++) {
        const pyprof_thread_view *view = &snapshot->threads[i];
        pyprof_thread *item = &items[kept];
        size_t old = pyprof_threads_find(known, &view->key, i);
        if (old < known->count) {
            *item = known->items[old];
            known->items[old].key.tstate = NULL; /* taken over */
            item->on_cpu &= !view->moved_on;
            if (view->clock_ns > item->clock_ns) {
                int64_t meanwhile = view->clock_ns - item->clock_ns;
                item->certain_ns = (int64_t)(share * (double)meanwhile);
                item->placeable_ns += item->certain_ns;
                item->clock_ns = view->clock_ns;
            }
        } else {
            *item = pyprof_new_thread(&view->key, wall_ns, view->on_cpu);
            /* It has begun since the tick was due. Ticks come later between two threads, where a nap is
             * needed, than while one works; so they would find more of a thread's beginning than there is. */
            if (item->clock_ns < timer->late_ns && view->key.unique_id > timer->last_left_out) {
                left_out = view->key.unique_id > left_out ? view->key.unique_id : left_out;
                timer->snapshot.has_starting = true;
                continue;
            }
        }
        if (view->walked) {
            item->in_python = view->depth > 0;
            item->stack = item->in_python
                              ? pyprof_window_intern(timer->window, snapshot->frames + view->first_frame,
                                                     view->depth, view->truncated)
                              : pyprof_window_intern(timer->window, &timer->native_frame, 1, false);
            item->stack_is_current = true;
            count(&timer->stats.stacks, 1);
        }
        kept++;
    }
    for (size_t i = 0; i < known->count; i++) {
        if (known->items[i].key.tstate != NULL) {
            count(&timer->stats.unplaced_cpu_ns,
                  (uint64_t)pyprof_charge_ended(&known->items[i], timer->window, wall_ns,
                                                timer->mean_gap_ns * LONGEST_GAP / 10));
        }
    }
    free(known->items);
    known->items = items;
    timer->last_left_out = left_out;
    known->count = kept;
    known->capacity = snapshot->thread_count;
    return true;
}

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
    count(&timer->stats.ticks, passed);
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
    __atomic_store_n(&timer->reading, pyprof_reads_fast() ? READS_FAST : READS_SLOWLY, __ATOMIC_RELAXED);
}

static bool take_snapshot(pyprof_timer *timer, const pyprof_snapshot_request *request) {
    if (timer->gilfree_obstacle != NULL) {
        return pyprof_current_frames_take(request, timer->own);
    }
    pyprof_gilfree_losses losses = {0};
    bool taken = pyprof_gilfree_take(request, &losses);
    count(&timer->stats.unverified, losses.unverified);
    count(&timer->stats.torn, losses.torn);
    note_how_it_reads(timer);
    if (taken) {
        timer->gilfree_failures = 0;
    } else if (may_fall_back(timer)) {
        count(&timer->stats.fallbacks, 1);
        taken = pyprof_current_frames_take(request, timer->own);
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
    };
    if (timer->window == NULL || !take_snapshot(timer, &request)) {
        return 0;
    }
    const int64_t asked = request.asked_ns, taken = timer->snapshot.taken_ns;
    int64_t last = pass_deadlines(timer, taken, true);
    int64_t until = last > now ? last : now;
    double share = until > asked && taken > asked ? (double)(until - asked) / (double)(taken - asked) : 0;
    return merge_snapshot(timer, until - timer->last_tick_ns, share) ? until : 0;
}

static void tick(pyprof_timer *timer, int64_t now) {
    const int64_t due = timer->deadline_ns;
    timer->late_ns = now - due;
    pass_deadlines(timer, now, false);
    const void *gil_holder = pyprof_threads_gil_holder(&timer->threads, timer->interp);
    const void *newest = pyprof_newest_thread(timer->interp);
    bool changed = pyprof_threads_read_clocks(&timer->threads, gil_holder) || newest != timer->newest_thread;
    const pyprof_doubt doubt = pyprof_threads_doubt(&timer->threads, gil_holder, next_random(timer));
    if (doubt != PYPROF_NO_DOUBT && !pyprof_threads_ask_who_was_preempted(&timer->threads) &&
        doubt == PYPROF_NOBODY_PRESUMED) {
        bool punctual = pyprof_nap();
        timer->late_ns = pyprof_monotonic_ns() - due;
        gil_holder = pyprof_threads_gil_holder(&timer->threads, timer->interp);
        newest = pyprof_newest_thread(timer->interp);
        pyprof_threads_read_clocks_again(&timer->threads, gil_holder, punctual);
    }
    if (timer->window == NULL) {
        begin_window(timer, now); /* there was no memory for it */
    }
    if (changed) {
        now = look(timer, now, gil_holder);
        if (now == 0) {
            count_missed(timer, 1);
            return; /* the next sample carries this tick's weight */
        }
        timer->newest_thread = timer->snapshot.has_starting ? NULL : newest; /* NULL: look again */
        if (timer->threads.count == 0) {
            __atomic_store_n(&timer->abandoned, true, __ATOMIC_RELEASE);
        }
    }
    int64_t wall_ns = now - timer->last_tick_ns;
    for (size_t i = 0; i < timer->threads.count; i++) {
        pyprof_thread *thread = &timer->threads.items[i];
        if (thread->in_python || thread->on_cpu) { /* a thread of C code that waits is none of ours */
            pyprof_charge_sample(thread, timer->window, wall_ns, timer->pending_ticks);
        }
    }
    learn_gap(timer, wall_ns);
    pyprof_window_get_info(timer->window)->ticks++;
    __atomic_store_n(&timer->stats.threads, timer->threads.count, __ATOMIC_RELAXED);
    timer->last_tick_ns = now;
    timer->pending_ticks = 0;
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
    timer->last_tick_ns = pyprof_monotonic_ns();
    timer->deadline_ns = timer->last_tick_ns + next_gap(timer);
    timer->usual_late_ns = FIRST_USUAL_NS;
    timer->mean_gap_ns = timer->options.period_ns;
    timer->last_left_out = 0;
    begin_window(timer, timer->last_tick_ns);
}

/* A tick that came due while this thread did not have the CPU has lost its random moment: it would find the
 * application where that made way, in a system call or going to sleep. So the next one carries its weight;
 * but not for ever, if the machine is that busy. */
static bool put_off(pyprof_timer *timer, int64_t now) {
    const bool late = is_late(timer, now - timer->deadline_ns);
    timer->put_off = late && timer->put_off < MOST_PUT_OFF ? timer->put_off + 1 : 0;
    if (timer->put_off > 0) {
        pass_deadlines(timer, now, true);
    }
    return timer->put_off > 0;
}

static void run_until_stopped(pyprof_timer *timer) {
    int64_t window_end = timer->window_start_ns + timer->options.window_ns;
    for (;;) {
        uint32_t commands = __atomic_load_n(&timer->commands, __ATOMIC_ACQUIRE);
        if (__atomic_load_n(&timer->stop_wanted, __ATOMIC_ACQUIRE) || timer->abandoned ||
            pyprof_is_finalizing()) {
            return;
        }
        int64_t now = pyprof_monotonic_ns();
        const bool last = pyprof_sigterm_wants_window();
        if (__atomic_exchange_n(&timer->rotate_wanted, false, __ATOMIC_ACQ_REL) || last ||
            now >= window_end) {
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
            pyprof_futex_wait(&timer->commands, commands, timer->deadline_ns);
        } else if (!put_off(timer, now)) {
            tick(timer, now);
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
        pyprof_charge_rest(&timer->threads.items[i], timer->window, now - timer->last_tick_ns);
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
    timer->own = pyprof_current_frames_attachable(timer->interp);
    pyprof_own_thread_is_attachable();
    if (timer->own != NULL) {
        run_until_stopped(timer);
        if (!timer->paused) {
            pyprof_timer_thread_finish(timer);
            pyprof_ring_wake();
        }
        pyprof_current_frames_end(timer->own);
    }
    pyprof_read_memory_end();
    __atomic_store_n(&timer->reading, 0, __ATOMIC_RELAXED);
}

#endif
