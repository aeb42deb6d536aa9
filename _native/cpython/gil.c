/* See gil.h. */
#define _GNU_SOURCE
#define Py_BUILD_CORE 1 /* the GIL and the pending calls are in no public header */
#include "cpython/version.h"

#if PYPROF_KNOWN_LAYOUT
#include "internal/pycore_ceval.h"
#include "internal/pycore_interp.h"
#include "internal/pycore_pystate.h"
#include "internal/pycore_runtime.h"
#endif
#undef Py_BUILD_CORE

#ifdef __linux__
#include <sched.h>
#endif

#include "cpython/gil.h"
#include "cpython/interpreter.h"

struct _gil_runtime_state *pyprof_gil_of(PyInterpreterState *interp) {
#if PYPROF_KNOWN_LAYOUT
    if (!pyprof_layout_is_trusted()) {
        return NULL;
    }
#if PYPROF_HAS_DEBUG_OFFSETS
    const uint64_t offset = _PyRuntime.debug_offsets.interpreter_state.ceval_gil;
    return *(struct _gil_runtime_state **)((char *)interp + offset);
#elif PYPROF_GIL_PER_INTERPRETER
    return interp->ceval.gil;
#else
    (void)interp;
    return &_PyRuntime.ceval.gil;
#endif
#else
    (void)interp;
    return NULL;
#endif
}

const void *pyprof_gil_holder_if_on(PyInterpreterState *interp) {
#if !PYPROF_KNOWN_LAYOUT
    (void)interp;
    return PYPROF_UNKNOWN_HOLDER;
#else
    struct _gil_runtime_state *gil = pyprof_gil_of(interp);
    if (gil == NULL) {
        return PYPROF_UNKNOWN_HOLDER;
    }
#if PYPROF_HAS_DEBUG_OFFSETS
    const _Py_DebugOffsets *at = &_PyRuntime.debug_offsets;
    /* The table gives these two for the GIL inside the interpreter state; it may use another's. */
    const uint64_t inside = at->interpreter_state.gil_runtime_state;
    int *locked = (int *)((char *)gil + (at->interpreter_state.gil_runtime_state_locked - inside));
    void **holder = (void **)((char *)gil + (at->interpreter_state.gil_runtime_state_holder - inside));
#else
    int *locked = (int *)&gil->locked._value;
    void **holder = (void **)&gil->last_holder._value;
#endif
    /* `last_holder` stays after a release. */
    if (__atomic_load_n(locked, __ATOMIC_ACQUIRE) != 1) {
        return NULL;
    }
#if !PYPROF_GIL_PER_INTERPRETER
    /* A thread that goes to another interpreter keeps the GIL, and `last_holder` is who has taken it. */
    void *current = (void *)__atomic_load_n(&_PyRuntime.gilstate.tstate_current._value, __ATOMIC_ACQUIRE);
    if (current != NULL) {
        return current;
    }
#endif
    return __atomic_load_n(holder, __ATOMIC_ACQUIRE);
#endif
}

const void *pyprof_gil_holder(PyInterpreterState *interp) {
    return PYPROF_FREE_THREADED ? NULL : pyprof_gil_holder_if_on(interp);
}

static bool has_cpus;

bool pyprof_can_look_on(void) { return has_cpus; }

#define POSTS_CALLS (PYPROF_KNOWN_LAYOUT && !PYPROF_FREE_THREADED)

static const void *main_thread; /* its thread state; compared, never followed */

void pyprof_gil_open(PyInterpreterState *interp) {
#ifdef __linux__
    cpu_set_t cpus;
    has_cpus = sched_getaffinity(0, sizeof(cpus), &cpus) != 0 || CPU_COUNT(&cpus) > 1;
#endif
    main_thread = NULL;
    while (!pyprof_hold_thread_states()) {
    }
    for (PyThreadState *tstate = PyInterpreterState_ThreadHead(interp); tstate != NULL;
         tstate = PyThreadState_Next(tstate)) {
        if (tstate->thread_id == pyprof_main_thread_id()) {
            main_thread = tstate;
        }
    }
    pyprof_release_thread_states();
}

bool pyprof_runs_posted_calls(const void *holder) {
    return POSTS_CALLS &&
           (PYPROF_HAS_PENDING_CALLS_ANYWHERE || (main_thread != NULL && holder == main_thread));
}

bool pyprof_post_call(PyInterpreterState *interp, int (*callback)(void *)) {
#if !POSTS_CALLS
    (void)interp;
    (void)callback;
    return false;
#elif PYPROF_PENDING_CALLS_SIGNAL
    return _PyEval_AddPendingCall(interp, callback, NULL, 0) == _Py_ADD_PENDING_SUCCESS;
#else
#if PYPROF_HAS_PENDING_CALLS_ANYWHERE
    bool added = _PyEval_AddPendingCall(interp, callback, NULL, 0) == 0;
#else
    bool added = _PyEval_AddPendingCall(interp, callback, NULL) == 0;
#endif
    if (added) {
        __atomic_store_n(&interp->ceval.eval_breaker._value, 1, __ATOMIC_RELEASE);
    }
    return added;
#endif
}

#if PYPROF_KNOWN_LAYOUT && !PYPROF_HAS_PENDING_CALLS_ANYWHERE && !PYPROF_FREE_THREADED

#include <pthread.h>
#include <time.h>

