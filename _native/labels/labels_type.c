/* See labels_type.h. */
#include "labels/labels_type.h"

#include <stdbool.h>

#include "cpython/critical_section.h"
#include "labels/label_arguments.h"

typedef pyprof_label_set_object LabelSetObject;

typedef struct {
    PyObject_HEAD uint64_t serial; /* never used again */
    pyprof_label_list *own;
    LabelSetObject *last; /* of the block that was entered last; NULL: none was */
    PyObject *token;      /* of the entry before which there were no labels; NULL: none was such */
} LabelsObject;

/* ---- The variable's value ---- */

static void set_dealloc(LabelSetObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    self->magic = 0;
    self->reference.id = 0;
    pyprof_label_set_release(self->set);
    Py_XDECREF(self->parent);
    type->tp_free(self);
    Py_DECREF(type);
}

static LabelSetObject *new_set(const pyprof_labels_state *state, pyprof_label_list *labels,
                               LabelSetObject *parent, uint64_t owner) {
    LabelSetObject *self = PyObject_New(LabelSetObject, state->set_type);
    if (self == NULL) {
        return NULL;
    }
    self->magic = 0;
    self->parent = (LabelSetObject *)Py_XNewRef((PyObject *)parent);
    self->owner = owner;
    self->set = pyprof_label_set_new(labels, parent == NULL ? NULL : parent->set);
    if (self->set == NULL) {
        Py_DECREF(self);
        PyErr_NoMemory();
        return NULL;
    }
    self->reference = pyprof_label_set_reference(self->set);
    self->magic = PYPROF_LABEL_SET_MAGIC;
    return self;
}

/* That of the calling context, a new reference in `*set`, or NULL. False with an error set. */
static bool get_current(const pyprof_labels_state *state, LabelSetObject **set) {
    PyObject *value = NULL;
    *set = NULL;
    if (PyContextVar_Get(state->variable, NULL, &value) < 0) {
        return false;
    }
    if (value != NULL && Py_IS_TYPE(value, state->set_type)) {
        *set = (LabelSetObject *)value;
    } else {
        Py_XDECREF(value);
    }
    return true;
}

/* The token; NULL with an error set. */
static PyObject *make_current(const pyprof_labels_state *state, LabelSetObject *set) {
    PyObject *token = PyContextVar_Set(state->variable, (PyObject *)set);
    pyprof_label_set_mark_current(set->set);
    return token;
}

static bool set_current(const pyprof_labels_state *state, LabelSetObject *set) {
    PyObject *token = make_current(state, set);
    Py_XDECREF(token);
    return token != NULL;
}

/* ---- Blocks ---- */

static PyObject *new_labels(PyTypeObject *type, PyObject *const *values, PyObject *names) {
    static uint64_t last_serial;
    pyprof_label_list *own = pyprof_parse_labels(values, names);
    if (own == NULL) {
        return NULL;
    }
    LabelsObject *self = PyObject_New(LabelsObject, type);
    if (self == NULL) {
        pyprof_label_list_release(own);
        return NULL;
    }
    self->serial = pyprof_next_number(&last_serial);
    self->own = own;
    self->last = NULL;
    self->token = NULL;
    return (PyObject *)self;
}

static bool check_keywords_only(Py_ssize_t nargs, const char *function) {
    if (nargs > 0) {
        PyErr_Format(PyExc_TypeError, "%s() takes keyword arguments only: %s(name=value)", function,
                     function);
    }
    return nargs == 0;
}

static PyObject *labels_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *names) {
    return check_keywords_only(PyVectorcall_NARGS(nargsf), "labels")
               ? new_labels((PyTypeObject *)type, args, names)
               : NULL;
}

