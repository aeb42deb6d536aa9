/* Locks, threads and the life of the interpreter. See interpreter.h. */
#define Py_BUILD_CORE                                                                                        \
    1 /* _Py_DebugOffsets, ceval state, stop the world: none of it is in the public headers */
#include "cpython/version.h"

#if PYPROF_KNOWN_LAYOUT
#include "internal/pycore_ceval.h"
#include "internal/pycore_interp.h"
#include "internal/pycore_pystate.h"
#include "internal/pycore_runtime.h"
#endif
#undef Py_BUILD_CORE

#include "cpython/guarded_read.h"
#include "cpython/interpreter.h"

#include <time.h>

#if PYPROF_FREE_THREADED && !PYPROF_KNOWN_LAYOUT
/* Exported by every free-threaded build, but declared in an internal header only. */
void _PyEval_StopTheWorld(PyInterpreterState *);
void _PyEval_StartTheWorld(PyInterpreterState *);
#endif

static bool layout_trusted;

void pyprof_trust_layout(bool trusted) { layout_trusted = trusted; }

bool pyprof_layout_is_trusted(void) { return layout_trusted; }

bool pyprof_is_free_threaded(void) { return PYPROF_FREE_THREADED; }

bool pyprof_is_finalizing(void) {
#if PY_VERSION_HEX >= 0x030d0000
    return Py_IsFinalizing();
#else
    return _Py_IsFinalizing();
#endif
}

PyThreadState *pyprof_attached_thread(bool must_be) {
#if PYPROF_ATTACHED_THREAD_IS_GLOBAL
    /* Who has the GIL, which need not be this thread. */
    PyThreadState *tstate = _PyThreadState_UncheckedGet();
    return must_be || tstate == PyGILState_GetThisThreadState() ? tstate : NULL;
#elif PYPROF_HAS_UNCHECKED_GET
    (void)must_be;
    return PyThreadState_GetUnchecked();
#else
    (void)must_be;
    return _PyThreadState_UncheckedGet();
#endif
}

bool pyprof_new_thread_has_creators_id(void) { return PYPROF_NEW_THREAD_HAS_CREATORS_ID; }

bool pyprof_thread_states_need_company(void) { return PYPROF_FIRST_THREAD_STATE_ONCE; }

bool pyprof_thread_states_find_company(PyInterpreterState *interp) {
#if !PYPROF_FIRST_THREAD_STATE_ONCE
    (void)interp;
    return true;
#elif PYPROF_KNOWN_LAYOUT
    /* That of the thread which ends the interpreter. */
    if (!pyprof_hold_thread_states()) {
        return false;
    }
    PyThreadState *tstate = PyInterpreterState_ThreadHead(interp);
    while (tstate != NULL && tstate != &interp->_initial_thread) {
        tstate = PyThreadState_Next(tstate);
    }
    pyprof_release_thread_states();
    return tstate != NULL;
#else
    (void)interp;
    return false;
#endif
}

/* -- the lock of all thread states -- */

#if !PYPROF_KNOWN_LAYOUT

static bool try_lock(void) { return true; }

static void unlock(void) {}

bool pyprof_finds_lock_of_thread_states(void) { return true; }

#else

static void *head_of_interpreters(void) {
#if PYPROF_HAS_DEBUG_OFFSETS
    return (char *)&_PyRuntime + _PyRuntime.debug_offsets.runtime_state.interpreters_head;
#else
    return &_PyRuntime.interpreters.head;
#endif
}

/* It lies beside that. */
static void *lock_of_states(void) {
    const size_t before_head =
        offsetof(_PyRuntimeState, interpreters.head) - offsetof(_PyRuntimeState, interpreters.mutex);
    return (char *)head_of_interpreters() - before_head;
}

bool pyprof_finds_lock_of_thread_states(void) {
    enum { TRIES = 100 }; /* others make interpreters meanwhile, and end them */
    for (int i = 0; i < TRIES; i++) {
        if (__atomic_load_n((PyInterpreterState **)head_of_interpreters(), __ATOMIC_ACQUIRE) ==
            PyInterpreterState_Head()) {
            return true;
        }
    }
    return false;
}

#if PYPROF_HAS_DEBUG_OFFSETS

/* CPython's own way to wait for it is not exported by every version; the public one may let go of the GIL. */
static bool try_lock(void) {
    enum { LOCKED = 1 };
    uint8_t *bits = &((PyMutex *)lock_of_states())->_bits;
    uint8_t seen = __atomic_load_n(bits, __ATOMIC_RELAXED);
    while ((seen & LOCKED) == 0) {
        if (__atomic_compare_exchange_n(bits, &seen, seen | LOCKED, false, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED)) {
            return true;
        }
    }
    return false;
}

