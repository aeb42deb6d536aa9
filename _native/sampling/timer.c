/* See timer.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/timer.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "cpython/callables.h"
#include "cpython/gil.h"
#include "cpython/guarded_read.h"
#include "cpython/interpreter.h"
#include "cpython/live_stacks.h"
#include "labels/label_reader.h"
#include "memory/heap.h"
#include "sampling/clocks.h"
#include "sampling/current_frames.h"
#include "sampling/gil_waits.h"
#include "sampling/gilfree.h"
#include "sampling/on_cpu.h"
#include "sampling/proc.h"
#include "sampling/sigterm.h"
#include "sampling/timer_thread.h"
#include "symbols/c_functions.h"
#include "symbols/code_cache.h"
#include "windows/ring.h"

enum { TIMER_STACK_BYTES = 256 * 1024 };

static pyprof_timer timer;

static void reset_child(void) {
    pyprof_own_threads_reset_child();
    pyprof_current_frames_reset_child();
    pyprof_gilfree_reset_child();
    pyprof_code_cache_reset_child();
    pyprof_c_functions_reset_child();
    pyprof_ring_reset_child();
    pyprof_sigterm_reset_child();
    pyprof_timer_reset_child();
}

static void release_everything(void) {
    pyprof_heap_watch_growth(NULL, 0);
    pyprof_code_cache_close();
    pyprof_c_functions_close();
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
    timer.keeps_thread_state =
        timer.gilfree_obstacle != NULL || !pyprof_thread_states_find_company(timer.interp);
    timer.thread =
        pyprof_own_thread_start(pyprof_timer_thread_run, &timer, "pyprof-timer", TIMER_STACK_BYTES);
    if (timer.thread == NULL) {
        return false;
    }
    pyprof_own_thread_wait_attachable(timer.thread);
    return true;
}

/* Inside an allocation. */
static void memory_grew(void) {
    __atomic_store_n(&timer.memory_grew, true, __ATOMIC_RELEASE);
    pyprof_timer_nudge();
}

/* Between two looks at the size of the process that go by the time, a fast program takes this much. */
#define MUCH_GROWTH_BYTES 16e6

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
    pyprof_correct_native_thread_id(pyprof_own_tid());
    timer.gilfree_obstacle = !options->gilfree             ? "turned off"
                             : timer.walk_obstacle != NULL ? timer.walk_obstacle
                                                           : pyprof_live_stacks_obstacle();
    pyprof_callables_open();
    pyprof_gil_open(timer.interp);
    timer.random = (uint64_t)pyprof_monotonic_ns() ^ (uint64_t)getpid() << 32 ^ (uintptr_t)&options;
    pyprof_code_cache_open();
    timer.native_frame.symbol = pyprof_symbol_new("[native]", strlen("[native]"), "", 0, 0, NULL, 0);
    bool trust_clocks = pyprof_clocks_are_fine_grained();
    pyprof_stop_the_world(timer.interp); /* thread states must stay while they are listed */
    bool listed = pyprof_threads_open(&timer.threads, timer.interp, trust_clocks);
    pyprof_start_the_world(timer.interp);
    timer.threads.kernel_answers = options->gil && pyprof_waiting_is_told();
    timer.gil_wait_obstacle = options->gil ? pyprof_gil_waits_obstacle(&timer.threads, timer.interp) : NULL;
    if (!listed || timer.native_frame.symbol == NULL) {
        release_everything();
        PyErr_NoMemory();
        return -1;
    }
    timer.stats.trusted_clocks = trust_clocks;
    pyprof_ring_set_capacity(options->ring_windows);
    pyprof_timer_thread_prepare(&timer);
    pyprof_heap_watch_growth(memory_grew, MUCH_GROWTH_BYTES);
    if (!start_thread()) {
        release_everything();
        PyErr_SetString(PyExc_RuntimeError, "no thread could be started for the timer");
        return -1;
    }
    return 0;
}

