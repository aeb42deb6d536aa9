/* See traces.h. */
#define Py_BUILD_CORE 1 /* tracemalloc's tables are internal */
#include "cpython/version.h"

#if PYPROF_KNOWN_LAYOUT && PYPROF_TRACES_IN_RUNTIME
#include "internal/pycore_hashtable.h"
#include "internal/pycore_runtime.h"
#include "internal/pycore_tracemalloc.h"
#endif
#undef Py_BUILD_CORE

#include "cpython/traces.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Exported, but declared in an internal header, or none. */
PyAPI_FUNC(PyObject *) _PyTraceMalloc_GetTraceback(unsigned int domain, uintptr_t ptr);

/* From 3.14 on tracemalloc makes objects while it holds the lock of its tables: who reports an allocation of
 * those to it waits for himself. */
const char *pyprof_tracking_obstacle(void) {
    return PYPROF_TRACES_HAVE_MUTEX && !pyprof_traces_can_be_read()
               ? "tracemalloc of this release of CPython is not known to this build of pyprof"
               : NULL;
}

static PyObject *ask_for_traceback(unsigned int domain, const void *address) {
    return _PyTraceMalloc_GetTraceback(domain, (uintptr_t)address);
}

void pyprof_stop_tracing_references(void) {
#if PYPROF_HAS_REFERENCE_TRACER
    PyRefTracer_SetTracer(NULL, NULL);
#endif
}

#if PYPROF_KNOWN_LAYOUT && PYPROF_TRACES_IN_RUNTIME && !PYPROF_FREE_THREADED

/* Their place in the runtime is that of the patch release whose headers these are. */
bool pyprof_traces_can_be_read(void) { return Py_Version >> 8 == PY_VERSION_HEX >> 8; }

/* Known to tracemalloc's own file only. */
typedef struct {
    size_t size;
    struct tracemalloc_traceback *traceback;
} trace;

typedef struct {
    const struct tracemalloc_traceback *traceback; /* NULL: free */
    size_t blocks, bytes;
} total;

/* By traceback, which is one for equal ones. */
typedef struct {
    total *entries; /* open addressing, linear probing */
    size_t capacity, count;
    bool failed;
} totals;

