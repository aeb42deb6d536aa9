/* Deaths of code objects. See interpreter.h. */
#include "cpython/version.h"

#include "cpython/interpreter.h"

/* Code watchers are per interpreter, and only a thread of an interpreter may add one there. The type is
 * static and shared by all interpreters, so this sees every death of the process. */
static void (*death_callback)(
    PyCodeObject *); /* atomic: interpreters with a GIL of their own look any time */
static destructor original_dealloc;
static bool in_chain; /* dealloc_code is called, by CPython or by a wrapper that somebody put around it */

static void dealloc_code(PyObject *object) {
    void (*callback)(PyCodeObject *) = __atomic_load_n(&death_callback, __ATOMIC_ACQUIRE);
    if (callback != NULL) {
        callback((PyCodeObject *)object);
    }
    original_dealloc(object);
}

void pyprof_watch_code_deaths(void (*callback)(PyCodeObject *)) {
    __atomic_store_n(&death_callback, callback, __ATOMIC_RELEASE);
    if (!in_chain) {
        in_chain = true;
        original_dealloc = PyCode_Type.tp_dealloc;
        __atomic_store_n(&PyCode_Type.tp_dealloc, dealloc_code, __ATOMIC_RELEASE);
    }
}

void pyprof_unwatch_code_deaths(void) {
    __atomic_store_n(&death_callback, NULL, __ATOMIC_RELEASE);
    /* Where somebody wrapped our wrapper it must stay, and does nothing more than pass on. */
    if (PyCode_Type.tp_dealloc == dealloc_code) {
        __atomic_store_n(&PyCode_Type.tp_dealloc, original_dealloc, __ATOMIC_RELEASE);
        in_chain = false;
    }
}
