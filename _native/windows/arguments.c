/* See arguments.h. */
#include "windows/arguments.h"

bool pyprof_parse_integer(PyObject *value, const char *name, int64_t least, int64_t largest,
                          int64_t *result) {
    if (!PyIndex_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%s must be an integer, not %.100s", name, Py_TYPE(value)->tp_name);
        return false;
    }
    PyObject *integer = PyNumber_Index(value);
    if (integer == NULL) {
        return false;
    }
    int beyond;
    long long parsed = PyLong_AsLongLongAndOverflow(integer, &beyond);
    Py_DECREF(integer);
    if (parsed == -1 && beyond == 0 && PyErr_Occurred()) {
        return false;
    }
    if (beyond != 0 || parsed < least || parsed > largest) {
        /* The value itself is left out: an integer may have more digits than Python prints. */
        PyErr_Format(PyExc_ValueError, "%s must be from %lld to %lld", name, (long long)least,
                     (long long)largest);
        return false;
    }
    *result = parsed;
    return true;
}

PyObject *pyprof_utf8(PyObject *text, const char *name) {
    if (!PyUnicode_Check(text)) {
        PyErr_Format(PyExc_TypeError, "%s must be str, not %.100s", name, Py_TYPE(text)->tp_name);
        return NULL;
    }
    return PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");
}

pyprof_text pyprof_bytes_text(PyObject *bytes) {
    return (pyprof_text){PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)};
}

/* ---- Window.encode ---- */

static bool keep_text(pyprof_encode_arguments *arguments, PyObject *text, const char *name,
                      pyprof_text *result) {
    PyObject *bytes = pyprof_utf8(text, name);
    if (bytes == NULL) {
        return false;
    }
    *result = pyprof_bytes_text(bytes);
    int status = PyList_Append(arguments->kept, bytes);
    Py_DECREF(bytes);
    return status == 0;
}

/* The items of a sequence as a tuple that nobody else can change, and zeroed room for as many elements. */
static PyObject *sequence_items(PyObject *sequence, const char *name, size_t element_size, void *elements) {
    if (PyUnicode_Check(sequence)) {
        PyErr_Format(PyExc_TypeError, "%s must be a sequence, not str", name);
        return NULL;
    }
    PyObject *items = PySequence_Tuple(sequence);
    if (items == NULL) {
        return NULL;
    }
    void *block = PyMem_Calloc((size_t)PyTuple_GET_SIZE(items) + 1, element_size);
    if (block == NULL) {
        Py_DECREF(items);
        PyErr_NoMemory();
        return NULL;
    }
    *(void **)elements = block;
    return items;
}

static bool check_tuple(PyObject *item, Py_ssize_t size, const char *name, const char *shape) {
    if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != size) {
        PyErr_Format(PyExc_TypeError, "%s must be tuples %s", name, shape);
        return false;
    }
    return true;
}

