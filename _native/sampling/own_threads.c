/* See own_threads.h. */
#ifndef PYPROF_PORTABLE
#include <Python.h> /* before all others: it says what the system's headers shall show */

#include "sampling/own_threads.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpython/interpreter.h"
#include "sampling/clocks.h"

struct pyprof_own_thread {
    pthread_t handle;
    void (*run)(void *);
    void *argument;
    char name[16];
    uint64_t tid;        /* written before `ended` */
    uint32_t ended;      /* atomic, futex; RUNNING, then ENDED or first ABANDONED */
    uint32_t attachable; /* atomic, futex */
};

static _Thread_local pyprof_own_thread *this_thread;

enum { RUNNING, ENDED, ABANDONED };

/* A profiler has a timer, an exporter, and for a moment those of a restart. */
enum { MAX_OWN_THREADS = 16 };
static uint64_t own_tids[MAX_OWN_THREADS]; /* atomic; 0: free */
static int64_t ended_cpu_ns;               /* atomic: of threads that have ended */
static int64_t borrowed_cpu_ns;            /* atomic: used for pyprof on threads of the application */
static long alive;                         /* atomic: made, and not joined or ended after `abandon` */

static void enter(uint64_t tid) {
    for (int i = 0; i < MAX_OWN_THREADS; i++) {
        uint64_t unused = 0;
        if (__atomic_compare_exchange_n(&own_tids[i], &unused, tid, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED)) {
            return;
        }
    }
}

static void leave(uint64_t tid) {
    for (int i = 0; i < MAX_OWN_THREADS; i++) {
        if (__atomic_load_n(&own_tids[i], __ATOMIC_ACQUIRE) == tid) {
            const int64_t cpu = pyprof_thread_cpu_ns(tid);
            __atomic_add_fetch(&ended_cpu_ns, cpu < 0 ? 0 : cpu, __ATOMIC_RELAXED);
            __atomic_store_n(&own_tids[i], 0, __ATOMIC_RELEASE);
        }
    }
}

static void forget(pyprof_own_thread *thread) {
    free(thread);
    __atomic_sub_fetch(&alive, 1, __ATOMIC_RELAXED);
}

static void *thread_main(void *argument) {
    pyprof_own_thread *thread = argument;
    uint64_t tid = thread->tid = pyprof_own_tid();
    this_thread = thread;
    enter(tid);
    prctl(PR_SET_NAME, thread->name);
    thread->run(thread->argument);
    pyprof_own_thread_is_attachable();
    leave(tid);
    if (__atomic_exchange_n(&thread->ended, ENDED, __ATOMIC_ACQ_REL) == ABANDONED) {
        forget(thread);
    } else {
        pyprof_futex_wake(&thread->ended);
    }
    return NULL;
}

