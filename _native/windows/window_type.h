/* The Python type Window: an owner of a pyprof_window. */
#ifndef PYPROF_WINDOW_TYPE_H
#define PYPROF_WINDOW_TYPE_H

#include <Python.h>

#include "windows/window.h"

/* Make the type for this module (one a sub-interpreter) and add it as `Window`; -1 with an exception. */
int pyprof_window_type_add(PyObject *module);

/* A Window of that module's type around the window, which it owns from now on: also on failure, where
 * the window is freed and the result is NULL with an exception. */
PyObject *pyprof_window_wrap(PyObject *module, pyprof_window *window);

#endif
