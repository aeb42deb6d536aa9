/* pyprof._native: method table and initialisation. The stub _native.pyi says what each function does. */
#include <Python.h>
#include <stdlib.h>
#include <string.h>

#include "labels/labels_type.h"
#include "memory/heap.h"
#include "sampling/timer.h"
#include "windows/window_type.h"

#ifndef PYPROF_PORTABLE
#include "cpython/interpreter.h"
#include "cpython/traces.h"
#include "labels/label_reader.h"
#include "memory/allocator_hook.h"
#include "memory/counting.h"
#include "memory/recording.h"
#include "sampling/after_fork.h"
#include "sampling/clocks.h"
#include "sampling/exit_deadline.h"
#include "sampling/memory_limit.h"
#include "sampling/own_threads.h"
#include "sampling/proc.h"
#include "sampling/sigterm.h"
#include "sampling/thread_type.h"
#include "windows/ring.h"

enum { MAX_RING_WINDOWS = 1024, MAX_FRAMES = 1000 };

static PyObject *native_start(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"period_ns", "window_ns", "max_frames",   "ring_windows", "window_bytes",
                               "raw_walk",  "gilfree",   "max_overhead", "gil",          NULL};
    long long period_ns, window_ns;
    unsigned int max_frames, ring_windows;
    Py_ssize_t window_bytes;
    int raw_walk, gilfree, gil;
    double max_overhead;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$LLIInppdp:start", keywords, &period_ns, &window_ns,
                                     &max_frames, &ring_windows, &window_bytes, &raw_walk, &gilfree,
                                     &max_overhead, &gil)) {
        return NULL;
    }
    if (period_ns < 1000 || window_ns < 1 || max_frames < 1 || max_frames > MAX_FRAMES || ring_windows < 1 ||
        ring_windows > MAX_RING_WINDOWS || window_bytes < 1 || !(max_overhead > 0)) {
        PyErr_SetString(PyExc_ValueError, "out of range");
        return NULL;
    }
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_RuntimeError, "pyprof samples from the main interpreter only");
        return NULL;
    }
    const pyprof_timer_options options = {
        .period_ns = period_ns,
        .window_ns = window_ns,
        .max_frames = max_frames,
        .ring_windows = ring_windows,
        .window_bytes = (size_t)window_bytes,
        .raw_walk = raw_walk != 0,
        .gilfree = gilfree != 0,
        .max_overhead = max_overhead,
        .gil = gil != 0,
    };
    pyprof_label_reader_prepare(PyModule_GetState(module));
    if (pyprof_timer_start(&options) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *native_stop(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    pyprof_timer_stop();
    Py_RETURN_NONE;
}

static PyObject *native_pause(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    pyprof_timer_pause();
    Py_RETURN_NONE;
}

static PyObject *native_resume(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    if (pyprof_timer_resume() < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *native_rotate(PyObject *Py_UNUSED(module), PyObject *timeout) {
    int64_t timeout_ns = pyprof_seconds_to_ns(timeout);
    return timeout_ns < 0 ? NULL : PyBool_FromLong(pyprof_timer_rotate(timeout_ns));
}

static PyObject *native_wait(PyObject *Py_UNUSED(module), PyObject *timeout) {
    int64_t timeout_ns = pyprof_seconds_to_ns(timeout);
    if (timeout_ns < 0) {
        return NULL;
    }
    bool ready;
    Py_BEGIN_ALLOW_THREADS ready = pyprof_ring_wait(timeout_ns);
    Py_END_ALLOW_THREADS return PyBool_FromLong(ready);
}

static PyObject *native_take(PyObject *module, PyObject *Py_UNUSED(unused)) {
    pyprof_window *window = pyprof_ring_take();
    if (window == NULL) {
        Py_RETURN_NONE;
    }
    return pyprof_window_wrap(module, window);
}

static PyObject *native_wake(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    pyprof_ring_wake();
    Py_RETURN_NONE;
}

static PyObject *native_prepare_after_fork(PyObject *Py_UNUSED(module), PyObject *callable) {
    pyprof_after_fork_prepare(callable == Py_None ? NULL : callable);
    Py_RETURN_NONE;
}

static PyObject *native_schedule_after_fork(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    pyprof_after_fork_schedule();
    Py_RETURN_NONE;
}

static PyObject *native_unlock_in_child(PyObject *Py_UNUSED(module), PyObject *object) {
    pyprof_unlock_in_child(object);
    Py_RETURN_NONE;
}

static PyObject *native_main_thread_id(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    return PyLong_FromUnsignedLong(pyprof_main_thread_id());
}

static PyObject *native_abandoned(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    return PyBool_FromLong(pyprof_timer_is_abandoned());
}

static PyObject *native_arm_sigterm(PyObject *Py_UNUSED(module), PyObject *bound) {
    int64_t bound_ns = pyprof_seconds_to_ns(bound);
    return bound_ns < 0 ? NULL : PyBool_FromLong(pyprof_sigterm_arm(bound_ns));
}

static PyObject *native_disarm_sigterm(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    pyprof_sigterm_disarm();
    Py_RETURN_NONE;
}

static PyObject *native_sigterm_came(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    return PyBool_FromLong(pyprof_sigterm_came());
}

static PyObject *native_pass_sigterm_on(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    pyprof_sigterm_pass_on();
    Py_RETURN_NONE;
}

static PyObject *native_exit_within(PyObject *Py_UNUSED(module), PyObject *args) {
    int status;
    PyObject *seconds;
    if (!PyArg_ParseTuple(args, "iO:exit_within", &status, &seconds)) {
        return NULL;
    }
    const int64_t ns = pyprof_seconds_to_ns(seconds);
    return ns < 0 ? NULL : PyBool_FromLong(pyprof_exit_deadline_set(status, ns));
}

static PyObject *native_gilfree_obstacle(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    return Py_BuildValue("z", pyprof_timer_gilfree_obstacle());
}

static PyObject *native_own_threads(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    return PyLong_FromLong(pyprof_own_thread_count());
}

static PyObject *native_threads(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    return PyLong_FromLong(pyprof_native_thread_count());
}

static PyObject *native_start_memory(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"period", "max_frames", "max_bytes", "traced", NULL};
    pyprof_heap_options options = {0};
    int traced;
    unsigned int max_frames;
    Py_ssize_t max_bytes;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$dInp:start_memory", keywords, &options.period,
                                     &max_frames, &max_bytes, &traced)) {
        return NULL;
    }
    if (!(options.period >= 1) || max_frames < 1 || max_frames > MAX_FRAMES || max_bytes < 1) {
        PyErr_SetString(PyExc_ValueError, "out of range");
        return NULL;
    }
    options.max_frames = max_frames;
    options.max_bytes = (size_t)max_bytes;
    pyprof_label_reader_prepare(PyModule_GetState(module));
    if (!pyprof_recording_start(&options, traced != 0)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *native_stop_memory(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    pyprof_recording_stop();
    Py_RETURN_NONE;
}

static PyObject *native_set_memory_period(PyObject *Py_UNUSED(module), PyObject *period) {
    const double bytes = PyFloat_AsDouble(period);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (!(bytes >= 1)) {
        PyErr_SetString(PyExc_ValueError, "out of range");
        return NULL;
    }
    pyprof_recording_set_period(bytes);
    Py_RETURN_NONE;
}

static PyObject *native_check_memory(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    return PyBool_FromLong(pyprof_recording_check());
}

static PyObject *native_report_memory(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"max_bytes", "peak", NULL};
    Py_ssize_t max_bytes;
    int peak;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$np:report_memory", keywords, &max_bytes, &peak)) {
        return NULL;
    }
    pyprof_window *window = pyprof_window_new(max_bytes < 0 ? 0 : (size_t)max_bytes);
    if (window == NULL) {
        return PyErr_NoMemory();
    }
    pyprof_window_get_info(window)->start_ns = pyprof_unix_ns();
    Py_BEGIN_ALLOW_THREADS pyprof_heap_report(window, peak ? PYPROF_HEAP_PEAK : PYPROF_HEAP_TOTAL);
    Py_END_ALLOW_THREADS return pyprof_window_wrap(module, window);
}

