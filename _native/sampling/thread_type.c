/* See thread_type.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/thread_type.h"

#include <math.h>
#include <stdint.h>
#include <unistd.h>

#include "cpython/interpreter.h"
#include "sampling/clocks.h"
#include "sampling/own_threads.h"

/* requests, ssl and gzip run in it; musl's default would be 128 KiB. Only what is touched takes memory. */
enum { PYTHON_STACK_BYTES = 4 * 1024 * 1024 };

int64_t pyprof_seconds_to_ns(PyObject *seconds) {
    double value = PyFloat_AsDouble(seconds);
    if (value == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (isnan(value) || value < 0) {
        PyErr_SetString(PyExc_ValueError, "timeout must not be negative");
        return -1;
    }
    return value > 1e9 ? INT64_MAX / 4 : (int64_t)(value * 1e9);
}

static void plain_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* -- Thread
 * ---------------------------------------------------------------------------------------------------------
 */

typedef struct {
    PyObject_HEAD pyprof_own_thread *thread; /* NULL: joined */
    PyObject *target;
    pid_t pid; /* the process that has the thread; a fork's child has not */
} thread_object;

static void run_target(void *argument) {
    PyObject *target = argument;
    if (pyprof_is_finalizing()) {
        return; /* attaching would end or freeze this thread; the reference dies with the interpreter */
    }
    PyThreadState *own = PyThreadState_New(PyInterpreterState_Main());
    pyprof_own_thread_is_attachable();
    if (own == NULL) {
        return;
    }
    PyEval_RestoreThread(own);
    PyObject *result = PyObject_CallNoArgs(target);
    if (result == NULL) {
        PyErr_WriteUnraisable(target);
    }
    Py_XDECREF(result);
    Py_DECREF(target);
    PyThreadState_Clear(own);
    PyThreadState_DeleteCurrent();
}

static PyObject *thread_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"target", "name", NULL};
    PyObject *target;
    const char *name;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Os:Thread", keywords, &target, &name)) {
        return NULL;
    }
    if (!PyCallable_Check(target)) {
        PyErr_SetString(PyExc_TypeError, "target must be callable");
        return NULL;
    }
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_RuntimeError, "pyprof has threads in the main interpreter only");
        return NULL;
    }
    thread_object *self = (thread_object *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->pid = getpid();
    self->thread = pyprof_own_thread_start(run_target, Py_NewRef(target), name, PYTHON_STACK_BYTES);
    if (self->thread == NULL) {
        Py_DECREF(target);
        Py_DECREF(self);
        PyErr_SetString(PyExc_RuntimeError, "can't start a thread for pyprof");
        return NULL;
    }
    pyprof_own_thread_wait_attachable(self->thread);
    return (PyObject *)self;
}

static PyObject *thread_join(thread_object *self, PyObject *timeout) {
    int64_t timeout_ns = pyprof_seconds_to_ns(timeout);
    if (timeout_ns < 0) {
        return NULL;
    }
    pyprof_own_thread *thread = self->thread;
    self->thread = NULL; /* whoever joins has it alone */
    if (thread == NULL || self->pid != getpid()) {
        Py_RETURN_TRUE;
    }
    bool ended;
    Py_BEGIN_ALLOW_THREADS ended = pyprof_own_thread_join(thread, pyprof_monotonic_ns() + timeout_ns);
    Py_END_ALLOW_THREADS if (!ended) { self->thread = thread; }
    return PyBool_FromLong(ended);
}

static void thread_dealloc(PyObject *object) {
    thread_object *self = (thread_object *)object;
    if (self->thread != NULL && self->pid == getpid()) {
        pyprof_own_thread_abandon(self->thread);
    }
    plain_dealloc(object);
}

static PyMethodDef thread_methods[] = {
    {"join", (PyCFunction)thread_join, METH_O,
     PyDoc_STR("join(timeout, /)\n--\n\nWait at most `timeout` seconds; whether the thread has ended.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot thread_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A real OS thread, started at once.")},
    {Py_tp_new, thread_new},
    {Py_tp_dealloc, thread_dealloc},
    {Py_tp_methods, thread_methods},
    {0, NULL},
};

