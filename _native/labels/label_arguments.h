/* From keyword arguments to labels. Attached. */
#ifndef PYPROF_LABEL_ARGUMENTS_H
#define PYPROF_LABEL_ARGUMENTS_H

#include <Python.h>

#include "labels/label_set.h"

/* The values by the names of the tuple (NULL: none). ValueError for a name that profiles cannot have, or too
 * many; values may be anything, None takes a label away. NULL with an error set. */
pyprof_label_list *pyprof_parse_labels(PyObject *const *values, PyObject *names);

#endif
