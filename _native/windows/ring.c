/* See ring.h.
 *
 * A mutex guards the pointers. Waiting is a futex on a counter that every push and wake moves on: it
 * takes a deadline of CLOCK_MONOTONIC (a step of the wall clock delays nobody), and unlike a condition
 * variable it keeps no record of waiters that a forked child would inherit.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* syscall */
#endif
#include "windows/ring.h"

#ifndef PYPROF_PORTABLE

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LARGEST_CAPACITY 1024u
#define DEFAULT_CAPACITY 6u

static struct {
    pthread_mutex_t lock;
    pyprof_window *windows[LARGEST_CAPACITY]; /* a queue: `count` of them from `first` on */
    uint32_t first, count, capacity;
    uint32_t changes; /* the futex */
    bool woken;       /* a wake that no take has seen yet */
    uint64_t dropped;
    size_t bytes;
} ring = {.lock = PTHREAD_MUTEX_INITIALIZER, .capacity = DEFAULT_CAPACITY};

static void lock(void) { pthread_mutex_lock(&ring.lock); }
static void unlock(void) { pthread_mutex_unlock(&ring.lock); }

static pyprof_window *pop(void) {
    if (ring.count == 0) {
        return NULL;
    }
    pyprof_window *window = ring.windows[ring.first];
    ring.windows[ring.first] = NULL;
    ring.first = (ring.first + 1) % LARGEST_CAPACITY;
    ring.count--;
    ring.bytes -= pyprof_window_bytes(window);
    return window;
}

static void changed(void) {
    __atomic_add_fetch(&ring.changes, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &ring.changes, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT_MAX, NULL, NULL, 0);
}

void pyprof_ring_set_capacity(uint32_t windows) {
    lock();
    ring.capacity = windows < 1 ? 1 : windows > LARGEST_CAPACITY ? LARGEST_CAPACITY : windows;
    unlock();
}

/* Append the window, or make room for it by one: the oldest, for the caller to free. */
static pyprof_window *append(pyprof_window *window) {
    if (ring.count < ring.capacity) {
        ring.windows[(ring.first + ring.count) % LARGEST_CAPACITY] = window;
        ring.count++;
        ring.bytes += pyprof_window_bytes(window);
        return NULL;
    }
    pyprof_window *oldest = pop();
    /* What a dropped window told of earlier drops, the new one tells now. */
    pyprof_window_get_info(window)->dropped_windows += pyprof_window_get_info(oldest)->dropped_windows + 1;
    ring.dropped++;
    return oldest;
}

void pyprof_ring_push(pyprof_window *window) {
    pyprof_window_get_info(window)->dropped_windows = 0;
    pyprof_window *oldest;
    do {
        lock();
        oldest = append(window);
        unlock();
        pyprof_window_free(oldest);
    } while (oldest != NULL);
    changed();
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* False once the deadline has passed. */
static bool wait_for_change(uint32_t seen, int64_t deadline) {
    if (now_ns() >= deadline) {
        return false;
    }
    struct timespec until = {(time_t)(deadline / 1000000000), (long)(deadline % 1000000000)};
    syscall(SYS_futex, &ring.changes, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, seen, &until, NULL,
            FUTEX_BITSET_MATCH_ANY);
    return true; /* a change, a signal or the time: the caller looks again */
}

bool pyprof_ring_wait(int64_t timeout_ns) {
    int64_t deadline = now_ns();
    deadline = timeout_ns > INT64_MAX - deadline ? INT64_MAX : deadline + timeout_ns;
    for (;;) {
        uint32_t seen = __atomic_load_n(&ring.changes, __ATOMIC_ACQUIRE);
        lock();
        bool ready = ring.count > 0;
        bool woken = !ready && ring.woken;
        if (woken) {
            ring.woken = false;
        }
        unlock();
        if (ready || woken || !wait_for_change(seen, deadline)) {
            return ready;
        }
    }
}

pyprof_window *pyprof_ring_take(void) {
    lock();
    pyprof_window *window = pop();
    unlock();
    return window;
}

void pyprof_ring_wake(void) {
    lock();
    ring.woken = true;
    unlock();
    changed();
}

void pyprof_ring_clear(void) {
    for (;;) {
        lock();
        pyprof_window *window = pop();
        if (window == NULL) {
            ring.dropped = 0;
            ring.woken = false;
        }
        unlock();
        if (window == NULL) {
            return;
        }
        pyprof_window_free(window);
    }
}

void pyprof_ring_reset_child(void) {
    bool whole = pthread_mutex_trylock(&ring.lock) == 0;
    ring.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    if (!whole) {
        /* The holder was between two of its stores: what it moved cannot be told. */
        ring.first = ring.count = 0;
        ring.bytes = 0;
    }
    pyprof_ring_clear();
}

uint64_t pyprof_ring_dropped(void) {
    lock();
    uint64_t dropped = ring.dropped;
    unlock();
    return dropped;
}

size_t pyprof_ring_bytes(void) {
    lock();
    size_t bytes = ring.bytes;
    unlock();
    return bytes;
}

#endif
