/* See window_type.h.
 *
 * Each object has a lock, since windows have none and encoding runs without the GIL. Nothing that can
 * run Python code is called while it is held.
 */
#include "windows/window_type.h"

#include "labels/labels_type.h"
#include "windows/arguments.h"
#include "windows/label_table.h"
#include "windows/stack_table.h"
#include "windows/window_files.h"

#define DEFAULT_MAX_BYTES ((int64_t)32 * 1024 * 1024)

typedef struct {
    PyObject_HEAD pyprof_window *window;
    PyThread_type_lock lock;

    /* From the content of a symbol to its number, so that `add` makes each only once. */
    pyprof_hash_index symbol_index;
    uint32_t symbols_indexed;
    pyprof_budget index_budget; /* no limit: it only serves the index */
} WindowObject;

static void lock_window(WindowObject *self) {
    if (!PyThread_acquire_lock(self->lock, NOWAIT_LOCK)) {
        PyThreadState *thread = PyEval_SaveThread();
        PyThread_acquire_lock(self->lock, WAIT_LOCK);
        PyEval_RestoreThread(thread);
    }
}

static void unlock_window(WindowObject *self) { PyThread_release_lock(self->lock); }

/* ---- Life ---- */

/* Owns the window from the start. */
static PyObject *new_object(PyTypeObject *type, pyprof_window *window) {
    WindowObject *self = (WindowObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        pyprof_window_free(window);
        return NULL;
    }
    self->window = window;
    self->symbols_indexed = PYPROF_PSEUDO_SYMBOLS;
    self->index_budget.limit = SIZE_MAX;
    self->lock = PyThread_allocate_lock();
    if (self->window == NULL || self->lock == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static bool parse_optional(PyObject *value, const char *name, int64_t largest, int64_t *result) {
    return value == NULL || pyprof_parse_integer(value, name, 0, largest, result);
}

static PyObject *window_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"max_bytes", "start_ns", "duration_ns", "period_ns", NULL};
    PyObject *max_bytes = NULL, *start = NULL, *duration = NULL, *period = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O$OOO:Window", names, &max_bytes, &start, &duration,
                                     &period)) {
        return NULL;
    }
    int64_t limit = DEFAULT_MAX_BYTES;
    pyprof_window_info info = {0};
    if (!parse_optional(max_bytes, "max_bytes", PTRDIFF_MAX, &limit) ||
        !parse_optional(start, "start_ns", INT64_MAX, &info.start_ns) ||
        !parse_optional(duration, "duration_ns", INT64_MAX, &info.duration_ns) ||
        !parse_optional(period, "period_ns", INT64_MAX, &info.period_ns)) {
        return NULL;
    }
    pyprof_window *window = pyprof_window_new((size_t)limit);
    if (window != NULL) {
        *pyprof_window_get_info(window) = info;
    }
    return new_object(type, window);
}

