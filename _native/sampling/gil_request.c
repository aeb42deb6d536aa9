/* See gil_request.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/gil_request.h"

#include <pthread.h>
#include <string.h>

#include "cpython/interpreter.h"
#include "sampling/clocks.h"
#include "sampling/own_threads.h"

/* A request that still stands is looked at ever more seldom: its holder is in a long C call. */
enum { REPEAT_AFTER_NS = 50000, REPEAT_AFTER_MOST_NS = 1600000, STACK_BYTES = 64 * 1024 };

static struct {
    PyInterpreterState *interp;
    pyprof_own_thread *thread;
    pthread_mutex_t lock;
    uint32_t waiting; /* atomic, futex: the timer waits for the GIL; written under the lock */
    bool stop_wanted; /* atomic */
} request = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void set_waiting(uint32_t waiting) {
    pthread_mutex_lock(&request.lock);
    __atomic_store_n(&request.waiting, waiting, __ATOMIC_RELEASE);
    if (waiting) {
        pyprof_request_gil_drop(request.interp);
    } else {
        pyprof_withdraw_gil_drop(request.interp);
    }
    pthread_mutex_unlock(&request.lock);
}

static void repeat_requests(void *unused) {
    (void)unused;
    pyprof_wake_promptly();
    for (int64_t pause = REPEAT_AFTER_NS; !__atomic_load_n(&request.stop_wanted, __ATOMIC_ACQUIRE);) {
        if (!__atomic_load_n(&request.waiting, __ATOMIC_ACQUIRE)) {
            pyprof_futex_wait(&request.waiting, 0, INT64_MAX);
            pause = REPEAT_AFTER_NS;
            continue;
        }
        pyprof_futex_wait(&request.waiting, 1, pyprof_monotonic_ns() + pause);
        pthread_mutex_lock(&request.lock);
        /* At its end the interpreter turns waiting threads away: then nobody would take what is dropped. */
        if (request.waiting && !__atomic_load_n(&request.stop_wanted, __ATOMIC_ACQUIRE) &&
            !pyprof_is_finalizing()) {
            bool stands = pyprof_request_gil_drop(request.interp);
            pause = !stands ? REPEAT_AFTER_NS : pause < REPEAT_AFTER_MOST_NS ? 2 * pause : pause;
        }
        pthread_mutex_unlock(&request.lock);
    }
}

bool pyprof_gil_request_open(PyInterpreterState *interp) {
    request.interp = interp;
    request.stop_wanted = false;
    request.thread = pyprof_own_thread_start(repeat_requests, NULL, "pyprof-gil", STACK_BYTES);
    return request.thread != NULL;
}

void pyprof_gil_request_close(void) {
    __atomic_store_n(&request.stop_wanted, true, __ATOMIC_RELEASE);
    __atomic_store_n(&request.waiting, 1, __ATOMIC_RELEASE); /* nothing is requested: stop comes first */
    pyprof_futex_wake(&request.waiting);
    pyprof_own_thread_join(request.thread, INT64_MAX);
    request.thread = NULL;
    request.waiting = 0;
}

void pyprof_gil_request_restore(PyThreadState *tstate) {
    set_waiting(1);
    pyprof_futex_wake(&request.waiting);
    PyEval_RestoreThread(tstate);
    set_waiting(0);
}

void pyprof_gil_request_reset_child(void) {
    memset(&request, 0, sizeof(request));
    request.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

#endif