void pyprof_timer_nudge(void) {
    __atomic_add_fetch(&timer.commands, 1, __ATOMIC_RELEASE);
    pyprof_futex_wake(&timer.commands);
}

static void command(bool *wish) {
    __atomic_store_n(wish, true, __ATOMIC_RELEASE);
    pyprof_timer_nudge();
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
        pyprof_timer_thread_finish(&timer);
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
        pyprof_timer_thread_finish(&timer);
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
        /* The proof would change what the timer works with. */
        return __atomic_load_n(&timer.gilfree_obstacle, __ATOMIC_RELAXED);
    }
    const char *obstacle = pyprof_raw_walk_obstacle();
    return obstacle != NULL ? obstacle : pyprof_live_stacks_obstacle();
}

void pyprof_timer_get_stats(pyprof_timer_stats *stats) {
    uint64_t *const from[] = {
        &timer.stats.ticks,           &timer.stats.missed,       &timer.stats.stacks,
        &timer.stats.unplaced_cpu_ns, &timer.stats.overflowed,   &timer.stats.windows,
        &timer.stats.threads,         &timer.stats.unverified,   &timer.stats.torn,
        &timer.stats.fallbacks,       &timer.stats.rate_changes, &timer.stats.discarded,
        &timer.stats.untold_gil_ns,   &timer.stats.incomplete,
    };
    uint64_t *const to[] = {
        &stats->ticks,         &stats->missed,     &stats->stacks,       &stats->unplaced_cpu_ns,
        &stats->overflowed,    &stats->windows,    &stats->threads,      &stats->unverified,
        &stats->torn,          &stats->fallbacks,  &stats->rate_changes, &stats->discarded,
        &stats->untold_gil_ns, &stats->incomplete,
    };
    for (size_t i = 0; i < sizeof(from) / sizeof(from[0]); i++) {
        *to[i] = __atomic_load_n(from[i], __ATOMIC_RELAXED);
    }
    const bool runs = timer.thread != NULL || timer.paused;
    stats->period_ns = runs ? __atomic_load_n(&timer.stats.period_ns, __ATOMIC_RELAXED) : 0;
    stats->dropped_windows = pyprof_ring_dropped();
    stats->own_cpu_ns = (uint64_t)pyprof_own_threads_cpu_ns();
    stats->bytes = pyprof_code_cache_bytes() + pyprof_c_functions_bytes() + pyprof_gilfree_bytes() +
                   pyprof_ring_bytes() + pyprof_label_sets_bytes();
    const char *obstacle = __atomic_load_n(&timer.gilfree_obstacle, __ATOMIC_RELAXED);
    const int reading = __atomic_load_n(&timer.reading, __ATOMIC_RELAXED);
    if (reading == PYPROF_BY_MEMFD) {
        stats->bytes += PYPROF_FAST_READ_BYTES;
    }
    if (obstacle == NULL && reading != 0) {
        stats->memory_reads = reading == PYPROF_BY_MEMFD              ? "memfd"
                              : reading == PYPROF_BY_PROCESS_VM_READV ? "process_vm_readv"
                                                                      : "/proc/self/mem";
    }
    stats->walk_obstacle = timer.walk_obstacle;
    stats->gilfree_obstacle = obstacle;
    stats->label_obstacle = pyprof_label_reader_obstacle();
    stats->gil_wait_obstacle = __atomic_load_n(&timer.gil_wait_obstacle, __ATOMIC_RELAXED);
    stats->engine = timer.interp == NULL ? NULL : obstacle == NULL ? "gilfree" : "current_frames";
    stats->trusted_clocks = timer.stats.trusted_clocks;
}

void pyprof_timer_reset_child(void) {
    /* The window, the threads and the snapshot may be half written: whoever wrote them does not exist here.
     */
    memset(&timer, 0, sizeof(timer));
    pyprof_timer_thread_reset_child();
}

#endif