/* A holder that runs Python code is at its next safe point sooner than a waiting thread wakes up, so who
 * looks on is there before those that queue. A holder whose request stands after that is in a C call. */
enum { ASK_AGAIN_AFTER_NS = 50000, ASK_AGAIN_AFTER_MOST_NS = 1600000 };
/* On one CPU there is only the queue, whose first is woken, and CPython's waiters go to its end after each
 * switch interval of 5 ms. Who asks again sooner is the next if the others are few; if they are many it is
 * always the last, and makes them take turns for nothing: who stays in the queue for longer is the first
 * soon. */
enum { QUEUE_AFTER_NS = 1000000, QUEUE_NS = 8000000 };
enum { NS_PER_S = 1000000000 };

typedef struct _gil_runtime_state gil_state;

static bool is_taken(gil_state *gil) { return __atomic_load_n(&gil->locked._value, __ATOMIC_ACQUIRE) != 0; }

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* Asks the holder to drop the GIL at its next safe point; it then waits until somebody has taken it. So
 * nobody may ask who does not take it, or withdraw. Returns whether the request stood already. */
static bool ask(struct _ceval_state *ceval) {
    bool stood = __atomic_exchange_n(&ceval->gil_drop_request._value, 1, __ATOMIC_ACQ_REL) != 0;
    __atomic_store_n(&ceval->eval_breaker._value, 1, __ATOMIC_RELEASE);
    return stood;
}

static void withdraw(struct _ceval_state *ceval) {
    /* The eval breaker stays set: whoever runs next looks once for nothing, and resets it. */
    __atomic_store_n(&ceval->gil_drop_request._value, 0, __ATOMIC_RELEASE);
}

/* With the mutex if the GIL got free, without it if not. Who drops the GIL wakes another thread before it
 * unlocks the mutex. */
static bool look_on(gil_state *gil) {
    for (const int64_t end = now_ns() + PYPROF_LOOK_ON_NS; now_ns() < end;) {
        if (!is_taken(gil) && pthread_mutex_trylock(&gil->mutex) == 0) {
            if (!is_taken(gil)) {
                return true;
            }
            pthread_mutex_unlock(&gil->mutex);
        }
    }
    return false;
}

static void wait_for_drop(gil_state *gil, int64_t ns) {
    const int64_t end = now_ns() + ns;
    struct timespec until = {(time_t)(end / NS_PER_S), (long)(end % NS_PER_S)};
    pthread_cond_timedwait(&gil->cond, &gil->mutex, &until); /* its clock is the monotonic one */
}

static int64_t next_pause(int64_t last, bool stood, int64_t waited_ns) {
    if (!pyprof_can_look_on() && waited_ns >= QUEUE_AFTER_NS) {
        return QUEUE_NS;
    }
    return !stood ? ASK_AGAIN_AFTER_NS : last < ASK_AGAIN_AFTER_MOST_NS ? 2 * last : last;
}

/* True: the GIL is free, and its mutex is locked. False: the interpreter ends. */
static bool lock_when_free(gil_state *gil, struct _ceval_state *ceval) {
    const int64_t begin = now_ns();
    int64_t pause = ASK_AGAIN_AFTER_NS;
    while (!pyprof_is_finalizing()) {
        bool stood = is_taken(gil) && ask(ceval);
        if (!stood && pyprof_can_look_on() && look_on(gil)) {
            return true;
        }
        pthread_mutex_lock(&gil->mutex);
        if (is_taken(gil)) {
            pause = next_pause(pause, stood, now_ns() - begin);
            wait_for_drop(gil, pause);
        }
        if (!is_taken(gil)) {
            return true;
        }
        pthread_mutex_unlock(&gil->mutex);
    }
    /* A holder that has heard the request and dropped the GIL waits until it is taken. */
    withdraw(ceval);
    pthread_mutex_lock(&gil->mutex);
    if (!is_taken(gil)) {
        return true;
    }
    pthread_mutex_unlock(&gil->mutex);
    return false;
}

/* What CPython's `take_gil` does once the GIL is free, with its mutex locked. */
static void take_free(gil_state *gil, PyThreadState *own) {
    pthread_mutex_lock(&gil->switch_mutex); /* for who dropped it, and waits to see it taken */
    __atomic_store_n(&gil->locked._value, 1, __ATOMIC_RELEASE);
    __atomic_store_n(&gil->last_holder._value, (uintptr_t)own, __ATOMIC_RELEASE);
    gil->switch_number++;
    pthread_cond_signal(&gil->switch_cond);
    pthread_mutex_unlock(&gil->switch_mutex);
    withdraw(&own->interp->ceval);
    pthread_mutex_unlock(&gil->mutex);
}

bool pyprof_take_gil(PyThreadState *own) {
    if (!pyprof_layout_is_trusted()) {
        PyEval_RestoreThread(own);
        return true;
    }
    gil_state *gil = &_PyRuntime.ceval.gil;
    if (!lock_when_free(gil, &own->interp->ceval)) {
        return false;
    }
    take_free(gil, own);
    PyThreadState_Swap(own);
    if (pyprof_is_finalizing()) {
        PyEval_SaveThread();
        return false;
    }
    return true;
}

#else

bool pyprof_take_gil(PyThreadState *own) {
    PyEval_RestoreThread(own);
    return true;
}

#endif
