/* See after_fork.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/after_fork.h"

#include <stdbool.h>

#include "cpython/interpreter.h"
#include "sampling/clocks.h"

/* Other hooks are shorter than this; a caller that goes deeper at once must not put the restart off for ever.
 */
enum { LONGEST_HOOKS_NS = 100000000 };

/* Changed with the GIL, or on free-threaded builds by the one thread that forks (a host with more needs no
 * restart). */
static struct {
    PyObject *callable;
    size_t depth; /* Python frames up to the one that called os.fork() */
    int64_t give_up_ns;
} after;

static size_t own_depth(void) {
    size_t depth = 0;
    PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get());
    while (frame != NULL) {
        depth++;
        PyFrameObject *back = PyFrame_GetBack(frame);
        Py_DECREF(frame);
        frame = back;
    }
    return depth;
}

static int run(void *unused) {
    (void)unused;
    if (after.callable == NULL) {
        return 0;
    }
    /* Still inside somebody else's hook? Then os.fork() has not returned. */
    if (own_depth() > after.depth && pyprof_monotonic_ns() < after.give_up_ns &&
        Py_AddPendingCall(run, NULL) == 0) {
        return 0;
    }
    PyObject *callable = after.callable;
    after.callable = NULL;
    PyObject *result = PyObject_CallNoArgs(callable);
    if (result == NULL) {
        PyErr_WriteUnraisable(callable);
    }
    Py_XDECREF(result);
    Py_DECREF(callable);
    return 0;
}

void pyprof_after_fork_prepare(PyObject *callable) {
    Py_XSETREF(after.callable, Py_XNewRef(callable));
    after.depth =
        callable == NULL ? 0 : own_depth() - 1; /* the hook that calls us is not the caller of os.fork() */
}

void pyprof_after_fork_schedule(void) {
    if (after.callable != NULL) {
        after.give_up_ns = pyprof_monotonic_ns() + LONGEST_HOOKS_NS;
        if (Py_AddPendingCall(run, NULL) != 0) {
            run(NULL); /* the queue is full: better with a warning than not at all */
        }
    }
}

#endif