static void window_dealloc(WindowObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    pyprof_hash_index_free(&self->symbol_index, &self->index_budget);
    pyprof_window_free(self->window);
    if (self->lock != NULL) {
        PyThread_free_lock(self->lock);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- add ---- */

typedef struct {
    pyprof_text qualname, filename;
    int32_t first_line, line;
} frame_text;

typedef struct {
    Py_ssize_t depth;
    frame_text *texts;
    PyObject *kept; /* list of the bytes that the texts point into */
    pyprof_frame *frames;
    bool *owned;                   /* by frame: its symbol is new, its reference ours */
    pyprof_hash_index new_symbols; /* from content to the first frame that has it */
    pyprof_budget budget;
} stack_arguments;

static uint32_t hash_content(pyprof_text qualname, pyprof_text filename, int32_t first_line) {
    return pyprof_hash_words((const uint32_t[]){pyprof_hash_bytes(qualname.data, qualname.size),
                                                pyprof_hash_bytes(filename.data, filename.size),
                                                (uint32_t)first_line},
                             3);
}

static bool has_content(const pyprof_symbol *symbol, const frame_text *text) {
    return symbol->first_line == text->first_line && symbol->qualname_size == text->qualname.size &&
           symbol->filename_size == text->filename.size && symbol->linetable_size == 0 &&
           memcmp(symbol->qualname, text->qualname.data, text->qualname.size) == 0 &&
           memcmp(symbol->filename, text->filename.data, text->filename.size) == 0;
}

static bool index_symbols(WindowObject *self) {
    const pyprof_stack_table *stacks = pyprof_window_get_stacks(self->window);
    uint32_t count = pyprof_stack_table_symbol_count(stacks);
    for (; self->symbols_indexed < count; self->symbols_indexed++) {
        if (!pyprof_hash_index_reserve(&self->symbol_index, &self->index_budget)) {
            return false;
        }
        const pyprof_symbol *symbol = pyprof_stack_table_symbol(stacks, self->symbols_indexed);
        uint32_t hash =
            hash_content((pyprof_text){symbol->qualname, symbol->qualname_size},
                         (pyprof_text){symbol->filename, symbol->filename_size}, symbol->first_line);
        pyprof_hash_index_insert(&self->symbol_index, hash, self->symbols_indexed);
    }
    return true;
}

/* The symbol of frame `i`: one of the window, or of an earlier frame, or a new one. */
static bool resolve_symbol(WindowObject *self, stack_arguments *stack, uint32_t i) {
    const pyprof_stack_table *stacks = pyprof_window_get_stacks(self->window);
    const frame_text *text = &stack->texts[i];
    uint32_t hash = hash_content(text->qualname, text->filename, text->first_line), number;
    stack->frames[i].lasti = text->line;
    pyprof_probe probe = pyprof_hash_index_probe(&self->symbol_index, hash);
    while (pyprof_hash_index_next(&self->symbol_index, &probe, &number)) {
        pyprof_symbol *symbol = (pyprof_symbol *)pyprof_stack_table_symbol(stacks, number);
        if (has_content(symbol, text)) {
            stack->frames[i].symbol = symbol;
            return true;
        }
    }
    probe = pyprof_hash_index_probe(&stack->new_symbols, hash);
    while (pyprof_hash_index_next(&stack->new_symbols, &probe, &number)) {
        if (has_content(stack->frames[number].symbol, text)) {
            stack->frames[i].symbol = stack->frames[number].symbol;
            return true;
        }
    }
    if (!pyprof_hash_index_reserve(&stack->new_symbols, &stack->budget)) {
        return false;
    }
    stack->frames[i].symbol = pyprof_symbol_new(text->qualname.data, text->qualname.size, text->filename.data,
                                                text->filename.size, text->first_line, NULL, 0);
    stack->owned[i] = stack->frames[i].symbol != NULL;
    if (stack->owned[i]) {
        pyprof_hash_index_insert(&stack->new_symbols, hash, i);
    }
    return stack->owned[i];
}

/* With the lock held; false without memory. */
static bool add_stack(WindowObject *self, stack_arguments *stack, bool truncated, pyprof_label_set *labels,
                      const pyprof_values *values) {
    if (!index_symbols(self)) {
        return false;
    }
    for (Py_ssize_t i = 0; i < stack->depth; i++) {
        if (!resolve_symbol(self, stack, (uint32_t)i)) {
            return false;
        }
    }
    pyprof_sample_id sample =
        pyprof_window_intern(self->window, stack->frames, (size_t)stack->depth, truncated, labels);
    pyprof_window_add(self->window, sample, values);
    return true;
}

static bool parse_text(PyObject *kept, PyObject *value, const char *name, pyprof_text *text) {
    PyObject *bytes = pyprof_utf8(value, name);
    if (bytes == NULL) {
        return false;
    }
    *text = pyprof_bytes_text(bytes);
    int status = PyList_Append(kept, bytes);
    Py_DECREF(bytes);
    return status == 0;
}

static bool parse_frame(PyObject *kept, PyObject *item, frame_text *frame) {
    if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != 4) {
        PyErr_SetString(PyExc_TypeError, "a frame must be a tuple (qualname, filename, first line, line)");
        return false;
    }
    int64_t first_line, line;
    if (!parse_text(kept, PyTuple_GET_ITEM(item, 0), "qualname", &frame->qualname) ||
        !parse_text(kept, PyTuple_GET_ITEM(item, 1), "filename", &frame->filename) ||
        !pyprof_parse_integer(PyTuple_GET_ITEM(item, 2), "first line", 0, INT32_MAX, &first_line) ||
        !pyprof_parse_integer(PyTuple_GET_ITEM(item, 3), "line", 0, INT32_MAX, &line)) {
        return false;
    }
    frame->first_line = (int32_t)first_line;
    frame->line = (int32_t)line;
    return true;
}

static bool parse_stack(stack_arguments *stack, PyObject *iterable) {
    PyObject *items = PySequence_Tuple(iterable);
    if (items == NULL) {
        return false;
    }
    stack->depth = PyTuple_GET_SIZE(items);
    size_t room = (size_t)stack->depth + 1;
    stack->kept = PyList_New(0);
    stack->texts = PyMem_Calloc(room, sizeof *stack->texts);
    stack->frames = PyMem_Calloc(room, sizeof *stack->frames);
    stack->owned = PyMem_Calloc(room, sizeof *stack->owned);
    bool parsed =
        stack->kept != NULL && stack->texts != NULL && stack->frames != NULL && stack->owned != NULL;
    if (!parsed) {
        PyErr_NoMemory();
    } else if (stack->depth > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "stack is too deep");
        parsed = false;
    }
    for (Py_ssize_t i = 0; i < stack->depth && parsed; i++) {
        parsed = parse_frame(stack->kept, PyTuple_GET_ITEM(items, i), &stack->texts[i]);
    }
    Py_DECREF(items);
    return parsed;
}