static void unlock(void) { PyMutex_Unlock(lock_of_states()); }

#else

static bool try_lock(void) {
    return PyThread_acquire_lock(*(PyThread_type_lock *)lock_of_states(), NOWAIT_LOCK) == 1;
}

static void unlock(void) { PyThread_release_lock(*(PyThread_type_lock *)lock_of_states()); }

#endif
#endif

bool pyprof_hold_thread_states(void) {
    enum { TRIES = 50 };
    const struct timespec pause = {0, 20000};
    for (int i = 0; i < TRIES; i++) {
        if (!layout_trusted || try_lock()) {
            return true;
        }
        nanosleep(&pause, NULL);
    }
    return false;
}

void pyprof_release_thread_states(void) {
    if (layout_trusted) {
        unlock();
    }
}

void pyprof_unlock_in_child(PyObject *object) {
#if PYPROF_FREE_THREADED
    object->ob_mutex = (PyMutex){0};
#else
    (void)object;
#endif
}

unsigned long pyprof_main_thread_id(void) {
#if PYPROF_KNOWN_LAYOUT
    return (unsigned long)_PyRuntime.main_thread;
#else
    return 0;
#endif
}

bool pyprof_detach_in_handler(PyThreadState **detached) {
#if PY_VERSION_HEX >= 0x030d0000
    PyThreadState *current = PyThreadState_GetUnchecked();
#else
    PyThreadState *current = _PyThreadState_UncheckedGet(); /* 3.11: of whichever thread has the GIL */
#endif
    *detached = NULL;
    if (current != NULL && current == PyGILState_GetThisThreadState()) {
        *detached = PyEval_SaveThread();
        return true;
    }
#if PYPROF_GIL_PER_INTERPRETER
    return current == NULL; /* else another interpreter's, of which nothing is known here */
#else
    return true;
#endif
}

static const unsigned long *native_thread_id_of(const void *tstate) {
#if PYPROF_KNOWN_LAYOUT && PYPROF_HAS_DEBUG_OFFSETS
    if (layout_trusted) {
        const uint64_t offset = _PyRuntime.debug_offsets.thread_state.native_thread_id;
        return (const unsigned long *)((const char *)tstate + offset);
    }
#endif
    return &((const PyThreadState *)tstate)->native_thread_id;
}

uint64_t pyprof_native_thread_id(PyThreadState *tstate) { return *native_thread_id_of(tstate); }

void pyprof_correct_native_thread_id(uint64_t own_tid) {
    unsigned long *id = (unsigned long *)native_thread_id_of(PyThreadState_Get());
    __atomic_store_n(id, (unsigned long)own_tid, __ATOMIC_RELAXED);
}

uint64_t pyprof_live_native_thread_id(const void *tstate) {
    unsigned long id = 0;
    const pyprof_read one = {&id, native_thread_id_of(tstate), sizeof(id)};
    return pyprof_read_memory(&one, 1) ? id : 0;
}

const void *pyprof_newest_thread(PyInterpreterState *interp) {
    if (!layout_trusted) {
        return PyInterpreterState_ThreadHead(interp);
    }
#if !PYPROF_KNOWN_LAYOUT
    return NULL;
#elif PYPROF_HAS_DEBUG_OFFSETS
    void **head = (void **)((char *)interp + _PyRuntime.debug_offsets.interpreter_state.threads_head);
    return __atomic_load_n(head, __ATOMIC_ACQUIRE);
#else
    return __atomic_load_n(&interp->threads.head, __ATOMIC_ACQUIRE);
#endif
}

bool pyprof_thread_attached(const void *tstate) {
#if PYPROF_FREE_THREADED && PYPROF_KNOWN_LAYOUT
    /* The thread may be gone and its state unmapped. `state` stands before the fields that patch releases
     * moved. */
    int state = 0;
    const pyprof_read one = {&state, (const char *)tstate + offsetof(PyThreadState, state), sizeof(state)};
    return pyprof_read_memory(&one, 1) && state == _Py_THREAD_ATTACHED;
#else
    (void)tstate;
    return false;
#endif
}

void pyprof_stop_the_world(PyInterpreterState *interp) {
#if PYPROF_FREE_THREADED
    _PyEval_StopTheWorld(interp);
#else
    (void)interp;
#endif
}

void pyprof_start_the_world(PyInterpreterState *interp) {
#if PYPROF_FREE_THREADED
    _PyEval_StartTheWorld(interp);
#else
    (void)interp;
#endif
}
