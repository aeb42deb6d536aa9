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

bool pyprof_new_thread_has_creators_id(void) { return PYPROF_NEW_THREAD_HAS_CREATORS_ID; }

bool pyprof_thread_states_need_company(void) { return PYPROF_FIRST_THREAD_STATE_ONCE; }

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
