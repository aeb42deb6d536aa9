/* See label_arguments.h. */
#include "labels/label_arguments.h"

#include <stdbool.h>
#include <string.h>

#include "windows/arguments.h"

/* What the profile itself says. */
static const struct {
    const char *name;
    Py_ssize_t size;
} reserved[] = {{"service_name", 12}, {"role", 4}, {"pid", 3}};

static bool is_letter(unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_name(const char *text, Py_ssize_t size) {
    if (size < 1 || size > PYPROF_LONGEST_LABEL_NAME || !is_letter((unsigned char)text[0]) ||
        (text[0] == '_' && size > 1 && text[1] == '_')) {
        return false;
    }
    for (Py_ssize_t i = 1; i < size; i++) {
        if (!is_letter((unsigned char)text[i]) && !(text[i] >= '0' && text[i] <= '9')) {
            return false;
        }
    }
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
        if (size == reserved[i].size && memcmp(text, reserved[i].name, (size_t)size) == 0) {
            return false;
        }
    }
    return true;
}

static bool parse_name(PyObject *name, pyprof_label *label) {
    if (PyUnicode_Check(name) && PyUnicode_IS_ASCII(name) &&
        is_name((const char *)PyUnicode_1BYTE_DATA(name), PyUnicode_GET_LENGTH(name))) {
        label->name = (const char *)PyUnicode_1BYTE_DATA(name);
        label->name_size = (uint32_t)PyUnicode_GET_LENGTH(name);
        return true;
    }
    PyErr_Format(
        PyExc_ValueError,
        "label names must be like [a-zA-Z_][a-zA-Z0-9_]*, not begin with '__', and be none of pid, role, "
        "service_name: %.100R",
        name);
    return false;
}

/* Not in the middle of a character. */
static uint32_t cut(const char *text, size_t size) {
    if (size <= PYPROF_LONGEST_LABEL_VALUE) {
        return (uint32_t)size;
    }
    uint32_t end = PYPROF_LONGEST_LABEL_VALUE;
    while (end > 0 && ((unsigned char)text[end] & 0xC0) == 0x80) {
        end--;
    }
    return end;
}

/* `*kept`: a new reference to what the text is in, or NULL where that is `value`. */
static bool parse_value(PyObject *value, pyprof_label *label, PyObject **kept) {
    label->value = "";
    label->value_size = 0;
    if (value == Py_None) {
        return true;
    }
    PyObject *text = value;
    if (!PyUnicode_CheckExact(value)) {
        text = *kept = PyObject_Str(value);
        if (text == NULL) {
            return false;
        }
    }
    Py_ssize_t size;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &size);
    if (utf8 == NULL) { /* lone surrogates */
        PyErr_Clear();
        PyObject *bytes = pyprof_utf8(text, "label");
        Py_XSETREF(*kept, bytes);
        if (bytes == NULL) {
            return false;
        }
        utf8 = PyBytes_AS_STRING(bytes);
        size = PyBytes_GET_SIZE(bytes);
    }
    label->value = utf8;
    label->value_size = cut(utf8, (size_t)size);
    return true;
}

pyprof_label_list *pyprof_parse_labels(PyObject *const *values, PyObject *names) {
    const Py_ssize_t count = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    if (count > PYPROF_MOST_LABELS) {
        PyErr_Format(PyExc_ValueError, "at most %d labels, not %zd", PYPROF_MOST_LABELS, count);
        return NULL;
    }
    pyprof_label labels[PYPROF_MOST_LABELS];
    labels[0].name = NULL; /* the compiler does not see that `count` of them are set */
    PyObject *kept[PYPROF_MOST_LABELS];
    Py_ssize_t parsed = 0;
    bool fits = true;
    while (parsed < count && fits) {
        kept[parsed] = NULL;
        fits = parse_name(PyTuple_GET_ITEM(names, parsed), &labels[parsed]) &&
               parse_value(values[parsed], &labels[parsed], &kept[parsed]);
        parsed++;
    }
    pyprof_label_list *list = fits ? pyprof_label_list_new(labels, (uint32_t)count) : NULL;
    if (fits && list == NULL) {
        PyErr_NoMemory();
    }
    while (parsed > 0) {
        Py_XDECREF(kept[--parsed]);
    }
    return list;
}
