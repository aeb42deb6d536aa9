/* The Python types `Thread`, `Event` and `Lock` of pyprof._native: threads and waiting that nothing has
 * patched. */
#ifndef PYPROF_THREAD_TYPE_H
#define PYPROF_THREAD_TYPE_H

#include <Python.h>

int pyprof_thread_types_add(PyObject *module); /* 0, or -1 with an error set */

/* Seconds as a Python number to nanoseconds; inf waits for ever. -1 with an error set where it is none or
 * negative. */
int64_t pyprof_seconds_to_ns(PyObject *seconds);

#endif