/* [(domain, address, size, weight)] of the blocks that live. */
static PyObject *native_live_blocks(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    size_t count;
    pyprof_live_block *blocks = pyprof_heap_copy_live(&count);
    PyObject *list = blocks == NULL ? PyErr_NoMemory() : PyList_New(0);
    for (size_t i = 0; list != NULL && i < count; i++) {
        const pyprof_live_block *block = &blocks[i];
        PyObject *item = Py_BuildValue("KKKd", (unsigned long long)pyprof_domain_of(block->domain),
                                       (unsigned long long)(uintptr_t)block->address,
                                       (unsigned long long)block->size, (double)block->weight);
        if (item == NULL || PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    free(blocks);
    return list;
}

static PyObject *native_traceback_of(PyObject *Py_UNUSED(module), PyObject *args) {
    unsigned int domain;
    unsigned long long address;
    return PyArg_ParseTuple(args, "IK:traceback_of", &domain, &address)
               ? pyprof_traceback_of(domain, (const void *)(uintptr_t)address)
               : NULL;
}

static PyObject *native_traces(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    if (!pyprof_traces_can_be_read()) {
        Py_RETURN_NONE;
    }
    return pyprof_traces_read();
}

static PyObject *native_limit_memory(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"resident", "address_space_share", NULL};
    long long resident;
    double address_space_share;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$Ld:limit_memory", keywords, &resident,
                                     &address_space_share)) {
        return NULL;
    }
    pyprof_memory_limit_set(resident, address_space_share);
    Py_RETURN_NONE;
}