/* For those that ask for `__new__`. */
static PyObject *labels_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    if (!check_keywords_only(PyTuple_GET_SIZE(args), "labels")) {
        return NULL;
    }
    PyObject *names = kwargs == NULL ? PyTuple_New(0) : PySequence_Tuple(kwargs);
    PyObject *values = kwargs == NULL ? PyTuple_New(0) : PyDict_Values(kwargs);
    PyObject *tuple = names == NULL || values == NULL ? NULL : PySequence_Tuple(values);
    PyObject *self = tuple == NULL ? NULL : new_labels(type, &PyTuple_GET_ITEM(tuple, 0), names);
    Py_XDECREF(names);
    Py_XDECREF(values);
    Py_XDECREF(tuple);
    return self;
}

static void labels_dealloc(LabelsObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    pyprof_label_list_release(self->own);
    Py_XDECREF(self->last);
    Py_XDECREF(self->token);
    type->tp_free(self);
    Py_DECREF(type);
}

/* The set of this block within `parent`: the last one, if it was entered there. A new reference. */
static LabelSetObject *set_within(const pyprof_labels_state *state, LabelsObject *self,
                                  LabelSetObject *parent) {
    LabelSetObject *set;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->last == NULL || self->last->parent != parent) {
        set = new_set(state, self->own, parent, self->serial);
        if (set != NULL) {
            Py_XSETREF(self->last, set);
        }
    }
    set = (LabelSetObject *)Py_XNewRef((PyObject *)self->last);
    Py_END_CRITICAL_SECTION();
    return set;
}

static void swap_token(LabelsObject *self, PyObject **token) {
    Py_BEGIN_CRITICAL_SECTION(self);
    PyObject *before = self->token;
    self->token = *token;
    *token = before;
    Py_END_CRITICAL_SECTION();
}

static PyObject *labels_enter(LabelsObject *self, PyObject *Py_UNUSED(unused)) {
    const pyprof_labels_state *state = PyType_GetModuleState(Py_TYPE(self));
    LabelSetObject *parent, *set;
    if (!get_current(state, &parent)) {
        return NULL;
    }
    set = set_within(state, self, parent);
    PyObject *token = set == NULL ? NULL : make_current(state, set);
    const bool entered = token != NULL;
    if (entered && parent == NULL) {
        swap_token(self, &token);
    }
    Py_XDECREF(token);
    Py_XDECREF(parent);
    Py_XDECREF(set);
    return entered ? Py_NewRef(self) : NULL;
}

/* To no labels. To take the variable out of the context costs less than to set another value, but takes the
 * token of just that entry, and another one may have been made since. */
static bool reset(const pyprof_labels_state *state, LabelsObject *self) {
    PyObject *token = NULL;
    swap_token(self, &token);
    const bool is_reset = token != NULL && PyContextVar_Reset(state->variable, token) == 0;
    Py_XDECREF(token);
    if (is_reset) {
        return true;
    }
    PyErr_Clear();
    token = PyContextVar_Set(state->variable, Py_None);
    Py_XDECREF(token);
    return token != NULL;
}

/* Back to what was before the block, whatever `set_labels` did in it; in a context that is not in it,
 * nothing. An exit must not raise: without memory the labels stay. */
static PyObject *labels_exit(LabelsObject *self, PyObject *const *Py_UNUSED(args),
                             Py_ssize_t Py_UNUSED(nargs)) {
    const pyprof_labels_state *state = PyType_GetModuleState(Py_TYPE(self));
    LabelSetObject *current = NULL;
    bool is_left = get_current(state, &current);
    LabelSetObject *set = current;
    while (set != NULL && set->owner != self->serial) {
        set = set->parent;
    }
    if (set != NULL) {
        is_left = set->parent == NULL ? reset(state, self) : set_current(state, set->parent);
    }
    Py_XDECREF(current);
    if (!is_left) {
        PyErr_Clear();
    }
    Py_RETURN_FALSE;
}

static bool add(LabelsObject *self, pyprof_label_list *labels) {
    bool added = false;
    Py_BEGIN_CRITICAL_SECTION(self);
    pyprof_label_list *joined = pyprof_label_list_join(labels, self->own);
    if (joined != NULL) {
        pyprof_label_list_release(self->own);
        self->own = joined; /* for blocks that are entered from now on */
        added = self->last == NULL || pyprof_label_set_add(self->last->set, labels);
    }
    Py_END_CRITICAL_SECTION();
    return added;
}

