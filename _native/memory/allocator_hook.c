/* See allocator_hook.h. */
#ifndef PYPROF_PORTABLE
#include <Python.h> /* before all others: it says what the system's headers shall show */

#include "memory/allocator_hook.h"

#include <stdint.h>

#include "cpython/traces.h"
#include "memory/allocator_functions.h"
#include "memory/counting.h"

enum { NO_SET = -1 };

/* Layered sets that have been put in, up to here. */
static int used[PYPROF_HOOK_DOMAINS] = {PYPROF_HOOK_FIRST_LAYERED, PYPROF_HOOK_FIRST_LAYERED,
                                        PYPROF_HOOK_FIRST_LAYERED};

static PyMemAllocatorEx outermost(int domain) {
    PyMemAllocatorEx found;
    PyMem_GetAllocator((PyMemAllocatorDomain)domain, &found);
    return found;
}

/* The one of ours that is outermost. */
static int set_on_top(int domain) {
    const PyMemAllocatorEx found = outermost(domain);
    int set = PYPROF_HOOK_SETS - 1;
    while (set != NO_SET && pyprof_hook_functions[set][domain].malloc != found.malloc) {
        set--;
    }
    return set;
}

/* An allocation that uses up the gap, and whether that was noticed. */
static bool came_by_once(int domain) {
    static void *(*const allocate_in[PYPROF_HOOK_DOMAINS])(size_t) = {PyMem_RawMalloc, PyMem_Malloc,
                                                                      PyObject_Malloc};
    static void (*const free_in[PYPROF_HOOK_DOMAINS])(void *) = {PyMem_RawFree, PyMem_Free, PyObject_Free};
    pyprof_gap *gap = pyprof_gap_of((PyMemAllocatorDomain)domain);
    const int64_t left = pyprof_left_of(gap);
    bool came_by = false;
    pyprof_own.canary = &came_by;
    pyprof_set_left(gap, 0);
    void *address = allocate_in[domain](1);
    pyprof_own.canary = NULL;
    pyprof_set_left(gap, left);
    free_in[domain](address);
    return came_by || address == NULL;
}

/* Interpreters with GILs of their own may use the gap up before. */
static bool comes_by(int domain) {
    enum { ATTEMPTS = 3 };
    for (int i = 0; i < ATTEMPTS; i++) {
        if (came_by_once(domain)) {
            return true;
        }
    }
    return false;
}

static bool is_in_chain(int domain) { return set_on_top(domain) != NO_SET || comes_by(domain); }

static bool same(const PyMemAllocatorEx *a, const PyMemAllocatorEx *b) {
    return a->ctx == b->ctx && a->malloc == b->malloc && a->calloc == b->calloc && a->realloc == b->realloc &&
           a->free == b->free;
}

/* CPython's own need no context; a hook's says what it was put on. */
static void look_for_cpythons(int domain, const PyMemAllocatorEx *found) {
    if (found->ctx == NULL && pyprof_hook_below[PYPROF_HOOK_LOWEST][domain].malloc == NULL) {
        pyprof_hook_below[PYPROF_HOOK_LOWEST][domain] = *found;
    }
}

/* Functions that pass on to `next` already, or else fresh ones. */
static int choose_set(int domain, const PyMemAllocatorEx *next) {
    look_for_cpythons(domain, next);
    for (int set = 0; set < PYPROF_HOOK_SETS; set++) {
        if (set == used[domain]) {
            pyprof_hook_below[set][domain] = *next;
            used[domain]++;
            __atomic_thread_fence(__ATOMIC_RELEASE);
            return set;
        }
        if (same(&pyprof_hook_below[set][domain], next)) {
            return set;
        }
    }
    return NO_SET;
}

/* On top of all others, passing on to `next`. */
static bool put_in(int domain, const PyMemAllocatorEx *next) {
    const int set = choose_set(domain, next);
    if (set == NO_SET) {
        return false;
    }
    pyprof_hook_set_cut(set, false);
    PyMemAllocatorEx hook = pyprof_hook_functions[set][domain];
    hook.ctx = outermost(domain).ctx;
    PyMem_SetAllocator((PyMemAllocatorDomain)domain, &hook);
    return true;
}

/* tracemalloc's own functions, which ours stand in for. */
static PyMemAllocatorEx tracers[PYPROF_HOOK_DOMAINS];