static total *find(total *entries, size_t capacity, const void *traceback) {
    size_t at = ((uintptr_t)traceback >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 32 & (capacity - 1);
    while (entries[at].traceback != NULL && entries[at].traceback != traceback) {
        at = (at + 1) & (capacity - 1);
    }
    return &entries[at];
}

static bool reserve(totals *all) {
    if (all->count * 2 < all->capacity) {
        return true;
    }
    const size_t capacity = all->capacity == 0 ? 1024 : all->capacity * 2;
    total *entries = calloc(capacity, sizeof(*entries));
    if (entries == NULL) {
        return false;
    }
    for (size_t i = 0; i < all->capacity; i++) {
        if (all->entries[i].traceback != NULL) {
            *find(entries, capacity, all->entries[i].traceback) = all->entries[i];
        }
    }
    free(all->entries);
    all->entries = entries;
    all->capacity = capacity;
    return true;
}

static int add_trace(_Py_hashtable_t *Py_UNUSED(table), const void *Py_UNUSED(address), const void *value,
                     void *argument) {
    totals *all = argument;
    const trace *one = value;
    if (!reserve(all)) {
        all->failed = true;
        return 1;
    }
    total *entry = find(all->entries, all->capacity, one->traceback);
    if (entry->traceback == NULL) {
        entry->traceback = one->traceback;
        all->count++;
    }
    entry->blocks++;
    entry->bytes += one->size;
    return 0;
}

static int add_domain(_Py_hashtable_t *Py_UNUSED(table), const void *Py_UNUSED(domain), const void *traces,
                      void *argument) {
    return _Py_hashtable_foreach((_Py_hashtable_t *)traces, add_trace, argument);
}

bool pyprof_may_track(void) {
#if PYPROF_TRACES_HAVE_MUTEX
    return !PyMutex_IsLocked(&_PyRuntime.tracemalloc.tables_lock);
#else
    return true;
#endif
}

static void lock_tables(void) {
#if PYPROF_TRACES_HAVE_MUTEX
    PyMutex_Lock(&_PyRuntime.tracemalloc.tables_lock);
#else
    PyThread_acquire_lock(_PyRuntime.tracemalloc.tables_lock, WAIT_LOCK);
#endif
}

static void unlock_tables(void) {
#if PYPROF_TRACES_HAVE_MUTEX
    PyMutex_Unlock(&_PyRuntime.tracemalloc.tables_lock);
#else
    PyThread_release_lock(_PyRuntime.tracemalloc.tables_lock);
#endif
}

/* A traceback out of tracemalloc's hands: it may be stopped while objects are made of it. */
static struct tracemalloc_traceback *copy_of(const struct tracemalloc_traceback *traceback) {
    const size_t frames = traceback->nframe;
    const size_t bytes =
        offsetof(struct tracemalloc_traceback, frames) + frames * sizeof(traceback->frames[0]);
    struct tracemalloc_traceback *copy = malloc(bytes);
    if (copy != NULL) {
        memcpy(copy, traceback, bytes);
        for (size_t i = 0; i < frames; i++) {
#if PYPROF_TRACES_NAME_FILES_IN_UTF8
            copy->frames[i].filename = strdup(copy->frames[i].filename);
#else
            Py_INCREF(copy->frames[i].filename);
#endif
        }
    }
    return copy;
}

static void free_copy(struct tracemalloc_traceback *copy) {
    for (size_t i = 0; i < copy->nframe; i++) {
#if PYPROF_TRACES_NAME_FILES_IN_UTF8
        free((char *)copy->frames[i].filename);
#else
        Py_DECREF(copy->frames[i].filename);
#endif
    }
    free(copy);
}

static PyObject *frame_object(const struct tracemalloc_frame *frame) {
#if PYPROF_TRACES_NAME_FILES_IN_UTF8
    const char *name = frame->filename == NULL ? "<unknown>" : frame->filename;
    PyObject *filename = PyUnicode_DecodeUTF8(name, (Py_ssize_t)strlen(name), "surrogatepass");
#else
    PyObject *filename = Py_NewRef(frame->filename);
#endif
    PyObject *object = filename == NULL ? NULL : Py_BuildValue("OI", filename, frame->lineno);
    Py_XDECREF(filename);
    return object;
}

static PyObject *frames_object(const struct tracemalloc_traceback *traceback) {
    PyObject *frames = PyTuple_New(traceback->nframe);
    for (Py_ssize_t i = 0; frames != NULL && i < traceback->nframe; i++) {
        PyObject *frame = frame_object(&traceback->frames[i]);
        if (frame == NULL) {
            Py_CLEAR(frames);
        } else {
            PyTuple_SET_ITEM(frames, i, frame);
        }
    }
    return frames;
}

static PyObject *total_object(const total *entry) {
    PyObject *frames = frames_object(entry->traceback);
    return frames == NULL ? NULL
                          : Py_BuildValue("nnN", (Py_ssize_t)entry->blocks, (Py_ssize_t)entry->bytes, frames);
}

/* CPython's own makes objects while it holds the lock (3.14), which the hook would have traced. */
PyObject *pyprof_traceback_of(unsigned int domain, const void *address) {
    if (!pyprof_traces_can_be_read()) {
        return ask_for_traceback(domain, address);
    }
    struct tracemalloc_traceback *traceback = NULL;
    if (_PyRuntime.tracemalloc.config.tracing) {
        lock_tables();
        _Py_hashtable_t *table =
            domain == 0 ? _PyRuntime.tracemalloc.traces
                        : _Py_hashtable_get(_PyRuntime.tracemalloc.domains, (void *)(uintptr_t)domain);
        const trace *one = table == NULL ? NULL : _Py_hashtable_get(table, address);
        traceback = one == NULL ? NULL : copy_of(one->traceback);
        unlock_tables();
    }
    if (traceback == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *frames = frames_object(traceback);
    free_copy(traceback);
    return frames;
}

/* Only those that are there, and copies of their tracebacks. With the GIL, under which alone tracemalloc
 * drops tracebacks; nothing here runs Python code. */
static void keep_copies(totals *all) {
    size_t kept = 0;
    for (size_t i = 0; i < all->capacity; i++) {
        if (all->entries[i].traceback != NULL) {
            total entry = all->entries[i];
            entry.traceback = copy_of(entry.traceback);
            all->failed |= entry.traceback == NULL;
            if (entry.traceback != NULL) {
                all->entries[kept++] = entry;
            }
        }
    }
    all->count = kept;
}

PyObject *pyprof_traces_read(void) {
    totals all = {0};
    if (_PyRuntime.tracemalloc.config.tracing) {
        lock_tables();
        _Py_hashtable_foreach(_PyRuntime.tracemalloc.traces, add_trace, &all);
        _Py_hashtable_foreach(_PyRuntime.tracemalloc.domains, add_domain, &all);
        unlock_tables();
        keep_copies(&all);
    }
    PyObject *list = all.failed ? PyErr_NoMemory() : PyList_New(0);
    for (size_t i = 0; i < all.count; i++) {
        PyObject *object = list == NULL ? NULL : total_object(&all.entries[i]);
        if (object == NULL || PyList_Append(list, object) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(object);
        free_copy((struct tracemalloc_traceback *)all.entries[i].traceback);
    }
    free(all.entries);
    return list;
}

#else

PyObject *pyprof_traceback_of(unsigned int domain, const void *address) {
    return ask_for_traceback(domain, address);
}

bool pyprof_traces_can_be_read(void) { return false; }

bool pyprof_may_track(void) { return true; }

PyObject *pyprof_traces_read(void) { return PyList_New(0); }

#endif
