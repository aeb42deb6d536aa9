/* See contexts.h.
 *
 * A context's variables are a HAMT (CPython's hamt.c): a tree whose nodes never change once they are in it.
 * Each level takes five bits of the variable's hash. A node is an array of 32, or a bitmap and as many pairs
 * as it has bits; a pair without a key has the next node as its value. Nodes of the third kind, for keys of
 * one hash, are not searched: a variable whose 32 bits another one shares is not found.
 */
#define Py_BUILD_CORE 1 /* PyContext and PyHamtObject are internal */
#include "cpython/version.h"

#if PYPROF_KNOWN_LAYOUT
#include "internal/pycore_context.h"
#include "internal/pycore_hamt.h"
#endif
#undef Py_BUILD_CORE

#include "cpython/contexts.h"
#include "cpython/guarded_read.h"

#include <stdint.h>
#include <string.h>

bool pyprof_context_copy(void *to, const void *from, size_t size, pyprof_context_state state) {
    if (state == PYPROF_STANDS_STILL) {
        memcpy(to, from, size);
        return true;
    }
    const pyprof_read read = {to, from, size};
    return pyprof_read_memory(&read, 1);
}

#if PYPROF_KNOWN_LAYOUT

/* Of hamt.c. */
typedef struct {
    PyObject_VAR_HEAD uint32_t bitmap;
    const char *pairs[2];
} bitmap_node;

typedef struct {
    PyObject_HEAD const char *children[32];
} array_node;

enum { BITS = 5, MASK = (1 << BITS) - 1, LEVELS = 7, FIRST_PAIRS = 4 };

static struct {
    PyObject *variable;
    int32_t hash;
    const PyTypeObject *map_type, *bitmap_type, *array_type;
} known;

static bool is_of(const PyObject *copy, const PyTypeObject *type) { return copy->ob_type == type; }

/* The beginning of a node, and its first pairs if it is a bitmap node. */
typedef struct {
    bitmap_node node;
    const char *more[2 * (FIRST_PAIRS - 1)];
    size_t size; /* what could be read */
} node_copy;

static const PyTypeObject *type_of(const node_copy *copy) { return ((const PyObject *)copy)->ob_type; }

/* A small node ends before its copy does; that no memory comes after it is rare. */
static bool read_node(node_copy *copy, const char *node, pyprof_context_state state) {
    copy->size = offsetof(node_copy, size);
    if (state == PYPROF_MAY_CHANGE && pyprof_context_copy(copy, node, copy->size, state)) {
        return true;
    }
    copy->size = offsetof(bitmap_node, pairs);
    return pyprof_context_copy(copy, node, copy->size, state);
}

/* The pair of the variable in a bitmap node. False: it has none. */
static bool read_pair(const node_copy *copy, const char *node, uint32_t bit, const char **pair,
                      pyprof_context_state state) {
    if (!(copy->node.bitmap & bit)) {
        return false;
    }
    const size_t number = (size_t)__builtin_popcount(copy->node.bitmap & (bit - 1));
    const size_t at = offsetof(bitmap_node, pairs) + number * sizeof(copy->node.pairs);
    if (at + sizeof(copy->node.pairs) <= copy->size) {
        memcpy(pair, (const char *)copy + at, sizeof(copy->node.pairs));
        return true;
    }
    return pyprof_context_copy(pair, node + at, sizeof(copy->node.pairs), state);
}

static const char *find_in(const char *node, pyprof_context_state state) {
    uint32_t hash = (uint32_t)known.hash;
    for (int level = 0; level < LEVELS && node != NULL; level++, hash >>= BITS) {
        node_copy copy;
        const char *pair[2];
        if (!read_node(&copy, node, state)) {
            return NULL;
        }
        if (type_of(&copy) == known.array_type) {
            const char *at = node + offsetof(array_node, children) + (hash & MASK) * sizeof(node);
            if (!pyprof_context_copy(&node, at, sizeof(node), state)) {
                return NULL;
            }
            continue;
        }
        if (type_of(&copy) != known.bitmap_type ||
            !read_pair(&copy, node, 1u << (hash & MASK), pair, state)) {
            return NULL;
        }
        if (pair[0] != NULL) {
            return pair[0] == (const char *)known.variable ? pair[1] : NULL;
        }
        node = pair[1];
    }
    return NULL;
}

const void *pyprof_context_of(PyThreadState *thread) { return thread->context; }

const char *pyprof_context_variables_place(const char *context) {
    return context + offsetof(PyContext, ctx_vars);
}

const void *pyprof_context_find_among(const void *variables, pyprof_context_state state) {
    PyHamtObject map;
    enum { UP_TO_ROOT = offsetof(PyHamtObject, h_root) + sizeof(map.h_root) };
    if (variables == NULL || known.variable == NULL ||
        !pyprof_context_copy(&map, variables, UP_TO_ROOT, state) ||
        !is_of((PyObject *)&map, known.map_type)) {
        return NULL;
    }
    return find_in((const char *)map.h_root, state);
}

