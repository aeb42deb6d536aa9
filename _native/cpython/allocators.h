/* What the interpreter's allocators promise, by version. */
#ifndef PYPROF_CPYTHON_ALLOCATORS_H
#define PYPROF_CPYTHON_ALLOCATORS_H

#include <Python.h>

/* The domains OBJ and MEM are called by who holds the GIL of an interpreter; on free-threaded builds, by any
 * attached thread at any time. */
#ifdef Py_GIL_DISABLED
#define PYPROF_OBJECTS_NEED_GIL 0
#else
#define PYPROF_OBJECTS_NEED_GIL 1
#endif

#endif
