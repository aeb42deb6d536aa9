/* The Python side of labels: `pyprof.labels`, `set_labels`, and the object that the context variable holds.
 *
 * Attached throughout. The variable's value is an object that the timer thread may read at any time, also
 * when it has just been freed: it names a label set by reference ("labels/label_set.h").
 */
#ifndef PYPROF_LABELS_TYPE_H
#define PYPROF_LABELS_TYPE_H

#include <Python.h>

#include "labels/label_set.h"

#define PYPROF_LABEL_SET_MAGIC UINT64_C(0x736c6562616c7970)

typedef struct pyprof_label_set_object {
    PyObject_HEAD uint64_t magic;
    pyprof_label_reference reference;
    pyprof_label_set *set;
    struct pyprof_label_set_object *parent; /* NULL: none */
    uint64_t owner;                         /* the block; 0: `set_labels` */
} pyprof_label_set_object;

/* Of each interpreter; what the module's state is. */
typedef struct {
    PyTypeObject *labels_type, *set_type;
    PyObject *variable;
} pyprof_labels_state;

/* Adds `Labels`; -1 with an error set. */
int pyprof_labels_add(PyObject *module);
int pyprof_labels_traverse(PyObject *module, visitproc visit, void *arg);
int pyprof_labels_clear(PyObject *module);

/* set_labels(**labels) */
PyObject *pyprof_set_labels(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *names);
/* Those of the calling context, and of another one (contextvars.Context), as a dictionary. */
PyObject *pyprof_current_labels(PyObject *module, PyObject *unused);
PyObject *pyprof_context_labels(PyObject *module, PyObject *context);

/* A mapping of names to values as a set; NULL with an error set. */
pyprof_label_set *pyprof_label_set_of_mapping(PyObject *mapping);

#endif