const void *pyprof_context_find(const void *context, pyprof_context_state state) {
    PyContext copy;
    enum { UP_TO_VARIABLES = offsetof(PyContext, ctx_vars) + sizeof(copy.ctx_vars) };
    if (context == NULL || !pyprof_context_copy(&copy, context, UP_TO_VARIABLES, state) ||
        !is_of((PyObject *)&copy, &PyContext_Type)) {
        return NULL;
    }
    return pyprof_context_find_among(copy.ctx_vars, state);
}

/* As hamt.c folds it. */
static bool fold_hash(PyObject *variable) {
    const Py_hash_t hash = PyObject_Hash(variable);
    if (hash == -1) {
        return false;
    }
    const int32_t folded = (int32_t)(hash & 0xffffffffl) ^ (int32_t)((int64_t)hash >> 32);
    known.hash = folded == -1 ? -2 : folded;
    return true;
}

static bool set_variable(PyObject *variable, PyObject *value) {
    PyObject *token = PyContextVar_Set(variable, value);
    Py_XDECREF(token);
    return token != NULL;
}

enum { OTHERS = 64 }; /* one node takes 16 pairs before it becomes an array */

static bool add_others(int count) {
    bool added = true;
    for (int i = 0; i < count && added; i++) {
        PyObject *other = PyContextVar_New("other", NULL);
        added = other != NULL && set_variable(other, Py_None);
        Py_XDECREF(other);
    }
    return added;
}

static const PyTypeObject *type_of_root(const PyContext *context) {
    return Py_TYPE((PyObject *)context->ctx_vars->h_root);
}

/* That of the first node on the variable's way that is no bitmap node; NULL: all are. Hashes of objects that
 * lie close together may have bits in common, so that the first nodes have but one child. */
static const PyTypeObject *type_of_array(const PyContext *context) {
    const char *node = (const char *)context->ctx_vars->h_root;
    uint32_t hash = (uint32_t)known.hash;
    for (int level = 0; level < LEVELS && node != NULL; level++, hash >>= BITS) {
        const PyTypeObject *type = Py_TYPE((PyObject *)node);
        node_copy copy;
        const char *pair[2];
        if (type != known.bitmap_type) {
            return type->tp_itemsize == 0 && (size_t)type->tp_basicsize >= sizeof(array_node) ? type : NULL;
        }
        if (!read_node(&copy, node, PYPROF_STANDS_STILL) ||
            !read_pair(&copy, node, 1u << (hash & MASK), pair, PYPROF_STANDS_STILL) || pair[0] != NULL) {
            return NULL;
        }
        node = pair[1];
    }
    return NULL;
}

static bool is_found(PyContext *context, PyObject *value) {
    return pyprof_context_find(context, PYPROF_STANDS_STILL) == value &&
           (!pyprof_can_read_memory() || pyprof_context_find(context, PYPROF_MAY_CHANGE) == value);
}

/* In a context of its own, which the calling thread has entered: alone, and among many. */
static bool proves(PyContext *context, PyObject *value) {
    PyThreadState *own = PyThreadState_Get();
    if (pyprof_context_of(own) != (void *)context || context->ctx_vars == NULL || !add_others(1)) {
        return false;
    }
    known.map_type = Py_TYPE((PyObject *)context->ctx_vars);
    known.bitmap_type = type_of_root(context);
    const bool alone = pyprof_context_find(context, PYPROF_STANDS_STILL) == NULL &&
                       set_variable(known.variable, value) && is_found(context, value);
    if (!alone || !add_others(OTHERS)) {
        return false;
    }
    known.array_type = type_of_array(context);
    return is_found(context, value) && set_variable(known.variable, Py_None) && is_found(context, Py_None);
}

const char *pyprof_contexts_prepare(PyObject *variable) {
    static const char *const wrong_layout = "the interpreter's contexts are not laid out as expected";
    PyObject *context = PyContext_New(), *value = PyLong_FromLong(1 << 20);
    bool proven = false;
    if (context != NULL && value != NULL && fold_hash(variable) && PyContext_Enter(context) == 0) {
        known.variable = Py_NewRef(variable);
        proven = proves((PyContext *)context, value);
        proven = PyContext_Exit(context) == 0 && proven;
    }
    if (!proven) {
        Py_CLEAR(known.variable);
        PyErr_Clear();
    }
    Py_XDECREF(context);
    Py_XDECREF(value);
    return proven ? NULL : wrong_layout;
}

#else

const char *pyprof_contexts_prepare(PyObject *variable) {
    return (void)variable, "this version of CPython is not known to this version of pyprof";
}

const void *pyprof_context_of(PyThreadState *thread) { return (void)thread, NULL; }

const char *pyprof_context_variables_place(const char *context) { return (void)context, NULL; }

const void *pyprof_context_find(const void *context, pyprof_context_state state) {
    return (void)context, (void)state, NULL;
}

const void *pyprof_context_find_among(const void *variables, pyprof_context_state state) {
    return (void)variables, (void)state, NULL;
}

#endif
