/* Deaths of code objects. See interpreter.h. */
#include "cpython/version.h"

#include "cpython/interpreter.h"

/* Code watchers are per interpreter, and only a thread of an interpreter may add one there. The type is
 * static and shared by all interpreters, so this sees every death of the process. */
typedef void (*death_callback)(PyCodeObject *);

enum { MOST_CALLBACKS = 2 };
static death_callback
    callbacks[MOST_CALLBACKS]; /* atomic: interpreters with a GIL of their own look any time */
static destructor original_dealloc;
static bool in_chain; /* dealloc_code is called, by CPython or by a wrapper that somebody put around it */

static void dealloc_code(PyObject *object) {
    for (int i = 0; i < MOST_CALLBACKS; i++) {
        death_callback callback = __atomic_load_n(&callbacks[i], __ATOMIC_ACQUIRE);
        if (callback != NULL) {
            callback((PyCodeObject *)object);
        }
    }
    original_dealloc(object);
}

static void replace_callback(death_callback old, death_callback new) {
    for (int i = 0; i < MOST_CALLBACKS; i++) {
        if (callbacks[i] == old) {
            __atomic_store_n(&callbacks[i], new, __ATOMIC_RELEASE);
            return;
        }
    }
}

static bool has_callbacks(void) {
    for (int i = 0; i < MOST_CALLBACKS; i++) {
        if (callbacks[i] != NULL) {
            return true;
        }
    }
    return false;
}

void pyprof_watch_code_deaths(death_callback callback) {
    replace_callback(callback, NULL);
    replace_callback(NULL, callback);
    if (!in_chain) {
        in_chain = true;
        original_dealloc = PyCode_Type.tp_dealloc;
        __atomic_store_n(&PyCode_Type.tp_dealloc, dealloc_code, __ATOMIC_RELEASE);
    }
}

void pyprof_unwatch_code_deaths(death_callback callback) {
    replace_callback(callback, NULL);
    /* Where somebody wrapped our wrapper it must stay, and does nothing more than pass on. */
    if (!has_callbacks() && PyCode_Type.tp_dealloc == dealloc_code) {
        __atomic_store_n(&PyCode_Type.tp_dealloc, original_dealloc, __ATOMIC_RELEASE);
        in_chain = false;
    }
}