#endif

typedef struct {
    const char *name;
    size_t offset;
} stats_field;

#define STATS_FIELD(name)                                                                                    \
    { #name, offsetof(pyprof_timer_stats, name) }

static const stats_field numbers[] = {
    /* uint64_t each */
    STATS_FIELD(ticks),      STATS_FIELD(missed),          STATS_FIELD(stacks),
    STATS_FIELD(threads),    STATS_FIELD(windows),         STATS_FIELD(unplaced_cpu_ns),
    STATS_FIELD(overflowed), STATS_FIELD(dropped_windows), STATS_FIELD(own_cpu_ns),
    STATS_FIELD(bytes),      STATS_FIELD(unverified),      STATS_FIELD(incomplete),
    STATS_FIELD(torn),       STATS_FIELD(fallbacks),       STATS_FIELD(discarded),
    STATS_FIELD(period_ns),  STATS_FIELD(rate_changes),    STATS_FIELD(untold_gil_ns),
};

static const stats_field texts[] = {
    STATS_FIELD(walk_obstacle),  STATS_FIELD(gilfree_obstacle), STATS_FIELD(gil_wait_obstacle),
    STATS_FIELD(label_obstacle), STATS_FIELD(engine),           STATS_FIELD(memory_reads),
};

/* The dictionary with one more item, whose value is taken over; NULL with an error set. */
static PyObject *with_item(PyObject *dict, const char *name, PyObject *value) {
    if (value == NULL || PyDict_SetItemString(dict, name, value) < 0) {
        Py_CLEAR(dict);
    }
    Py_XDECREF(value);
    return dict;
}

static PyObject *native_stats(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    pyprof_timer_stats stats = {0};
#ifndef PYPROF_PORTABLE
    pyprof_timer_get_stats(&stats);
#endif
    PyObject *result = PyDict_New();
    for (size_t i = 0; result != NULL && i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        uint64_t value;
        memcpy(&value, (const char *)&stats + numbers[i].offset, sizeof(value));
        result = with_item(result, numbers[i].name, PyLong_FromUnsignedLongLong(value));
    }
    for (size_t i = 0; result != NULL && i < sizeof(texts) / sizeof(texts[0]); i++) {
        const char *text;
        memcpy(&text, (const char *)&stats + texts[i].offset, sizeof(text));
        result = with_item(result, texts[i].name, Py_BuildValue("z", text));
    }
    return result == NULL ? NULL : with_item(result, "trusted_clocks", PyBool_FromLong(stats.trusted_clocks));
}

static PyObject *native_memory_stats(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    pyprof_heap_stats stats = {0};
#ifndef PYPROF_PORTABLE
    pyprof_heap_get_stats(&stats);
#endif
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:d,s:n}", "samples", stats.samples, "live",
                         stats.live, "overflowed", stats.overflowed, "unkept", stats.unkept, "evicted",
                         stats.evicted, "gaps", stats.gaps, "inuse_bytes", stats.inuse_bytes, "peak_bytes",
                         stats.peak_bytes, "period", stats.period, "bytes", (Py_ssize_t)stats.bytes);
}
static PyObject *native_is_main_interpreter(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused)) {
    return PyBool_FromLong(PyInterpreterState_Get() == PyInterpreterState_Main());
}