static void free_stack(stack_arguments *stack) {
    for (Py_ssize_t i = 0; stack->owned != NULL && i < stack->depth; i++) {
        if (stack->owned[i]) {
            pyprof_symbol_release(stack->frames[i].symbol);
        }
    }
    pyprof_hash_index_free(&stack->new_symbols, &stack->budget);
    PyMem_Free(stack->texts);
    PyMem_Free(stack->frames);
    PyMem_Free(stack->owned);
    Py_XDECREF(stack->kept);
}

/* A mapping or None as a set, or NULL for none. False with an error set. */
static bool parse_label_set(PyObject *mapping, pyprof_label_set **labels) {
    *labels = NULL;
    if (mapping == NULL || mapping == Py_None) {
        return true;
    }
    *labels = pyprof_label_set_of_mapping(mapping);
    return *labels != NULL;
}

static PyObject *window_add(WindowObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"stack",       "samples",     "cpu_samples",   "cpu_ns",      "wall_ns",
                            "gil_held_ns", "gil_wait_ns", "alloc_objects", "alloc_space", "inuse_objects",
                            "inuse_space", "truncated",   "labels",        NULL};
    PyObject *iterable, *mapping = NULL, *columns[PYPROF_COLUMNS] = {NULL};
    int truncated = 0;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "O|$OOOOOOOOOOpO:add", names, &iterable, &columns[PYPROF_SAMPLES],
            &columns[PYPROF_CPU_SAMPLES], &columns[PYPROF_CPU_NS], &columns[PYPROF_WALL_NS],
            &columns[PYPROF_GIL_HELD_NS], &columns[PYPROF_GIL_WAIT_NS], &columns[PYPROF_ALLOC_OBJECTS],
            &columns[PYPROF_ALLOC_SPACE], &columns[PYPROF_INUSE_OBJECTS], &columns[PYPROF_INUSE_SPACE],
            &truncated, &mapping)) {
        return NULL;
    }
    pyprof_values values = {0};
    for (int i = 0; i < PYPROF_COLUMNS; i++) {
        if (!parse_optional(columns[i], names[i + 1], INT64_MAX, &values.column[i])) {
            return NULL;
        }
    }
    stack_arguments stack = {.budget.limit = SIZE_MAX};
    pyprof_label_set *labels;
    bool added = parse_label_set(mapping, &labels);
    if (!added) {
        return NULL;
    }
    added = parse_stack(&stack, iterable);
    if (added) {
        lock_window(self);
        added = add_stack(self, &stack, truncated, labels, &values);
        unlock_window(self);
        if (!added) {
            PyErr_NoMemory();
        }
    }
    free_stack(&stack);
    pyprof_label_set_release(labels);
    if (!added) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- Reading ---- */

/* The symbols that bear the distinct file names: they live as long as the window. With the lock held. */
static bool collect_files(WindowObject *self, const pyprof_symbol ***symbols, uint32_t *count) {
    pyprof_window_files files;
    if (!pyprof_window_files_init(&files, self->window)) {
        return false;
    }
    *symbols = PyMem_RawCalloc((size_t)files.count + 1, sizeof **symbols);
    for (uint32_t i = 0; *symbols != NULL && i < files.count; i++) {
        (*symbols)[i] =
            pyprof_stack_table_symbol(pyprof_window_get_stacks(self->window), files.first_symbol[i]);
    }
    *count = files.count;
    pyprof_window_files_free(&files);
    return *symbols != NULL;
}