static void take_out(int domain) {
    for (int set = set_on_top(domain); set != NO_SET; set = set_on_top(domain)) {
        PyMemAllocatorEx next =
            pyprof_counting_is_traced() ? tracers[domain] : *pyprof_hook_next_of(set, domain);
        PyMem_SetAllocator((PyMemAllocatorDomain)domain, &next);
    }
}

void pyprof_allocator_hook_prepare(void) {
    for (int domain = 0; domain < PYPROF_HOOK_DOMAINS; domain++) {
        const PyMemAllocatorEx found = outermost(domain);
        look_for_cpythons(domain, &found);
    }
}

/* Whether tracemalloc is still on as it was started here; what traces else is somebody else's. */
static pyprof_hook_state look_after_tracemalloc(void) {
    for (int domain = 0; domain < PYPROF_HOOK_DOMAINS; domain++) {
        if (!is_in_chain(domain)) {
            pyprof_counting_set_active(false);
            pyprof_counting_set_traced(false);
            return PYPROF_HOOK_GIVES_UP;
        }
    }
    return PYPROF_HOOK_SEES;
}

pyprof_hook_state pyprof_allocator_hook_install(void) {
    if (pyprof_counting_is_traced()) {
        return look_after_tracemalloc();
    }
    bool is_in[PYPROF_HOOK_DOMAINS];
    int count_in = 0;
    for (int domain = 0; domain < PYPROF_HOOK_DOMAINS; domain++) {
        is_in[domain] = is_in_chain(domain);
        count_in += is_in[domain];
    }
    for (int set = 0; set < PYPROF_HOOK_SETS && count_in == 0; set++) {
        pyprof_hook_set_cut(set, true);
    }
    for (int domain = 0; domain < PYPROF_HOOK_DOMAINS; domain++) {
        const PyMemAllocatorEx next = outermost(domain);
        if (!is_in[domain] && !put_in(domain, &next)) {
            pyprof_allocator_hook_uninstall();
            return PYPROF_HOOK_GIVES_UP;
        }
    }
    pyprof_counting_set_active(true);
    return count_in == PYPROF_HOOK_DOMAINS ? PYPROF_HOOK_SEES : PYPROF_HOOK_WAS_CUT_OUT;
}

/* Takes the argument over. False with an error set. */
static bool call_tracemalloc(const char *name, PyObject *argument) {
    PyObject *module = PyImport_ImportModule("tracemalloc");
    PyObject *function = module == NULL ? NULL : PyObject_GetAttrString(module, name);
    PyObject *result = function == NULL ? NULL : PyObject_CallFunctionObjArgs(function, argument, NULL);
    Py_XDECREF(argument);
    Py_XDECREF(function);
    Py_XDECREF(module);
    Py_XDECREF(result);
    return result != NULL;
}

void pyprof_allocator_hook_uninstall(void) {
    pyprof_counting_set_active(false);
    for (int domain = 0; domain < PYPROF_HOOK_DOMAINS; domain++) {
        take_out(domain);
    }
    if (pyprof_counting_is_traced()) {
        pyprof_counting_set_traced(false);
        PyObject *type, *value, *traceback; /* of an error that is set, and stays */
        PyErr_Fetch(&type, &value, &traceback);
        call_tracemalloc("stop", NULL);
        PyErr_Clear();
        PyErr_Restore(type, value, traceback);
    }
}

static bool put_in_for_tracemalloc(const PyMemAllocatorEx *next) {
    for (int domain = 0; domain < PYPROF_HOOK_DOMAINS; domain++) {
        if (!put_in(domain, &next[domain])) {
            PyErr_SetString(PyExc_RuntimeError, "other tools have hooked the allocators too often");
            return false;
        }
    }
    pyprof_stop_tracing_references();
    return call_tracemalloc("clear_traces", NULL); /* what came by while ours were not on top */
}

bool pyprof_allocator_hook_install_traced(unsigned int max_frames) {
    PyMemAllocatorEx next[PYPROF_HOOK_DOMAINS];
    for (int domain = 0; domain < PYPROF_HOOK_DOMAINS; domain++) {
        next[domain] = outermost(domain);
    }
    if (!call_tracemalloc("start", PyLong_FromUnsignedLong(max_frames))) {
        return false;
    }
    for (int domain = 0; domain < PYPROF_HOOK_DOMAINS; domain++) {
        tracers[domain] = outermost(domain);
    }
    pyprof_counting_set_traced(true);
    if (!put_in_for_tracemalloc(next)) {
        pyprof_allocator_hook_uninstall();
        return false;
    }
    pyprof_counting_set_active(true);
    return true;
}

#endif