pyprof_own_thread *pyprof_own_thread_start(void (*run)(void *), void *argument, const char *name,
                                           size_t stack_bytes) {
    pyprof_own_thread *thread = calloc(1, sizeof(*thread));
    pthread_attr_t attributes;
    if (thread == NULL || pthread_attr_init(&attributes) != 0) {
        free(thread);
        return NULL;
    }
    thread->run = run;
    thread->argument = argument;
    strncpy(thread->name, name, sizeof(thread->name) - 1);
    /* `ulimit -s unlimited` and musl's small default are both wrong for us. */
    pthread_attr_setstacksize(&attributes, stack_bytes);

    /* The application's signals are not for our threads; a blocked synchronous one would kill the process
     * silently. */
    sigset_t blocked, before;
    sigfillset(&blocked);
    sigdelset(&blocked, SIGSEGV);
    sigdelset(&blocked, SIGBUS);
    sigdelset(&blocked, SIGFPE);
    sigdelset(&blocked, SIGILL);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int error = pthread_create(&thread->handle, &attributes, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (error != 0) {
        free(thread);
        return NULL;
    }
    __atomic_add_fetch(&alive, 1, __ATOMIC_RELAXED);
    return thread;
}

bool pyprof_own_thread_unshares_descriptors(void) {
#ifdef SYS_close_range
    enum { UNSHARE = 2 }; /* CLOSE_RANGE_UNSHARE, since Linux 5.9 */
    return syscall(SYS_close_range, 0, ~0U, UNSHARE) == 0;
#else
    return false;
#endif
}

void pyprof_own_thread_is_attachable(void) {
    __atomic_store_n(&this_thread->attachable, 1, __ATOMIC_RELEASE);
    pyprof_futex_wake(&this_thread->attachable);
}

void pyprof_own_thread_wait_attachable(pyprof_own_thread *thread) {
    if (!pyprof_thread_states_need_company()) {
        return;
    }
    Py_BEGIN_ALLOW_THREADS while (!__atomic_load_n(&thread->attachable, __ATOMIC_ACQUIRE)) {
        pyprof_futex_wait(&thread->attachable, 0, INT64_MAX);
    }
    Py_END_ALLOW_THREADS
}

enum { LONGEST_EXIT_NS = 10000000 };

/* A joined thread is counted by the kernel for some more microseconds, and a fork in between would make
 * CPython warn. */
static void wait_until_gone(uint64_t tid) {
    int64_t deadline = pyprof_monotonic_ns() + LONGEST_EXIT_NS;
    while (pyprof_thread_exists(tid) && pyprof_monotonic_ns() < deadline) {
        sched_yield();
    }
}

bool pyprof_own_thread_join(pyprof_own_thread *thread, int64_t deadline_ns) {
    while (__atomic_load_n(&thread->ended, __ATOMIC_ACQUIRE) == RUNNING) {
        if (pyprof_monotonic_ns() >= deadline_ns) {
            return false;
        }
        pyprof_futex_wait(&thread->ended, RUNNING, deadline_ns);
    }
    pthread_join(thread->handle, NULL);
    wait_until_gone(thread->tid);
    forget(thread);
    return true;
}

void pyprof_own_thread_abandon(pyprof_own_thread *thread) {
    pthread_detach(thread->handle);
    if (__atomic_exchange_n(&thread->ended, ABANDONED, __ATOMIC_ACQ_REL) == ENDED) {
        forget(thread);
    }
}

long pyprof_own_thread_count(void) { return __atomic_load_n(&alive, __ATOMIC_RELAXED); }

bool pyprof_own_thread_calls(void) { return this_thread != NULL; }

bool pyprof_is_own_thread(uint64_t tid) {
    for (int i = 0; tid != 0 && i < MAX_OWN_THREADS; i++) { /* 0 is a free place, and a thread that starts */
        if (__atomic_load_n(&own_tids[i], __ATOMIC_RELAXED) == tid) {
            return true;
        }
    }
    return false;
}

int64_t pyprof_own_threads_cpu_ns(void) {
    int64_t total = __atomic_load_n(&ended_cpu_ns, __ATOMIC_RELAXED) + pyprof_own_threads_borrowed_cpu_ns();
    for (int i = 0; i < MAX_OWN_THREADS; i++) {
        uint64_t tid = __atomic_load_n(&own_tids[i], __ATOMIC_ACQUIRE);
        int64_t cpu = tid == 0 ? -1 : pyprof_thread_cpu_ns(tid);
        total += cpu < 0 ? 0 : cpu;
    }
    return total;
}

void pyprof_own_threads_add_cpu_ns(int64_t ns) {
    __atomic_add_fetch(&borrowed_cpu_ns, ns < 0 ? 0 : ns, __ATOMIC_RELAXED);
}

int64_t pyprof_own_threads_borrowed_cpu_ns(void) {
    return __atomic_load_n(&borrowed_cpu_ns, __ATOMIC_RELAXED);
}

void pyprof_own_threads_reset_child(void) {
    memset(own_tids, 0, sizeof(own_tids));
    ended_cpu_ns = borrowed_cpu_ns = 0;
    alive = 0;
}

#endif
