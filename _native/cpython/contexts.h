/* Contexts: the value of one context variable in the context of a thread that is running.
 *
 * From the timer thread, attached or not, holding no lock: by guarded reads; or where nothing can change
 * meanwhile (the calling thread's own context, or all threads stand still): as it is. What is found was the
 * value at some moment during the search; whether the object is still there is not said.
 */
#ifndef PYPROF_CPYTHON_CONTEXTS_H
#define PYPROF_CPYTHON_CONTEXTS_H

#include <Python.h>
#include <stdbool.h>
#include <stddef.h>

typedef enum { PYPROF_MAY_CHANGE, PYPROF_STANDS_STILL } pyprof_context_state;

/* The variable that is searched for. Learns what contexts look like, and proves on the calling thread that
 * its values are found. Attached; keeps a reference. NULL, or why it cannot be. Once a process. */
const char *pyprof_contexts_prepare(PyObject *variable);

/* The current context of a thread: NULL, it has none. */
const void *pyprof_context_of(PyThreadState *thread);

/* The value in that context; NULL: none. */
const void *pyprof_context_find(const void *context, pyprof_context_state state);

/* The same in two steps: where a context has the pointer to its variables, which every change replaces; and
 * the value among the variables that this said. */
const char *pyprof_context_variables_place(const char *context);
const void *pyprof_context_find_among(const void *variables, pyprof_context_state state);

/* Copies from where something may be gone by now. False: it is. */
bool pyprof_context_copy(void *to, const void *from, size_t size, pyprof_context_state state);

#endif
