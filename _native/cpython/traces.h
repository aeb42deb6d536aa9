/* What tracemalloc has in its tables: every block that lives and is traced, exactly.
 *
 * Attached, with a GIL (free-threaded builds: tracemalloc does not stand being read there). The tables are
 * locked while they are walked: meanwhile nobody else allocates what is traced.
 */
#ifndef PYPROF_CPYTHON_TRACES_H
#define PYPROF_CPYTHON_TRACES_H

#include <Python.h>
#include <stdbool.h>

/* Whether this version's tables can be read; else there is only what the module _tracemalloc gives. */
bool pyprof_traces_can_be_read(void);

/* The distinct tracebacks, as a new list of (blocks, bytes, ((file name, line), …)), leaf first; empty where
 * tracemalloc is off. NULL with an error set. */
PyObject *pyprof_traces_read(void);

/* tracemalloc has started: have it not be asked at every new object whether it knows the block (3.13). */
void pyprof_stop_tracing_references(void);

/* NULL, or why nothing may be reported to tracemalloc here; and whether that may be done now: not while
 * somebody holds its tables, who may be the calling thread. */
const char *pyprof_tracking_obstacle(void);
bool pyprof_may_track(void);

/* The traceback of one block, as above; Py_None where it is not traced. A new reference; NULL with an error
 * set. */
PyObject *pyprof_traceback_of(unsigned int domain, const void *address);

#endif