static bool parse_sample_types(pyprof_encode_arguments *arguments, PyObject *sequence) {
    PyObject *items =
        sequence_items(sequence, "sample_types", sizeof(pyprof_sample_type), &arguments->sample_types);
    if (items == NULL) {
        return false;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(items);
    bool parsed = count > 0;
    if (!parsed) {
        PyErr_SetString(PyExc_ValueError, "sample_types must not be empty");
    }
    for (Py_ssize_t i = 0; i < count && parsed; i++) {
        PyObject *item = PyTuple_GET_ITEM(items, i);
        pyprof_sample_type *sample_type = &arguments->sample_types[i];
        int64_t column = 0;
        parsed =
            check_tuple(item, 3, "sample_types", "(type, unit, column)") &&
            keep_text(arguments, PyTuple_GET_ITEM(item, 0), "sample_types: type", &sample_type->shown.type) &&
            keep_text(arguments, PyTuple_GET_ITEM(item, 1), "sample_types: unit", &sample_type->shown.unit) &&
            pyprof_parse_integer(PyTuple_GET_ITEM(item, 2), "sample_types: column", 0, PYPROF_COLUMNS - 1,
                                 &column);
        sample_type->column = (pyprof_column)column;
    }
    Py_DECREF(items);
    arguments->encoding.sample_types = arguments->sample_types;
    arguments->encoding.sample_type_count = (size_t)count;
    return parsed;
}

static bool parse_files(pyprof_encode_arguments *arguments, PyObject *sequence) {
    if (sequence == NULL || sequence == Py_None) {
        return true;
    }
    PyObject *items = sequence_items(sequence, "files", sizeof(pyprof_file), &arguments->files);
    if (items == NULL) {
        return false;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(items);
    bool parsed = true;
    for (Py_ssize_t i = 0; i < count && parsed; i++) {
        PyObject *item = PyTuple_GET_ITEM(items, i);
        pyprof_file *file = &arguments->files[i];
        parsed = check_tuple(item, 2, "files", "(path, module)") &&
                 keep_text(arguments, PyTuple_GET_ITEM(item, 0), "files: path", &file->path) &&
                 keep_text(arguments, PyTuple_GET_ITEM(item, 1), "files: module", &file->module);
    }
    Py_DECREF(items);
    arguments->encoding.files = arguments->files;
    arguments->encoding.file_count = (size_t)count;
    return parsed;
}

static bool parse_numeric_label(pyprof_encode_arguments *arguments, PyObject *item,
                                pyprof_numeric_label *label) {
    if (!check_tuple(item, 2, "labels", "(name, value)")) {
        return false;
    }
    PyObject *value = PyTuple_GET_ITEM(item, 1);
    label->unit = (pyprof_text){"", 0};
    if (PyTuple_Check(value)) {
        if (!check_tuple(value, 2, "labels: values", "(value, unit)") ||
            !keep_text(arguments, PyTuple_GET_ITEM(value, 1), "labels: unit", &label->unit)) {
            return false;
        }
        value = PyTuple_GET_ITEM(value, 0);
    }
    return keep_text(arguments, PyTuple_GET_ITEM(item, 0), "labels: name", &label->name) &&
           pyprof_parse_integer(value, "labels: value", INT64_MIN, INT64_MAX, &label->value);
}

static bool parse_numeric_labels(pyprof_encode_arguments *arguments, PyObject *mapping) {
    if (mapping == NULL || mapping == Py_None) {
        return true;
    }
    PyObject *pairs = PyMapping_Items(mapping);
    if (pairs == NULL) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Format(PyExc_TypeError, "labels must be a mapping, not %.100s", Py_TYPE(mapping)->tp_name);
        }
        return false;
    }
    PyObject *items =
        sequence_items(pairs, "labels", sizeof(pyprof_numeric_label), &arguments->numeric_labels);
    Py_DECREF(pairs);
    if (items == NULL) {
        return false;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(items);
    bool parsed = true;
    for (Py_ssize_t i = 0; i < count && parsed; i++) {
        parsed = parse_numeric_label(arguments, PyTuple_GET_ITEM(items, i), &arguments->numeric_labels[i]);
    }
    Py_DECREF(items);
    arguments->encoding.numeric_labels = arguments->numeric_labels;
    arguments->encoding.numeric_label_count = (size_t)count;
    return parsed;
}

static bool parse_label_values(pyprof_encode_arguments *arguments, PyObject *sequence) {
    if (sequence == NULL || sequence == Py_None) {
        return true;
    }
    PyObject *items = sequence_items(sequence, "label_values", sizeof(pyprof_text), &arguments->label_values);
    if (items == NULL) {
        return false;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(items);
    bool parsed = true;
    for (Py_ssize_t i = 0; i < count && parsed; i++) {
        PyObject *value = PyTuple_GET_ITEM(items, i);
        parsed = value == Py_None ||
                 keep_text(arguments, value, "label_values: value", &arguments->label_values[i]);
    }
    Py_DECREF(items);
    arguments->encoding.label_values = arguments->label_values;
    arguments->encoding.label_value_count = (size_t)count;
    return parsed;
}

static bool parse_comments(pyprof_encode_arguments *arguments, PyObject *sequence) {
    if (sequence == NULL) {
        return true;
    }
    PyObject *items = sequence_items(sequence, "comments", sizeof(pyprof_text), &arguments->comments);
    if (items == NULL) {
        return false;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(items);
    bool parsed = true;
    for (Py_ssize_t i = 0; i < count && parsed; i++) {
        parsed = keep_text(arguments, PyTuple_GET_ITEM(items, i), "comments", &arguments->comments[i]);
    }
    Py_DECREF(items);
    arguments->encoding.comments = arguments->comments;
    arguments->encoding.comment_count = (size_t)count;
    return parsed;
}

static bool parse_period(pyprof_encode_arguments *arguments, PyObject *type, PyObject *period) {
    if (type == NULL || period == NULL) {
        PyErr_Format(PyExc_TypeError, "encode() missing keyword argument '%s'",
                     type == NULL ? "period_type" : "period");
        return false;
    }
    pyprof_encoding *encoding = &arguments->encoding;
    return check_tuple(type, 2, "period_type", "(type, unit)") &&
           keep_text(arguments, PyTuple_GET_ITEM(type, 0), "period_type: type",
                     &encoding->period_type.type) &&
           keep_text(arguments, PyTuple_GET_ITEM(type, 1), "period_type: unit",
                     &encoding->period_type.unit) &&
           pyprof_parse_integer(period, "period", 0, INT64_MAX, &encoding->period);
}

static bool parse_text(pyprof_encode_arguments *arguments, PyObject *text, const char *name,
                       pyprof_text *result) {
    *result = (pyprof_text){"", 0};
    return text == NULL || keep_text(arguments, text, name, result);
}

bool pyprof_encode_arguments_parse(pyprof_encode_arguments *arguments, PyObject *args, PyObject *kwargs) {
    static char *names[] = {
        "sample_types", "period_type",         "period",  "files", "labels", "label_values",
        "comments",     "default_sample_type", "mapping", NULL};
    PyObject *sample_types, *period_type = NULL, *period = NULL, *files = NULL, *labels = NULL,
                            *label_values = NULL, *comments = NULL, *default_sample_type = NULL,
                            *mapping = NULL;
    *arguments = (pyprof_encode_arguments){0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OOOOOOOO:encode", names, &sample_types, &period_type,
                                     &period, &files, &labels, &label_values, &comments, &default_sample_type,
                                     &mapping)) {
        return false;
    }
    arguments->kept = PyList_New(0);
    return arguments->kept != NULL && parse_period(arguments, period_type, period) &&
           parse_sample_types(arguments, sample_types) && parse_files(arguments, files) &&
           parse_numeric_labels(arguments, labels) && parse_label_values(arguments, label_values) &&
           parse_comments(arguments, comments) &&
           parse_text(arguments, default_sample_type, "default_sample_type",
                      &arguments->encoding.default_sample_type) &&
           parse_text(arguments, mapping, "mapping", &arguments->encoding.mapping);
}

void pyprof_encode_arguments_free(pyprof_encode_arguments *arguments) {
    Py_CLEAR(arguments->kept);
    PyMem_Free(arguments->sample_types);
    PyMem_Free(arguments->files);
    PyMem_Free(arguments->numeric_labels);
    PyMem_Free(arguments->label_values);
    PyMem_Free(arguments->comments);
}