static PyMethodDef methods[] = {
    {"stats", native_stats, METH_NOARGS, NULL},
    {"memory_stats", native_memory_stats, METH_NOARGS, NULL},
    {"set_labels", (PyCFunction)(void (*)(void))pyprof_set_labels, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"current_labels", pyprof_current_labels, METH_NOARGS, NULL},
    {"context_labels", pyprof_context_labels, METH_O, NULL},
    {"is_main_interpreter", native_is_main_interpreter, METH_NOARGS, NULL},
#ifndef PYPROF_PORTABLE
    {"start", (PyCFunction)(void (*)(void))native_start, METH_VARARGS | METH_KEYWORDS, NULL},
    {"stop", native_stop, METH_NOARGS, NULL},
    {"pause", native_pause, METH_NOARGS, NULL},
    {"resume", native_resume, METH_NOARGS, NULL},
    {"rotate", native_rotate, METH_O, NULL},
    {"wait", native_wait, METH_O, NULL},
    {"take", native_take, METH_NOARGS, NULL},
    {"wake", native_wake, METH_NOARGS, NULL},
    {"prepare_after_fork", native_prepare_after_fork, METH_O, NULL},
    {"schedule_after_fork", native_schedule_after_fork, METH_NOARGS, NULL},
    {"unlock_in_child", native_unlock_in_child, METH_O, NULL},
    {"main_thread_id", native_main_thread_id, METH_NOARGS, NULL},
    {"abandoned", native_abandoned, METH_NOARGS, NULL},
    {"arm_sigterm", native_arm_sigterm, METH_O, NULL},
    {"disarm_sigterm", native_disarm_sigterm, METH_NOARGS, NULL},
    {"sigterm_came", native_sigterm_came, METH_NOARGS, NULL},
    {"pass_sigterm_on", native_pass_sigterm_on, METH_NOARGS, NULL},
    {"exit_within", native_exit_within, METH_VARARGS, NULL},
    {"gilfree_obstacle", native_gilfree_obstacle, METH_NOARGS, NULL},
    {"own_threads", native_own_threads, METH_NOARGS, NULL},
    {"native_threads", native_threads, METH_NOARGS, NULL},
    {"start_memory", (PyCFunction)(void (*)(void))native_start_memory, METH_VARARGS | METH_KEYWORDS, NULL},
    {"stop_memory", native_stop_memory, METH_NOARGS, NULL},
    {"set_memory_period", native_set_memory_period, METH_O, NULL},
    {"check_memory", native_check_memory, METH_NOARGS, NULL},
    {"report_memory", (PyCFunction)(void (*)(void))native_report_memory, METH_VARARGS | METH_KEYWORDS, NULL},
    {"live_blocks", native_live_blocks, METH_NOARGS, NULL},
    {"traceback_of", native_traceback_of, METH_VARARGS, NULL},
    {"traces", native_traces, METH_NOARGS, NULL},
    {"limit_memory", (PyCFunction)(void (*)(void))native_limit_memory, METH_VARARGS | METH_KEYWORDS, NULL},
#endif
    {NULL, NULL, 0, NULL},
};

static int native_exec(PyObject *module) {
    static const struct {
        const char *name;
        pyprof_column column;
    } columns[] = {
        {"SAMPLES", PYPROF_SAMPLES},
        {"CPU_SAMPLES", PYPROF_CPU_SAMPLES},
        {"CPU_NS", PYPROF_CPU_NS},
        {"WALL_NS", PYPROF_WALL_NS},
        {"GIL_HELD_NS", PYPROF_GIL_HELD_NS},
        {"GIL_WAIT_NS", PYPROF_GIL_WAIT_NS},
        {"ALLOC_OBJECTS", PYPROF_ALLOC_OBJECTS},
        {"ALLOC_SPACE", PYPROF_ALLOC_SPACE},
        {"INUSE_OBJECTS", PYPROF_INUSE_OBJECTS},
        {"INUSE_SPACE", PYPROF_INUSE_SPACE},
    };
    for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++) {
        if (PyModule_AddIntConstant(module, columns[i].name, columns[i].column) < 0) {
            return -1;
        }
    }
    if (pyprof_window_type_add(module) < 0 || pyprof_labels_add(module) < 0) {
        return -1;
    }
#ifdef PYPROF_PORTABLE
    return PyModule_AddObjectRef(module, "SUPPORTED", Py_False);
#else
    if (pyprof_thread_types_add(module) < 0) {
        return -1;
    }
    pyprof_allocator_hook_prepare();
    return PyModule_AddObjectRef(module, "SUPPORTED", Py_True);
#endif
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, native_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyprof._native",
    .m_doc = PyDoc_STR("The C core of pyprof."),
    .m_size = sizeof(pyprof_labels_state),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = pyprof_labels_traverse,
    .m_clear = pyprof_labels_clear,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&definition); }
