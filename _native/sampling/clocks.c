/* See clocks.h. */
#ifndef PYPROF_PORTABLE
#define _GNU_SOURCE
#include "sampling/clocks.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { NS_PER_S = 1000000000 };

static int64_t read_clock(clockid_t id) {
    struct timespec now;
    if (clock_gettime(id, &now) != 0) {
        return -1;
    }
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

int64_t pyprof_monotonic_ns(void) { return read_clock(CLOCK_MONOTONIC); }

int64_t pyprof_unix_ns(void) { return read_clock(CLOCK_REALTIME); }

size_t pyprof_cpu_count(void) {
    cpu_set_t cpus;
    const long count =
        sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (size_t)count : 1;
}

int64_t pyprof_thread_cpu_ns(uint64_t tid) {
    /* The kernel's encoding of "scheduler clock of this one thread"; pthread_getcpuclockid makes the same. */
    return read_clock((clockid_t)((~(uint32_t)tid << 3) | 6));
}

bool pyprof_thread_is_on_cpu(uint64_t tid) {
    int64_t clock = pyprof_thread_cpu_ns(tid);
    return pyprof_thread_cpu_ns(tid) > clock;
}

bool pyprof_thread_exists(uint64_t tid) { return syscall(SYS_tgkill, getpid(), (pid_t)tid, 0) == 0; }

uint64_t pyprof_own_tid(void) { return (uint64_t)syscall(SYS_gettid); }

/* The kernel's struct sched_attr in its first version; glibc has had one since 2.41 only. */
struct scheduling {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns, deadline_ns, period_ns;
};

enum { SHORTEST_SLICE_NS = 100000 };

void pyprof_wake_promptly(void) {
    prctl(PR_SET_TIMERSLACK, 1);
    /* Since Linux 6.12 a thread may ask for a short time slice, and by that for its turn before those that
     * have longer ones; what it gets in all stays the same. Older kernels pay no attention. */
    struct scheduling own;
    if (syscall(SYS_sched_getattr, 0, &own, sizeof(own), 0) == 0 && own.policy == SCHED_OTHER) {
        own.runtime_ns = SHORTEST_SLICE_NS;
        syscall(SYS_sched_setattr, 0, &own, 0);
    }
}

void pyprof_futex_wait(uint32_t *word, uint32_t expected, int64_t deadline_ns) {
    struct timespec deadline = {(time_t)(deadline_ns / NS_PER_S), (long)(deadline_ns % NS_PER_S)};
    /* The bitset form takes an absolute time on the monotonic clock. */
    syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected, &deadline, NULL,
            FUTEX_BITSET_MATCH_ANY);
}

void pyprof_futex_wake(uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT32_MAX, NULL, NULL, 0);
}

#endif
