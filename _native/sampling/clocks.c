/* See clocks.h. */
#ifndef PYPROF_PORTABLE
#define _GNU_SOURCE
#include "sampling/clocks.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { NS_PER_S = 1000000000, NS_PER_MS = 1000000 };

static int64_t read_clock(clockid_t id) {
    struct timespec now;
    if (clock_gettime(id, &now) != 0) {
        return -1;
    }
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

int64_t pyprof_monotonic_ns(void) { return read_clock(CLOCK_MONOTONIC); }

int64_t pyprof_unix_ns(void) { return read_clock(CLOCK_REALTIME); }

int64_t pyprof_thread_cpu_ns(uint64_t tid) {
    /* The kernel's encoding of "scheduler clock of this one thread"; pthread_getcpuclockid makes the same. */
    return read_clock((clockid_t)((~(uint32_t)tid << 3) | 6));
}

bool pyprof_thread_is_on_cpu(uint64_t tid) {
    int64_t clock = pyprof_thread_cpu_ns(tid);
    return pyprof_thread_cpu_ns(tid) > clock;
}

/* Reads a small /proc file; what it holds, or NULL. */
static const char *read_small(const char *path, char *buffer, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return NULL;
    }
    ssize_t n = read(fd, buffer, size - 1);
    close(fd);
    if (n <= 0) {
        return NULL;
    }
    buffer[n] = '\0';
    return buffer;
}

/* The same for one whose line is "PID (name) S …": what stands after the name. */
static const char *read_stat(const char *path, char *buffer, size_t size) {
    const char *line = read_small(path, buffer, size);
    const char *end = line == NULL ? NULL : strrchr(line, ')'); /* names may hold parentheses and spaces */
    return end != NULL && end[1] == ' ' ? end + 2 : NULL;
}

enum { PATH_BYTES = 64 };

static void path_of_thread(char path[PATH_BYTES], uint64_t tid, const char *file) {
    snprintf(path, PATH_BYTES, "/proc/self/task/%llu/%s", (unsigned long long)tid, file);
}

bool pyprof_thread_is_runnable(uint64_t tid) {
    char path[PATH_BYTES], buffer[512];
    path_of_thread(path, tid, "stat");
    const char *state = read_stat(path, buffer, sizeof(buffer));
    return state != NULL && *state == 'R';
}

int64_t pyprof_thread_last_ran_ns(uint64_t tid) {
    char path[PATH_BYTES], buffer[256];
    unsigned long long ms, ns;
    path_of_thread(path, tid, "sched");
    const char *text = read_small(path, buffer, sizeof(buffer));
    const char *line = text == NULL ? NULL : strstr(text, "\nse.exec_start");
    const char *value = line == NULL ? NULL : strchr(line, ':');
    return value != NULL && sscanf(value, ": %llu.%6llu", &ms, &ns) == 2 ? (int64_t)(ms * NS_PER_MS + ns)
                                                                         : -1;
}

bool pyprof_thread_exists(uint64_t tid) { return syscall(SYS_tgkill, getpid(), (pid_t)tid, 0) == 0; }

uint64_t pyprof_own_tid(void) { return (uint64_t)syscall(SYS_gettid); }

long pyprof_native_thread_count(void) {
    enum { FIELDS_FROM_STATE_TO_THREADS = 17 };
    char buffer[1024];
    const char *at = read_stat("/proc/self/stat", buffer, sizeof(buffer));
    for (int i = 0; at != NULL && i < FIELDS_FROM_STATE_TO_THREADS; i++) {
        at = strchr(at, ' ');
        at = at == NULL ? NULL : at + 1;
    }
    return at == NULL ? 0 : strtol(at, NULL, 10);
}

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
