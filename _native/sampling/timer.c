/* See timer.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/timer.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpython/gil.h"
#include "cpython/interpreter.h"
#include "cpython/live_stacks.h"
#include "sampling/charge.h"
#include "sampling/clocks.h"
#include "sampling/current_frames.h"
#include "sampling/gilfree.h"
#include "sampling/own_threads.h"
#include "sampling/snapshot.h"
#include "sampling/threads.h"
#include "symbols/code_cache.h"
#include "windows/ring.h"
#include "windows/window.h"

enum { TIMER_STACK_BYTES = 256 * 1024 };

static struct {
    /* Immutable while the thread runs. */
    pyprof_timer_options options;
    PyInterpreterState *interp;
    pyprof_own_thread *thread; /* NULL: not running */
    const char *walk_obstacle, *gilfree_obstacle;

    /* Written by others, read by the thread. */
    uint32_t commands;               /* atomic, futex: goes up with every wish */
    bool stop_wanted, rotate_wanted; /* atomic */
    bool paused; /* set before the thread is told to stop; then it leaves everything as it is */

    /* Written by the thread, read by others. */
    uint32_t rotations;       /* atomic, futex */
    bool abandoned;           /* atomic */
    pyprof_timer_stats stats; /* each field atomic */

    /* The thread's own. */
    PyThreadState *own;
    pyprof_threads threads;
    pyprof_snapshot snapshot;
    pyprof_window *window;
    pyprof_frame native_frame; /* stands for a thread that runs no Python code */
    uint64_t random;
    int64_t last_tick_ns; /* monotonic: up to here wall time is in a window */
    int64_t deadline_ns;  /* of the next tick */
    int64_t window_start_ns;
    int64_t window_start_unix_ns;
    const void *newest_thread;
    uint64_t pending_ticks; /* since the last sample */
    bool puts_off;          /* the last tick that was due was left to the next */
} timer;