static PyObject *window_files(WindowObject *self, void *Py_UNUSED(closure)) {
    const pyprof_symbol **symbols = NULL;
    uint32_t count = 0;
    bool collected;
    PyThreadState *thread = PyEval_SaveThread();
    PyThread_acquire_lock(self->lock, WAIT_LOCK);
    collected = collect_files(self, &symbols, &count);
    PyThread_release_lock(self->lock);
    PyEval_RestoreThread(thread);
    if (!collected) {
        return PyErr_NoMemory();
    }
    PyObject *list = PyList_New(count);
    for (uint32_t i = 0; list != NULL && i < count; i++) {
        PyObject *name = PyUnicode_DecodeUTF8(symbols[i]->filename, symbols[i]->filename_size, "replace");
        if (name == NULL) {
            Py_CLEAR(list);
        } else {
            PyList_SET_ITEM(list, i, name);
        }
    }
    PyMem_RawFree(symbols);
    return list;
}

static PyObject *label_pair(const pyprof_label *label) {
    PyObject *name = PyUnicode_DecodeUTF8(label->name, label->name_size, "replace");
    PyObject *value = name == NULL ? NULL : PyUnicode_DecodeUTF8(label->value, label->value_size, "replace");
    PyObject *pair = value == NULL ? NULL : PyTuple_Pack(2, name, value);
    Py_XDECREF(name);
    Py_XDECREF(value);
    return pair;
}

static PyObject *window_labels(WindowObject *self, void *Py_UNUSED(closure)) {
    pyprof_label_table *labels = pyprof_window_get_labels(self->window);
    PyThreadState *thread = PyEval_SaveThread();
    PyThread_acquire_lock(self->lock, WAIT_LOCK);
    const bool resolved = pyprof_label_table_resolve(labels);
    const uint32_t count = pyprof_label_table_label_count(labels);
    PyThread_release_lock(self->lock);
    PyEval_RestoreThread(thread);
    PyObject *list = resolved ? PyList_New(count) : PyErr_NoMemory();
    for (uint32_t i = 0; list != NULL && i < count; i++) {
        PyObject *pair = label_pair(pyprof_label_table_label(labels, i)); /* labels stay where they are */
        if (pair == NULL) {
            Py_CLEAR(list);
        } else {
            PyList_SET_ITEM(list, i, pair);
        }
    }
    return list;
}

/* A copy of what the sampler, or `add`, wrote. */
static pyprof_window_info read_info(WindowObject *self) {
    lock_window(self);
    pyprof_window_info info = *pyprof_window_get_info(self->window);
    unlock_window(self);
    return info;
}

static PyObject *window_start_ns(WindowObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromLongLong(read_info(self).start_ns);
}

static PyObject *window_duration_ns(WindowObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromLongLong(read_info(self).duration_ns);
}

static PyObject *window_period_ns(WindowObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromLongLong(read_info(self).period_ns);
}

static PyObject *window_wanted_period_ns(WindowObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromLongLong(read_info(self).wanted_period_ns);
}

static PyObject *window_stacks(WindowObject *self, void *Py_UNUSED(closure)) {
    lock_window(self);
    size_t stacks = pyprof_window_stack_count(self->window);
    unlock_window(self);
    return PyLong_FromSize_t(stacks);
}

static PyObject *window_bytes(WindowObject *self, void *Py_UNUSED(closure)) {
    lock_window(self);
    size_t bytes = pyprof_window_bytes(self->window);
    unlock_window(self);
    return PyLong_FromSize_t(bytes);
}

static PyObject *window_counters(WindowObject *self, void *Py_UNUSED(closure)) {
    pyprof_window_info info = read_info(self);
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K}", "ticks", (unsigned long long)info.ticks, "missed",
                         (unsigned long long)info.missed, "overflowed", (unsigned long long)info.overflowed,
                         "unplaced_cpu_ns", (unsigned long long)info.unplaced_cpu_ns, "dropped_windows",
                         (unsigned long long)info.dropped_windows);
}

static PyObject *window_memory_period(WindowObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromLongLong(read_info(self).memory_period);
}

static PyObject *window_memory_is_short(WindowObject *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(read_info(self).memory_is_short);
}