static PyObject *labels_add(LabelsObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    if (!check_keywords_only(nargs, "add")) {
        return NULL;
    }
    pyprof_label_list *labels = pyprof_parse_labels(args, names);
    if (labels == NULL) {
        return NULL;
    }
    const bool added = add(self, labels);
    pyprof_label_list_release(labels);
    if (!added) {
        return PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}

/* As a decorator. */
static PyObject *labels_call(PyObject *self, PyObject *args, PyObject *kwargs) {
    PyObject *function;
    static char *keywords[] = {"function", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:labels", keywords, &function)) {
        return NULL;
    }
    PyObject *module = PyImport_ImportModule("pyprof.context");
    PyObject *decorated =
        module == NULL ? NULL : PyObject_CallMethod(module, "decorate", "OO", self, function);
    Py_XDECREF(module);
    return decorated;
}

/* {name: value}; NULL with an error set. */
static PyObject *as_dictionary(const pyprof_label_set *set) {
    pyprof_label labels[PYPROF_MOST_LABELS];
    const uint32_t count = set == NULL ? 0 : pyprof_label_set_resolve(set, labels);
    PyObject *dictionary = PyDict_New();
    for (uint32_t i = 0; i < count && dictionary != NULL; i++) {
        PyObject *name = PyUnicode_DecodeUTF8(labels[i].name, labels[i].name_size, "replace");
        PyObject *value = PyUnicode_DecodeUTF8(labels[i].value, labels[i].value_size, "replace");
        if (name == NULL || value == NULL || PyDict_SetItem(dictionary, name, value) < 0) {
            Py_CLEAR(dictionary);
        }
        Py_XDECREF(name);
        Py_XDECREF(value);
    }
    return dictionary;
}

/* ---- The module's functions ---- */

PyObject *pyprof_set_labels(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    const pyprof_labels_state *state = PyModule_GetState(module);
    LabelSetObject *current, *set = NULL;
    if (!check_keywords_only(nargs, "set_labels")) {
        return NULL;
    }
    pyprof_label_list *labels = pyprof_parse_labels(args, names);
    if (labels == NULL || !get_current(state, &current)) {
        pyprof_label_list_release(labels);
        return NULL;
    }
    if (current != NULL && current->owner == 0) { /* else a loop would make a chain without an end */
        pyprof_label_list *joined = pyprof_label_list_join(labels, pyprof_label_set_own(current->set));
        set = joined == NULL ? NULL : new_set(state, joined, current->parent, 0);
        pyprof_label_list_release(joined);
    } else {
        set = new_set(state, labels, current, 0);
    }
    pyprof_label_list_release(labels);
    Py_XDECREF(current);
    const bool is_set = set != NULL && set_current(state, set);
    Py_XDECREF(set);
    if (!is_set) {
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}

PyObject *pyprof_current_labels(PyObject *module, PyObject *Py_UNUSED(unused)) {
    LabelSetObject *current;
    if (!get_current(PyModule_GetState(module), &current)) {
        return NULL;
    }
    PyObject *dictionary = as_dictionary(current == NULL ? NULL : current->set);
    Py_XDECREF(current);
    return dictionary;
}

PyObject *pyprof_context_labels(PyObject *module, PyObject *context) {
    const pyprof_labels_state *state = PyModule_GetState(module);
    PyObject *value = PyObject_CallMethod(context, "get", "O", state->variable);
    if (value == NULL) {
        return NULL;
    }
    const bool is_set = Py_IS_TYPE(value, state->set_type);
    PyObject *dictionary = as_dictionary(is_set ? ((LabelSetObject *)value)->set : NULL);
    Py_DECREF(value);
    return dictionary;
}

pyprof_label_set *pyprof_label_set_of_mapping(PyObject *mapping) {
    if (!PyDict_Check(mapping) && !PyObject_HasAttrString(mapping, "keys")) {
        PyErr_Format(PyExc_TypeError, "labels must be a mapping, not %.100s", Py_TYPE(mapping)->tp_name);
        return NULL;
    }
    PyObject *names = PyMapping_Keys(mapping), *values = names == NULL ? NULL : PyMapping_Values(mapping);
    PyObject *name_tuple = values == NULL ? NULL : PySequence_Tuple(names);
    PyObject *value_tuple = name_tuple == NULL ? NULL : PySequence_Tuple(values);
    pyprof_label_set *set = NULL;
    if (value_tuple != NULL && PyTuple_GET_SIZE(value_tuple) == PyTuple_GET_SIZE(name_tuple)) {
        pyprof_label_list *labels = pyprof_parse_labels(&PyTuple_GET_ITEM(value_tuple, 0), name_tuple);
        set = labels == NULL ? NULL : pyprof_label_set_new(labels, NULL);
        pyprof_label_list_release(labels);
    }
    Py_XDECREF(names);
    Py_XDECREF(values);
    Py_XDECREF(name_tuple);
    Py_XDECREF(value_tuple);
    if (set == NULL && !PyErr_Occurred()) {
        PyErr_NoMemory();
    }
    return set;
}

/* ---- The types ---- */

static PyMethodDef labels_methods[] = {
    {"__enter__", (PyCFunction)labels_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))labels_exit, METH_FASTCALL, NULL},
    {"add", (PyCFunction)(void (*)(void))labels_add, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR(
         "add(**labels)\n--\n\n"
         "Add labels to the block, and to what was sampled in it before.\n\n"
         "That is: as far as the profile of that interval has not been made yet. Also after the block has\n"
         "ended, and from any thread; of a block that runs several times, the one that began last.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot labels_slots[] = {
    {Py_tp_doc,
     (void *)PyDoc_STR(
         "labels(**labels)\n--\n\n"
         "Labels on everything that is sampled in a block of code; a decorator, too.\n\n"
         "They go with the context (contextvars): to asyncio tasks, to_thread, copied contexts, and\n"
         "on free-threaded builds to threads that are started in the block. Within another block's they\n"
         "are added; a value None takes that one's away. Values are text, or made text by str(), and cut\n"
         "at 2048 bytes. Raises ValueError for a name that profiles cannot have, or for more than 32.")},
    {Py_tp_new, labels_new},
    {Py_tp_call, labels_call},
    {Py_tp_dealloc, labels_dealloc},
    {Py_tp_methods, labels_methods},
    {0, NULL},
};

static PyType_Spec labels_spec = {
    .name = "pyprof.labels",
    .basicsize = sizeof(LabelsObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = labels_slots,
};

static PyType_Slot set_slots[] = {
    {Py_tp_dealloc, set_dealloc},
    {0, NULL},
};

static PyType_Spec set_spec = {
    .name = "pyprof._native.LabelSet",
    .basicsize = sizeof(LabelSetObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = set_slots,
};

int pyprof_labels_add(PyObject *module) {
    pyprof_labels_state *state = PyModule_GetState(module);
    state->labels_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &labels_spec, NULL);
    state->set_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &set_spec, NULL);
    state->variable = PyContextVar_New("pyprof_labels", NULL);
    if (state->labels_type == NULL || state->set_type == NULL || state->variable == NULL) {
        return -1;
    }
    state->labels_type->tp_vectorcall = labels_vectorcall;
    return PyModule_AddObjectRef(module, "Labels", (PyObject *)state->labels_type);
}

int pyprof_labels_traverse(PyObject *module, visitproc visit, void *arg) {
    pyprof_labels_state *state = PyModule_GetState(module);
    Py_VISIT(state->labels_type);
    Py_VISIT(state->set_type);
    Py_VISIT(state->variable);
    return 0;
}

int pyprof_labels_clear(PyObject *module) {
    pyprof_labels_state *state = PyModule_GetState(module);
    Py_CLEAR(state->labels_type);
    Py_CLEAR(state->set_type);
    Py_CLEAR(state->variable);
    return 0;
}