static void count(uint64_t *counter, uint64_t n) { __atomic_add_fetch(counter, n, __ATOMIC_RELAXED); }

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t next_random(void) {
    uint64_t z = timer.random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static int64_t next_gap(void) {
    int64_t period = timer.options.period_ns;
    return period / 2 + (int64_t)(next_random() % (uint64_t)(period + 1));
}

/* -- the window -- */

static void begin_window(int64_t now) {
    timer.window = pyprof_window_new(timer.options.window_bytes);
    timer.window_start_ns = now;
    timer.window_start_unix_ns = pyprof_unix_ns();
    pyprof_threads_forget_stacks(&timer.threads);
}

static void finish_window(int64_t now) {
    if (timer.window != NULL) {
        uint64_t unplaced = 0;
        for (size_t i = 0; i < timer.threads.count; i++) {
            unplaced += (uint64_t)pyprof_charge_rest(&timer.threads.items[i], timer.window, 0);
        }
        count(&timer.stats.unplaced_cpu_ns, unplaced);
        pyprof_window_info *info = pyprof_window_get_info(timer.window);
        info->start_ns = timer.window_start_unix_ns;
        info->duration_ns = now - timer.window_start_ns;
        info->period_ns = timer.options.period_ns;
        info->unplaced_cpu_ns = unplaced;
        count(&timer.stats.overflowed, info->overflowed);
        count(&timer.stats.windows, 1);
        pyprof_ring_push(timer.window);
        timer.window = NULL;
    }
    begin_window(now);
}

static void count_missed(uint64_t ticks) {
    count(&timer.stats.missed, ticks);
    if (timer.window != NULL) {
        pyprof_window_get_info(timer.window)->missed += ticks;
    }
}

/* -- one tick -- */

/* The threads of the snapshot become the known ones; the CPU time of those that are gone is settled. `share`:
 * how much of the time between the reading of the clocks and the snapshot this tick may place. */
static bool merge_snapshot(int64_t wall_ns, double share, const void *gil_holder) {
    const pyprof_snapshot *snapshot = &timer.snapshot;
    pyprof_threads *known = &timer.threads;
    pyprof_thread *items = malloc((snapshot->thread_count + 1) * sizeof(*items));
    if (items == NULL) {
        return false;
    }
    for (size_t i = 0; i < snapshot->thread_count; i++) {
        const pyprof_thread_view *view = &snapshot->threads[i];
        size_t old = pyprof_threads_find(known, &view->key, i);
        if (old < known->count) {
            items[i] = known->items[old];
            known->items[old].key.tstate = NULL; /* taken over */
            items[i].on_cpu &= !view->moved_on;
            if (view->clock_ns > items[i].clock_ns) {
                int64_t meanwhile = view->clock_ns - items[i].clock_ns;
                items[i].certain_ns = (int64_t)(share * (double)meanwhile);
                items[i].placeable_ns += items[i].certain_ns;
                items[i].clock_ns = view->clock_ns;
            }
        } else {
            bool on_cpu = view->on_cpu || view->key.tstate == gil_holder;
            /* Where the world was stopped, those who have only just gone on were running before. */
            on_cpu = on_cpu || (snapshot->stopped_world && pyprof_thread_is_runnable(view->key.tid));
            items[i] = pyprof_new_thread(&view->key, wall_ns, on_cpu);
        }
        if (view->walked) {
            items[i].in_python = view->depth > 0;
            items[i].stack = items[i].in_python
                                 ? pyprof_window_intern(timer.window, snapshot->frames + view->first_frame,
                                                        view->depth, view->truncated)
                                 : pyprof_window_intern(timer.window, &timer.native_frame, 1, false);
            items[i].stack_is_current = true;
            count(&timer.stats.stacks, 1);
        }
    }
    for (size_t i = 0; i < known->count; i++) {
        if (known->items[i].key.tstate != NULL) {
            count(&timer.stats.unplaced_cpu_ns,
                  (uint64_t)pyprof_charge_ended(&known->items[i], timer.window));
        }
    }
    free(known->items);
    known->items = items;
    known->count = known->capacity = snapshot->thread_count;
    return true;
}

/* Deadlines that have passed by `now` count as ticks; all but the first were missed. The last of them, or 0.
 */
static int64_t pass_deadlines(int64_t now, bool first_is_missed) {
    int64_t last = 0;
    uint64_t passed = 0;
    for (; timer.deadline_ns <= now; timer.deadline_ns += next_gap()) {
        last = timer.deadline_ns;
        passed++;
    }
    timer.pending_ticks += passed;
    count(&timer.stats.ticks, passed);
    count_missed(passed - (passed > 0 && !first_is_missed));
    return last;
}

static bool take_snapshot(const pyprof_snapshot_request *request) {
    if (timer.gilfree_obstacle != NULL) {
        return pyprof_current_frames_take(request, timer.own);
    }
    pyprof_gilfree_losses losses = {0};
    bool taken = pyprof_gilfree_take(request, &losses);
    count(&timer.stats.unverified, losses.unverified);
    count(&timer.stats.torn, losses.torn);
    if (!taken) {
        count(&timer.stats.fallbacks, 1);
        taken = pyprof_current_frames_take(request, timer.own);
    }
    return taken;
}

/* A snapshot, merged into what is known of the threads. Returns up to when it speaks for them, or 0: not at
 * this tick.
 *
 * While a C call keeps the GIL, ticks come due; all of them would have found that call. So a late snapshot
 * stands for them too, and what is after the last of them is left to the next sample: weighing it all here
 * would favour long calls over short ones. */
static int64_t look(int64_t now, const void *gil_holder) {
    const pyprof_snapshot_request request = {
        .interp = timer.interp,
        .max_frames = timer.options.max_frames,
        .raw_walk = timer.walk_obstacle == NULL,
        .snapshot = &timer.snapshot,
        .known = &timer.threads,
        .asked_ns = pyprof_monotonic_ns(),
        .gil_holder = gil_holder,
    };
    if (timer.window == NULL || !take_snapshot(&request)) {
        return 0;
    }
    const int64_t asked = request.asked_ns, taken = timer.snapshot.taken_ns;
    int64_t last = pass_deadlines(taken, true);
    int64_t until = last > now ? last : now;
    double share = until > asked && taken > asked ? (double)(until - asked) / (double)(taken - asked) : 0;
    return merge_snapshot(until - timer.last_tick_ns, share, gil_holder) ? until : 0;
}

static void tick(int64_t now) {
    pass_deadlines(now, false);
    const void *gil_holder = pyprof_gil_holder(timer.interp);
    const void *newest = pyprof_newest_thread(timer.interp);
    bool changed = pyprof_threads_read_clocks(&timer.threads, gil_holder) || newest != timer.newest_thread;
    if (timer.window == NULL) {
        begin_window(now); /* there was no memory for it */
    }
    if (changed) {
        now = look(now, gil_holder);
        if (now == 0) {
            count_missed(1);
            return; /* the next sample carries this tick's weight */
        }
        timer.newest_thread = timer.snapshot.has_starting ? NULL : newest; /* NULL: look again */
        if (timer.threads.count == 0) {
            __atomic_store_n(&timer.abandoned, true, __ATOMIC_RELEASE);
        }
    }
    int64_t wall_ns = now - timer.last_tick_ns;
    for (size_t i = 0; i < timer.threads.count; i++) {
        pyprof_thread *thread = &timer.threads.items[i];
        if (thread->in_python || thread->on_cpu) { /* a thread of C code that waits is none of ours */
            pyprof_charge_sample(thread, timer.window, wall_ns, timer.pending_ticks);
        }
    }
    pyprof_window_get_info(timer.window)->ticks++;
    __atomic_store_n(&timer.stats.threads, timer.threads.count, __ATOMIC_RELAXED);
    timer.last_tick_ns = now;
    timer.pending_ticks = 0;
}

/* -- the thread -- */

enum { LATE_NS = 300000 };

/* A tick that came due while this thread did not have the CPU has lost its random moment: it would find the
 * application where that made way, in a system call or going to sleep. So the next one carries its weight;
 * but not for ever, if the machine is that busy. */
static bool put_off(int64_t now) {
    bool late = now - timer.deadline_ns > LATE_NS;
    timer.puts_off = late && !timer.puts_off;
    if (timer.puts_off) {
        pass_deadlines(now, true);
    }
    return timer.puts_off;
}

static void run_until_stopped(void) {
    int64_t window_end = timer.window_start_ns + timer.options.window_ns;
    for (;;) {
        uint32_t commands = __atomic_load_n(&timer.commands, __ATOMIC_ACQUIRE);
        if (__atomic_load_n(&timer.stop_wanted, __ATOMIC_ACQUIRE) || timer.abandoned ||
            pyprof_is_finalizing()) {
            return;
        }
        int64_t now = pyprof_monotonic_ns();
        if (__atomic_exchange_n(&timer.rotate_wanted, false, __ATOMIC_ACQ_REL) || now >= window_end) {
            finish_window(now);
            window_end = now + timer.options.window_ns;
            __atomic_add_fetch(&timer.rotations, 1, __ATOMIC_RELEASE);
            pyprof_futex_wake(&timer.rotations);
        }
        if (now < timer.deadline_ns) {
            pyprof_futex_wait(&timer.commands, commands, timer.deadline_ns);
        } else if (!put_off(now)) {
            tick(now);
        }
    }
}

/* What the threads have used since the last tick belongs to the stacks they had then. */
static void settle_everything(int64_t now) {
    if (timer.window == NULL) {
        return;
    }
    pyprof_threads_read_clocks(&timer.threads, NULL);
    for (size_t i = 0; i < timer.threads.count; i++) {
        pyprof_charge_rest(&timer.threads.items[i], timer.window, now - timer.last_tick_ns);
    }
    timer.last_tick_ns = now;
}

static void end_everything(void) {
    int64_t now = pyprof_monotonic_ns();
    settle_everything(now);
    finish_window(now);
}

static void timer_main(void *unused) {
    (void)unused;
    pyprof_wake_promptly();
    timer.own = pyprof_current_frames_attachable(timer.interp);
    pyprof_own_thread_is_attachable();
    if (timer.own != NULL) {
        run_until_stopped();
        if (!timer.paused) {
            end_everything();
            pyprof_ring_wake();
        }
        pyprof_current_frames_end(timer.own);
    }
}

/* -- start, stop, fork -- */

static void reset_child(void) {
    pyprof_own_threads_reset_child();
    pyprof_current_frames_reset_child();
    pyprof_gilfree_reset_child();
    pyprof_ring_reset_child();
    pyprof_timer_reset_child();
}

static void release_everything(void) {
    pyprof_stop_the_world(timer.interp); /* another thread could be reporting a death */
    pyprof_code_cache_close();
    pyprof_start_the_world(timer.interp);
    pyprof_threads_close(&timer.threads);
    pyprof_gilfree_close();
    pyprof_snapshot_free(&timer.snapshot);
    if (timer.window != NULL) {
        pyprof_window_free(timer.window);
        timer.window = NULL;
    }
    if (timer.native_frame.symbol != NULL) {
        pyprof_symbol_release(timer.native_frame.symbol);
        timer.native_frame.symbol = NULL;
    }
}

static bool start_thread(void) {
    timer.thread = pyprof_own_thread_start(timer_main, NULL, "pyprof-timer", TIMER_STACK_BYTES);
    if (timer.thread == NULL) {
        return false;
    }
    pyprof_own_thread_wait_attachable(timer.thread);
    return true;
}

int pyprof_timer_start(const pyprof_timer_options *options) {
    static bool watches_forks;
    if (timer.thread != NULL || timer.paused) {
        PyErr_SetString(PyExc_RuntimeError, "the timer thread is already running");
        return -1;
    }
    if (!watches_forks) {
        /* A fork made by C code runs no hook of Python's. */
        watches_forks = pthread_atfork(NULL, NULL, reset_child) == 0;
    }
    const pyprof_timer_stats stats = timer.stats; /* counters go on over a restart */
    memset(&timer, 0, sizeof(timer));
    timer.stats = stats;
    timer.options = *options;
    timer.interp = PyInterpreterState_Get();
    timer.walk_obstacle = options->raw_walk ? pyprof_raw_walk_obstacle() : "turned off";
    pyprof_trust_layout(timer.walk_obstacle == NULL);
    timer.gilfree_obstacle = !options->gilfree             ? "turned off"
                             : timer.walk_obstacle != NULL ? timer.walk_obstacle
                                                           : pyprof_live_stacks_obstacle();
    pyprof_gil_open(timer.interp);
    timer.random = (uint64_t)pyprof_monotonic_ns() ^ (uint64_t)getpid() << 32 ^ (uintptr_t)&options;
    if (pyprof_code_cache_open() < 0) {
        PyErr_SetString(PyExc_RuntimeError, "the interpreter does not tell when code objects are freed");
        return -1;
    }
    timer.native_frame.symbol = pyprof_symbol_new("[native]", strlen("[native]"), "", 0, 0, NULL, 0);
    bool trust_clocks = pyprof_clocks_are_fine_grained();
    pyprof_stop_the_world(timer.interp); /* thread states must stay while they are listed */
    bool listed = pyprof_threads_open(&timer.threads, timer.interp, trust_clocks);
    pyprof_start_the_world(timer.interp);
    timer.threads.patience_ns = options->period_ns / 2;
    if (!listed || timer.native_frame.symbol == NULL) {
        release_everything();
        PyErr_NoMemory();
        return -1;
    }
    timer.stats.trusted_clocks = trust_clocks;
    pyprof_ring_set_capacity(options->ring_windows);
    timer.last_tick_ns = pyprof_monotonic_ns();
    timer.deadline_ns = timer.last_tick_ns + next_gap();
    begin_window(timer.last_tick_ns);
    if (!start_thread()) {
        release_everything();
        PyErr_SetString(PyExc_RuntimeError, "no thread could be started for the timer");
        return -1;
    }
    return 0;
}

static void command(bool *wish) {
    __atomic_store_n(wish, true, __ATOMIC_RELEASE);
    __atomic_add_fetch(&timer.commands, 1, __ATOMIC_RELEASE);
    pyprof_futex_wake(&timer.commands);
}

static void end_thread(void) {
    command(&timer.stop_wanted);
    Py_BEGIN_ALLOW_THREADS pyprof_own_thread_join(timer.thread, INT64_MAX);
    Py_END_ALLOW_THREADS timer.thread = NULL;
}

void pyprof_timer_stop(void) {
    if (timer.thread != NULL) {
        end_thread();
    } else if (timer.paused) {
        timer.paused = false;
        end_everything();
    } else {
        return;
    }
    release_everything();
}

void pyprof_timer_pause(void) {
    if (timer.thread != NULL) {
        timer.paused = true;
        end_thread();
    }
}

int pyprof_timer_resume(void) {
    if (!timer.paused) {
        return 0;
    }
    timer.paused = timer.stop_wanted = false;
    if (!start_thread()) {
        end_everything();
        release_everything();
        PyErr_SetString(PyExc_RuntimeError, "no thread could be started for the timer");
        return -1;
    }
    return 0;
}

bool pyprof_timer_rotate(int64_t timeout_ns) {
    if (timer.thread == NULL) {
        return false;
    }
    uint32_t before = __atomic_load_n(&timer.rotations, __ATOMIC_ACQUIRE);
    int64_t deadline = pyprof_monotonic_ns() + timeout_ns;
    bool rotated = false;
    command(&timer.rotate_wanted);
    Py_BEGIN_ALLOW_THREADS while (
        !(rotated = __atomic_load_n(&timer.rotations, __ATOMIC_ACQUIRE) != before) &&
        pyprof_monotonic_ns() < deadline) {
        pyprof_futex_wait(&timer.rotations, before, deadline);
    }
    Py_END_ALLOW_THREADS return rotated;
}

bool pyprof_timer_is_abandoned(void) { return __atomic_load_n(&timer.abandoned, __ATOMIC_ACQUIRE); }

const char *pyprof_timer_gilfree_obstacle(void) {
    if (timer.thread != NULL) {
        return timer.gilfree_obstacle; /* the proof would change what the timer works with */
    }
    const char *obstacle = pyprof_raw_walk_obstacle();
    return obstacle != NULL ? obstacle : pyprof_live_stacks_obstacle();
}

void pyprof_timer_get_stats(pyprof_timer_stats *stats) {
    uint64_t *const from[] = {
        &timer.stats.ticks,      &timer.stats.missed,    &timer.stats.stacks,  &timer.stats.unplaced_cpu_ns,
        &timer.stats.overflowed, &timer.stats.windows,   &timer.stats.threads, &timer.stats.unverified,
        &timer.stats.torn,       &timer.stats.fallbacks,
    };
    uint64_t *const to[] = {
        &stats->ticks,      &stats->missed,    &stats->stacks,  &stats->unplaced_cpu_ns,
        &stats->overflowed, &stats->windows,   &stats->threads, &stats->unverified,
        &stats->torn,       &stats->fallbacks,
    };
    for (size_t i = 0; i < sizeof(from) / sizeof(from[0]); i++) {
        *to[i] = __atomic_load_n(from[i], __ATOMIC_RELAXED);
    }
    stats->dropped_windows = pyprof_ring_dropped();
    stats->own_cpu_ns = (uint64_t)pyprof_own_threads_cpu_ns();
    stats->bytes = pyprof_code_cache_bytes() + pyprof_gilfree_bytes() + pyprof_ring_bytes();
    stats->walk_obstacle = timer.walk_obstacle;
    stats->gilfree_obstacle = timer.gilfree_obstacle;
    stats->engine = timer.interp == NULL             ? NULL
                    : timer.gilfree_obstacle == NULL ? "gilfree"
                                                     : "current_frames";
    stats->trusted_clocks = timer.stats.trusted_clocks;
}

void pyprof_timer_reset_child(void) {
    /* The window, the threads and the snapshot may be half written: whoever wrote them does not exist here.
     * The code cache is whole, since it is only written with the GIL, which the forking thread had. */
    memset(&timer, 0, sizeof(timer));
}

#endif
