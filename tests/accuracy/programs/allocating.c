/* Blocks of exact sizes, from each of the interpreter's allocators; nothing else is allocated meanwhile. */
#include <Python.h>

enum { MOST = 1 << 20 };

static const struct {
    void *(*malloc)(size_t);
    void *(*realloc)(void *, size_t);
    void (*free)(void *);
} domains[] = {
    {PyMem_RawMalloc, PyMem_RawRealloc, PyMem_RawFree},
    {PyMem_Malloc, PyMem_Realloc, PyMem_Free},
    {PyObject_Malloc, PyObject_Realloc, PyObject_Free},
};

static struct {
    void *address;
    size_t domain;
} kept[MOST];
static Py_ssize_t count;

/* allocate(domain, sizes, times, every): one block after the other, of which each `every`-th is kept and the
 * others are freed at once. */
static PyObject *allocate(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    if (n != 4 || !PyTuple_CheckExact(args[1])) {
        return PyErr_Format(PyExc_TypeError, "domain, sizes, times, every");
    }
    const size_t domain = PyLong_AsSize_t(args[0]), times = PyLong_AsSize_t(args[2]);
    const size_t every = PyLong_AsSize_t(args[3]);
    size_t number = 0;
    for (size_t time = 0; time < times; time++) {
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args[1]); i++, number++) {
            void *address = domains[domain].malloc(PyLong_AsSize_t(PyTuple_GET_ITEM(args[1], i)));
            if (address == NULL || count == MOST) {
                return PyErr_NoMemory();
            }
            if (number % every == 0) {
                kept[count].address = address;
                kept[count++].domain = domain;
            } else {
                domains[domain].free(address);
            }
        }
    }
    Py_RETURN_NONE;
}

/* reallocate(number, size): of the blocks that are kept; whether that was possible. */
static PyObject *reallocate(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    if (n != 2) {
        return PyErr_Format(PyExc_TypeError, "number, size");
    }
    const size_t number = PyLong_AsSize_t(args[0]);
    void *address = domains[kept[number].domain].realloc(kept[number].address, PyLong_AsSize_t(args[1]));
    if (address != NULL) {
        kept[number].address = address;
    }
    return PyBool_FromLong(address != NULL);
}

/* release(): all that are kept. */
static PyObject *release(PyObject *module, PyObject *unused) {
    while (count > 0) {
        count--;
        domains[kept[count].domain].free(kept[count].address);
    }
    Py_RETURN_NONE;
}

/* track(domain, address, size), untrack(domain, address): as libraries report their own memory. */
static PyObject *track(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    if (n != 3) {
        return PyErr_Format(PyExc_TypeError, "domain, address, size");
    }
    return PyLong_FromLong(PyTraceMalloc_Track((unsigned int)PyLong_AsUnsignedLong(args[0]),
                                               PyLong_AsSize_t(args[1]), PyLong_AsSize_t(args[2])));
}

static PyObject *untrack(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    if (n != 2) {
        return PyErr_Format(PyExc_TypeError, "domain, address");
    }
    return PyLong_FromLong(
        PyTraceMalloc_Untrack((unsigned int)PyLong_AsUnsignedLong(args[0]), PyLong_AsSize_t(args[1])));
}

/* hook(): another tool's functions around those of all domains, each time different ones. */
enum { MOST_HOOKS = 64 };
static PyMemAllocatorEx hooked[MOST_HOOKS];
static int hooks;

static void *hooked_malloc(void *ctx, size_t size) {
    const PyMemAllocatorEx *next = ctx;
    return next->malloc(next->ctx, size);
}

static void *hooked_calloc(void *ctx, size_t count_of, size_t size) {
    const PyMemAllocatorEx *next = ctx;
    return next->calloc(next->ctx, count_of, size);
}

static void *hooked_realloc(void *ctx, void *old, size_t size) {
    const PyMemAllocatorEx *next = ctx;
    return next->realloc(next->ctx, old, size);
}

static void hooked_free(void *ctx, void *address) {
    const PyMemAllocatorEx *next = ctx;
    next->free(next->ctx, address);
}

static PyObject *hook(PyObject *module, PyObject *unused) {
    for (int domain = PYMEM_DOMAIN_RAW; domain <= PYMEM_DOMAIN_OBJ && hooks < MOST_HOOKS; domain++) {
        PyMemAllocatorEx *next = &hooked[hooks++];
        PyMem_GetAllocator((PyMemAllocatorDomain)domain, next);
        PyMemAllocatorEx own = {next, hooked_malloc, hooked_calloc, hooked_realloc, hooked_free};
        PyMem_SetAllocator((PyMemAllocatorDomain)domain, &own);
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"allocate", (PyCFunction)(void (*)(void))allocate, METH_FASTCALL, NULL},
    {"reallocate", (PyCFunction)(void (*)(void))reallocate, METH_FASTCALL, NULL},
    {"release", release, METH_NOARGS, NULL},
    {"track", (PyCFunction)(void (*)(void))track, METH_FASTCALL, NULL},
    {"untrack", (PyCFunction)(void (*)(void))untrack, METH_FASTCALL, NULL},
    {"hook", hook, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "allocating", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_allocating(void) {
    PyObject *module = PyModule_Create(&definition);
#ifdef Py_GIL_DISABLED
    PyUnstable_Module_SetGIL(module, Py_MOD_GIL_NOT_USED);
#endif
    return module;
}
