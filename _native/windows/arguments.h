/* From Python arguments to what the encoder and the windows take. GIL held throughout. */
#ifndef PYPROF_ARGUMENTS_H
#define PYPROF_ARGUMENTS_H

#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

#include "windows/pprof_encoder.h"

/* These return false with an exception that names the argument. */
bool pyprof_parse_integer(PyObject *value, const char *name, int64_t least, int64_t largest, int64_t *result);

/* The text as UTF-8, what UTF-8 cannot hold as backslash escapes: new bytes, or NULL with an exception. */
PyObject *pyprof_utf8(PyObject *text, const char *name);
pyprof_text pyprof_bytes_text(PyObject *bytes);

typedef struct {
    pyprof_encoding encoding;
    PyObject *kept; /* list of the bytes that the texts point into */
    pyprof_sample_type *sample_types;
    pyprof_file *files;
    pyprof_numeric_label *numeric_labels;
    pyprof_text *label_values;
    pyprof_text *comments;
} pyprof_encode_arguments;

/* The arguments of Window.encode. Freed by the caller also after a failure. */
bool pyprof_encode_arguments_parse(pyprof_encode_arguments *arguments, PyObject *args, PyObject *kwargs);
void pyprof_encode_arguments_free(pyprof_encode_arguments *arguments);

#endif
