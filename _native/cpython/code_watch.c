/* Deaths of code objects. See interpreter.h. */
#include "cpython/version.h"

#include "cpython/interpreter.h"

static void (*death_callback)(PyCodeObject *);
static PyInterpreterState *watched_interpreter;

/* The type is static and shared by all interpreters, so this sees every death of the process. */
static destructor original_dealloc;
static bool in_chain; /* dealloc_code is called, by CPython or by a wrapper that somebody put around it */

static void dealloc_code(PyObject *object) {
    if (death_callback != NULL && PyInterpreterState_Get() == watched_interpreter) {
        death_callback((PyCodeObject *)object);
    }
    original_dealloc(object);
}

static int wrap_dealloc(void) {
    if (in_chain) {
        return 0;
    }
    in_chain = true;
    original_dealloc = PyCode_Type.tp_dealloc;
    __atomic_store_n(&PyCode_Type.tp_dealloc, dealloc_code, __ATOMIC_RELEASE);
    return 0;
}

static void unwrap_dealloc(void) {
    /* Where somebody wrapped our wrapper it must stay, and does nothing more than pass on. */
    if (PyCode_Type.tp_dealloc == dealloc_code) {
        __atomic_store_n(&PyCode_Type.tp_dealloc, original_dealloc, __ATOMIC_RELEASE);
        in_chain = false;
    }
}

#if PYPROF_HAS_CODE_WATCHERS

static int watcher_id = -1;

static int on_code_event(PyCodeEvent event, PyCodeObject *code) {
    if (event == PY_CODE_EVENT_DESTROY && death_callback != NULL) {
        death_callback(code);
    }
    return 0;
}

int pyprof_watch_code_deaths(void (*callback)(PyCodeObject *)) {
    death_callback = callback;
    watched_interpreter = PyInterpreterState_Get();
    if (watcher_id >= 0 || in_chain) {
        return 0;
    }
    watcher_id = PyCode_AddWatcher(on_code_event);
    if (watcher_id < 0) {
        PyErr_Clear(); /* all eight slots of the interpreter are taken */
        return wrap_dealloc();
    }
    return 0;
}

void pyprof_unwatch_code_deaths(void) {
    unwrap_dealloc();
#if !PYPROF_FREE_THREADED
    /* Without a GIL a thread that has seen that there is a callback would call it, gone or not. */
    death_callback = NULL;
    if (watcher_id >= 0) {
        if (PyCode_ClearWatcher(watcher_id) < 0) {
            PyErr_Clear();
        }
        watcher_id = -1;
    }
#endif
}

#else

int pyprof_watch_code_deaths(void (*callback)(PyCodeObject *)) {
    death_callback = callback;
    watched_interpreter = PyInterpreterState_Get();
    return wrap_dealloc();
}

void pyprof_unwatch_code_deaths(void) {
    death_callback = NULL;
    unwrap_dealloc();
}

#endif