static PyType_Spec thread_spec = {
    .name = "pyprof._native.Thread",
    .basicsize = sizeof(thread_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = thread_slots,
};

/* -- Event
 * ----------------------------------------------------------------------------------------------------------
 */

typedef struct {
    PyObject_HEAD uint32_t flag; /* atomic, futex */
} event_object;

static PyObject *event_set(event_object *self, PyObject *Py_UNUSED(unused)) {
    __atomic_store_n(&self->flag, 1, __ATOMIC_RELEASE);
    pyprof_futex_wake(&self->flag);
    Py_RETURN_NONE;
}

static PyObject *event_clear(event_object *self, PyObject *Py_UNUSED(unused)) {
    __atomic_store_n(&self->flag, 0, __ATOMIC_RELEASE);
    Py_RETURN_NONE;
}

static PyObject *event_is_set(event_object *self, PyObject *Py_UNUSED(unused)) {
    return PyBool_FromLong(__atomic_load_n(&self->flag, __ATOMIC_ACQUIRE) != 0);
}

static PyObject *event_wait(event_object *self, PyObject *timeout) {
    int64_t timeout_ns = pyprof_seconds_to_ns(timeout);
    if (timeout_ns < 0) {
        return NULL;
    }
    bool set;
    Py_BEGIN_ALLOW_THREADS int64_t deadline = pyprof_monotonic_ns() + timeout_ns;
    while (!(set = __atomic_load_n(&self->flag, __ATOMIC_ACQUIRE) != 0) && pyprof_monotonic_ns() < deadline) {
        pyprof_futex_wait(&self->flag, 0, deadline);
    }
    Py_END_ALLOW_THREADS return PyBool_FromLong(set);
}

static PyMethodDef event_methods[] = {
    {"set", (PyCFunction)event_set, METH_NOARGS, PyDoc_STR("set()\n--\n\nSet the flag and wake who waits.")},
    {"clear", (PyCFunction)event_clear, METH_NOARGS, PyDoc_STR("clear()\n--\n\nTake the flag back.")},
    {"is_set", (PyCFunction)event_is_set, METH_NOARGS, PyDoc_STR("is_set()\n--\n\nWhether the flag is set.")},
    {"wait", (PyCFunction)event_wait, METH_O,
     PyDoc_STR("wait(timeout, /)\n--\n\nWait at most `timeout` seconds for the flag; whether it is set.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot event_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A flag that any thread can wait for.")},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, plain_dealloc},
    {Py_tp_methods, event_methods},
    {0, NULL},
};

static PyType_Spec event_spec = {
    .name = "pyprof._native.Event",
    .basicsize = sizeof(event_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = event_slots,
};

/* -- Lock
 * -----------------------------------------------------------------------------------------------------------
 */

typedef struct {
    PyObject_HEAD uint32_t held; /* atomic, futex */
    uint64_t owner;              /* atomic: kernel id of the thread that holds it */
} lock_object;

static PyObject *lock_enter(lock_object *self, PyObject *Py_UNUSED(unused)) {
    while (__atomic_exchange_n(&self->held, 1, __ATOMIC_ACQUIRE) != 0) {
        Py_BEGIN_ALLOW_THREADS pyprof_futex_wait(&self->held, 1, INT64_MAX);
        Py_END_ALLOW_THREADS
    }
    __atomic_store_n(&self->owner, pyprof_own_tid(), __ATOMIC_RELEASE);
    Py_RETURN_NONE;
}

static PyObject *lock_is_mine(lock_object *self, PyObject *Py_UNUSED(unused)) {
    return PyBool_FromLong(__atomic_load_n(&self->owner, __ATOMIC_ACQUIRE) == pyprof_own_tid());
}

static PyObject *lock_exit(lock_object *self, PyObject *Py_UNUSED(exception)) {
    __atomic_store_n(&self->owner, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&self->held, 0, __ATOMIC_RELEASE);
    pyprof_futex_wake(&self->held);
    Py_RETURN_NONE;
}

static PyMethodDef lock_methods[] = {
    {"__enter__", (PyCFunction)lock_enter, METH_NOARGS, PyDoc_STR("__enter__()\n--\n\nWait for the lock.")},
    {"__exit__", (PyCFunction)lock_exit, METH_VARARGS, PyDoc_STR("__exit__(*exception)\n--\n\nRelease it.")},
    {"is_mine", (PyCFunction)lock_is_mine, METH_NOARGS,
     PyDoc_STR("is_mine()\n--\n\nWhether the calling thread holds it.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot lock_slots[] = {
    {Py_tp_doc,
     (void *)PyDoc_STR("A lock for `with`, which blocks the thread whatever has patched `threading`.")},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, plain_dealloc},
    {Py_tp_methods, lock_methods},
    {0, NULL},
};

static PyType_Spec lock_spec = {
    .name = "pyprof._native.Lock",
    .basicsize = sizeof(lock_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = lock_slots,
};

int pyprof_thread_types_add(PyObject *module) {
    PyType_Spec *specs[] = {&thread_spec, &event_spec, &lock_spec};
    for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
        PyObject *type = PyType_FromModuleAndSpec(module, specs[i], NULL);
        if (type == NULL || PyModule_AddType(module, (PyTypeObject *)type) < 0) {
            Py_XDECREF(type);
            return -1;
        }
        Py_DECREF(type);
    }
    return 0;
}

#endif