static PyObject *window_encode(WindowObject *self, PyObject *args, PyObject *kwargs) {
    pyprof_encode_arguments arguments;
    PyObject *result = NULL;
    if (pyprof_encode_arguments_parse(&arguments, args, kwargs)) {
        pyprof_wire message = {0};
        pyprof_encode_result outcome;
        PyThreadState *thread = PyEval_SaveThread();
        PyThread_acquire_lock(self->lock, WAIT_LOCK);
        outcome = pyprof_encode(self->window, &arguments.encoding, &message);
        PyThread_release_lock(self->lock);
        PyEval_RestoreThread(thread);
        if (outcome == PYPROF_ENCODED) {
            result = PyBytes_FromStringAndSize((const char *)message.data, (Py_ssize_t)message.size);
        } else if (outcome == PYPROF_ENCODE_FILES_DIFFER) {
            PyErr_SetString(PyExc_ValueError,
                            "files must describe each of the window's files, in their order");
        } else if (outcome == PYPROF_ENCODE_LABELS_DIFFER) {
            PyErr_SetString(PyExc_ValueError,
                            "label_values must have one for each of the window's labels, in their order");
        } else {
            PyErr_NoMemory();
        }
        pyprof_wire_free(&message);
    }
    pyprof_encode_arguments_free(&arguments);
    return result;
}

/* ---- The type ---- */

static PyMethodDef window_methods[] = {
    {"add", (PyCFunction)(void (*)(void))window_add, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("Add values to a stack of (qualname, filename, first line, line), leaf first.")},
    {"encode", (PyCFunction)(void (*)(void))window_encode, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("The window as an uncompressed pprof message.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef window_properties[] = {
    {"files", (getter)window_files, NULL,
     PyDoc_STR("The distinct file names, in the order that encode wants them described."), NULL},
    {"labels", (getter)window_labels, NULL,
     PyDoc_STR("The distinct labels (name, value), in the order that encode wants their values."), NULL},
    {"start_ns", (getter)window_start_ns, NULL, PyDoc_STR("Start, nanoseconds of Unix time."), NULL},
    {"duration_ns", (getter)window_duration_ns, NULL, PyDoc_STR("Duration, nanoseconds."), NULL},
    {"period_ns", (getter)window_period_ns, NULL, PyDoc_STR("Sampling period, nanoseconds."), NULL},
    {"wanted_period_ns", (getter)window_wanted_period_ns, NULL,
     PyDoc_STR("What the period is where nothing lowers the rate; 0 if not known."), NULL},
    {"stacks", (getter)window_stacks, NULL, PyDoc_STR("Number of distinct stacks, [overflow] apart."), NULL},
    {"bytes", (getter)window_bytes, NULL, PyDoc_STR("Memory the window holds, bytes."), NULL},
    {"memory_period", (getter)window_memory_period, NULL,
     PyDoc_STR("Bytes between two samples of memory; 0: there are none in this window."), NULL},
    {"memory_is_short", (getter)window_memory_is_short, NULL,
     PyDoc_STR("Whether it ended because the process came close to its limit of memory."), NULL},
    {"counters", (getter)window_counters, NULL, PyDoc_STR("Ticks and losses of this window."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot window_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Stacks and their values over one upload interval.")},
    {Py_tp_new, window_new},
    {Py_tp_dealloc, window_dealloc},
    {Py_tp_methods, window_methods},
    {Py_tp_getset, window_properties},
    {0, NULL},
};

static PyType_Spec window_spec = {
    .name = "pyprof._native.Window",
    .basicsize = sizeof(WindowObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = window_slots,
};

int pyprof_window_type_add(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &window_spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int status = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return status;
}

PyObject *pyprof_window_wrap(PyObject *module, pyprof_window *window) {
    PyObject *type = PyObject_GetAttrString(module, "Window");
    if (type == NULL) {
        pyprof_window_free(window);
        return NULL;
    }
    PyObject *object = NULL;
    if (PyType_Check(type) && PyType_GetSlot((PyTypeObject *)type, Py_tp_dealloc) == (void *)window_dealloc) {
        object = new_object((PyTypeObject *)type, window);
    } else {
        pyprof_window_free(window);
        PyErr_SetString(PyExc_TypeError, "the module's Window has been replaced");
    }
    Py_DECREF(type);
    return object;
}
