/* See callables.h. */
#define Py_BUILD_CORE 1 /* _PyInterpreterFrame is internal */
#include "cpython/version.h"

#if PYPROF_KNOWN_LAYOUT
#include "internal/pycore_frame.h"
#if PY_VERSION_HEX >= 0x030e0000
#include "internal/pycore_interpframe_structs.h"
#endif
#endif
#undef Py_BUILD_CORE

#include "cpython/call_sites.h"
#include "cpython/callables.h"
#include "cpython/guarded_read.h"

#include <stdlib.h>
#include <string.h>

#if PYPROF_KNOWN_LAYOUT

const char *pyprof_callable_place(const char *frame, const char *copy, const void *code,
                                  pyprof_code_shape *shape, int32_t lasti) {
    if (shape->call_sites == NULL) {
        shape->call_sites = pyprof_read_call_sites(code);
    }
    const pyprof_call_site *site =
        shape->call_sites == NULL ? NULL : pyprof_find_call_site(shape->call_sites, lasti);
    if (site == NULL) {
        return NULL;
    }
    const char *stack =
        frame + offsetof(_PyInterpreterFrame, localsplus) + (size_t)shape->locals * sizeof(PyObject *);
#if PYPROF_FRAME_HAS_STACK_POINTER
    /* Kept while anything is called. Another one: the call has not begun, or is over. */
    const char *top;
    memcpy(&top, copy + offsetof(_PyInterpreterFrame, stackpointer), sizeof(top));
    if (top != stack + (size_t)site->depth * sizeof(PyObject *)) {
        return NULL;
    }
#else
    (void)copy;
#endif
    return stack + (size_t)site->callable * sizeof(PyObject *);
}

static const void *untagged(uintptr_t word) {
#if PYPROF_TAGGED_EXECUTABLE
    enum { TAG = 3, TAGGED_INTEGER = 3 };
    return (word & TAG) == TAGGED_INTEGER ? NULL : (const void *)(word & ~(uintptr_t)TAG);
#else
    return (const void *)word;
#endif
}

const void *pyprof_callable_in(const char *place) {
    uintptr_t words[2];
    memcpy(words, place, sizeof(words));
    const void *callable = untagged(words[0]);
    /* Until 3.12 NULL stands before what is called without `self`. */
    callable = callable == NULL && PYPROF_NULL_BEFORE_CALLABLE ? untagged(words[1]) : callable;
    return (uintptr_t)callable % sizeof(void *) == 0 ? callable : NULL;
}

typedef union {
    PyObject object;
    PyCFunctionObject function; /* more is read than a smaller one has: it is not looked at */
    PyMethodDescrObject method;
} callable_copy;

enum { MOST_AT_ONCE = 16, CALLABLE_COPY_BYTES = offsetof(PyMethodDescrObject, vectorcall) };

_Static_assert((int)offsetof(PyCFunctionObject, m_weakreflist) <= (int)CALLABLE_COPY_BYTES, "");

static pyprof_c_function of_method(pyprof_c_function_kind kind, const PyMethodDef *definition,
                                   const void *owner) {
    return (pyprof_c_function){kind, definition, owner,
                               (const char *)definition + offsetof(PyMethodDef, ml_name)};
}

static pyprof_c_function of_type(pyprof_c_function_kind kind, const void *definition, const void *type) {
    return (pyprof_c_function){kind, definition, type, (const char *)type + offsetof(PyTypeObject, tp_name)};
}

/* What runs where an object of a class with `__call__` is called, if that is Python code's class. */
static uintptr_t call_of_python_classes;

bool pyprof_callables_open(void) {
    PyObject *python_class =
        PyObject_CallFunction((PyObject *)&PyType_Type, "s(){sO}", "pyprof_callable", "__call__", Py_None);
    if (python_class == NULL) {
        PyErr_Clear();
        return false;
    }
    call_of_python_classes = (uintptr_t)((PyTypeObject *)python_class)->tp_call;
    Py_DECREF(python_class);
    return true;
}

/* A callee, and whether it still was one at both ends of the reading. */
typedef struct {
    callable_copy copy;
    struct {
        char place[PYPROF_CALLABLE_BYTES];
        const char *instruction;
    } before, after;
} callee_copy;

static size_t reads_of(const pyprof_callee *callee, callee_copy *copy, pyprof_read *reads) {
    const size_t size = sizeof(callee->instruction);
    size_t n = 0;
    if (callee->instruction_place != NULL) {
        reads[n++] = (pyprof_read){copy->before.place, callee->place, PYPROF_CALLABLE_BYTES};
        reads[n++] = (pyprof_read){&copy->before.instruction, callee->instruction_place, size};
    }
    reads[n++] = (pyprof_read){&copy->copy, callee->object, CALLABLE_COPY_BYTES};
    if (callee->instruction_place != NULL) {
        reads[n++] = (pyprof_read){&copy->after.instruction, callee->instruction_place, size};
        reads[n++] = (pyprof_read){copy->after.place, callee->place, PYPROF_CALLABLE_BYTES};
    }
    return n;
}

/* Bound methods are made for one call as a rule, and then another object takes their place in memory. */
static bool was_there(const pyprof_callee *callee, const callee_copy *copy) {
    return callee->instruction_place == NULL || (copy->before.instruction == callee->instruction &&
                                                 copy->after.instruction == callee->instruction &&
                                                 pyprof_callable_in(copy->before.place) == callee->object &&
                                                 pyprof_callable_in(copy->after.place) == callee->object);
}

static bool is_function(const callee_copy *copy) {
    const PyTypeObject *type = copy->copy.object.ob_type;
    return type == &PyCFunction_Type || type == &PyCMethod_Type;
}

/* None of those that CPython calls in a way of their own. */
static bool is_object(const callee_copy *copy) {
    const PyTypeObject *type = copy->copy.object.ob_type;
    return !is_function(copy) && type != &PyMethodDescr_Type && type != &PyClassMethodDescr_Type &&
           type != &PyType_Type && type != &PyFunction_Type && type != &PyMethod_Type;
}

/* A word that tells the rest, if it takes one: the type of what a method is bound to; the flags of a type;
 * how objects of a type are called. */
static const char *place_of_word(const pyprof_callee *callee, const callee_copy *copy) {
    const PyCFunctionObject *function = &copy->copy.function;
    if (is_function(copy)) {
        return function->m_module == NULL && function->m_self != NULL && was_there(callee, copy)
                   ? (const char *)function->m_self + offsetof(PyObject, ob_type)
                   : NULL;
    }
    if (copy->copy.object.ob_type == &PyType_Type) {
        return (const char *)callee->object + offsetof(PyTypeObject, tp_flags);
    }
    return is_object(copy) && was_there(callee, copy)
               ? (const char *)copy->copy.object.ob_type + offsetof(PyTypeObject, tp_call)
               : NULL;
}

_Static_assert(sizeof(((PyTypeObject *)NULL)->tp_flags) == sizeof(uintptr_t), "flags are a word");

/* What makes an object of a type is certain if nothing can be assigned to it: no class of Python code. */
static bool is_type_of_c(uintptr_t flags) {
    return (flags & Py_TPFLAGS_HEAPTYPE) == 0 || (flags & Py_TPFLAGS_IMMUTABLETYPE) != 0;
}

/* `word`: NULL, there is none, or it could not be read. */
static pyprof_c_function identify(const pyprof_callee *callee, const callee_copy *copy,
                                  const uintptr_t *word) {
    const PyTypeObject *type = copy->copy.object.ob_type;
    const PyCFunctionObject *function = &copy->copy.function;
    const PyMethodDescrObject *method = &copy->copy.method;
    if (is_function(copy) && function->m_module != NULL) {
        return of_method(PYPROF_OF_MODULE, function->m_ml, function->m_module);
    }
    if (is_function(copy) && word != NULL) { /* a method bound to a type is that type's */
        const void *bound_to = (const void *)*word;
        return of_method(PYPROF_OF_TYPE, function->m_ml,
                         bound_to == &PyType_Type ? (const void *)function->m_self : bound_to);
    }
    if (type == &PyMethodDescr_Type || type == &PyClassMethodDescr_Type) {
        return of_method(PYPROF_OF_TYPE, method->d_method, method->d_common.d_type);
    }
    if (type == &PyType_Type && word != NULL && is_type_of_c(*word)) {
        return of_type(PYPROF_TYPE, callee->object, callee->object);
    }
    if (is_object(copy) && word != NULL && *word != 0 && call_of_python_classes != 0 &&
        *word != call_of_python_classes) {
        return of_type(PYPROF_OBJECT_OF_TYPE, (const void *)*word, type);
    }
    return (pyprof_c_function){0};
}

/* Two system calls for all of them: as many as there are would cost more than the rest of a walk. */
static void identify_some(const pyprof_callee *const *callees, size_t count, pyprof_c_function *found) {
    enum { READS_OF_ONE = 5 };
    static callee_copy copies[MOST_AT_ONCE]; /* one thread at a time, which may have a small stack */
    static pyprof_read reads[READS_OF_ONE * MOST_AT_ONCE];
    uintptr_t words[MOST_AT_ONCE];
    bool has_word[MOST_AT_ONCE];
    size_t read_count = 0, word_count = 0;
    for (size_t i = 0; i < count; i++) {
        read_count += reads_of(callees[i], &copies[i], reads + read_count);
    }
    if (!pyprof_read_memory(reads, read_count)) {
        memset(found, 0, count * sizeof(*found));
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const char *place = place_of_word(callees[i], &copies[i]);
        has_word[i] = place != NULL;
        if (has_word[i]) {
            reads[word_count++] = (pyprof_read){&words[i], place, sizeof(words[i])};
        }
    }
    const bool has_words = word_count > 0 && pyprof_read_memory(reads, word_count);
    for (size_t i = 0; i < count; i++) {
        found[i] = identify(callees[i], &copies[i], has_words && has_word[i] ? &words[i] : NULL);
    }
}

void pyprof_identify_callees(const pyprof_callee *const *callees, size_t count, pyprof_c_function *found) {
    for (size_t begin = 0; begin < count; begin += MOST_AT_ONCE) {
        const size_t rest = count - begin;
        identify_some(callees + begin, rest < MOST_AT_ONCE ? rest : MOST_AT_ONCE, found + begin);
    }
}

/* -- names -- */

static bool is_printable(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (text[i] <= ' ' || text[i] > '~') {
            return false;
        }
    }
    return length > 0;
}

/* Without the NUL; 0 where it is longer than `most`, or out of the common. It may be the last thing on its
 * page. */
static size_t read_c_string(const char *from, char *to, size_t most) {
    enum { PAGE = 4096 };
    for (size_t length = 0; length < most;) {
        const size_t to_end_of_page = PAGE - ((uintptr_t)from + length) % PAGE;
        const size_t size = to_end_of_page < most - length ? to_end_of_page : most - length;
        const pyprof_read part = {to + length, from + length, size};
        if (!pyprof_read_memory(&part, 1)) {
            return 0;
        }
        const char *end = memchr(to + length, '\0', size);
        if (end != NULL) {
            length = (size_t)(end - to);
            return is_printable(to, length) ? length : 0;
        }
        length += size;
    }
    return 0;
}

static size_t read_str(const void *string, char *to, size_t most) {
    PyASCIIObject header;
    const pyprof_read first = {&header, string, sizeof(header)};
    if (!pyprof_read_memory(&first, 1) || header.ob_base.ob_type != &PyUnicode_Type ||
        !header.state.compact || !header.state.ascii || header.length <= 0 || (size_t)header.length > most) {
        return 0;
    }
    const size_t length = (size_t)header.length;
    const pyprof_read characters = {to, (const char *)string + sizeof(header), length};
    return pyprof_read_memory(&characters, 1) && is_printable(to, length) ? length : 0;
}

static size_t read_type_name(const void *type, char *to, size_t most) {
    const char builtins[] = "builtins.";
    const size_t prefix = sizeof(builtins) - 1;
    const char *name;
    unsigned long flags;
    const pyprof_read fields[] = {
        {&name, (const char *)type + offsetof(PyTypeObject, tp_name), sizeof(name)},
        {&flags, (const char *)type + offsetof(PyTypeObject, tp_flags), sizeof(flags)},
    };
    const size_t length = pyprof_read_memory(fields, 2) ? read_c_string(name, to, most - prefix) : 0;
    if (length == 0 || memchr(to, '.', length) != NULL || (flags & Py_TPFLAGS_HEAPTYPE) != 0) {
        return length;
    }
    memmove(to + prefix, to, length);
    memcpy(to, builtins, prefix);
    return prefix + length;
}

size_t pyprof_read_c_name(const pyprof_c_function *function, char *name, const char **own_name,
                          size_t *own_size) {
    enum { MOST_OF_OWNER = PYPROF_C_NAME_BYTES / 2 };
    const size_t owner = function->kind == PYPROF_OF_MODULE
                             ? read_str(function->owner, name, MOST_OF_OWNER)
                             : read_type_name(function->owner, name, MOST_OF_OWNER);
    const pyprof_read field = {own_name, function->name_field, sizeof(*own_name)};
    if (owner == 0 || !pyprof_read_memory(&field, 1)) {
        return 0;
    }
    const bool is_type = function->kind == PYPROF_TYPE || function->kind == PYPROF_OBJECT_OF_TYPE;
    char own[MOST_OF_OWNER - 1];
    *own_size = read_c_string(*own_name, own, sizeof(own));
    /* A class of Python code has no module in its name; nor have CPython's own, which may call it directly.
     */
    const bool is_unsure = function->kind == PYPROF_OBJECT_OF_TYPE && memchr(own, '.', *own_size) == NULL;
    if (is_type || *own_size == 0) {
        return *own_size == 0 || is_unsure ? 0 : owner;
    }
    name[owner] = '.';
    memcpy(name + owner + 1, own, *own_size);
    return owner + 1 + *own_size;
}

#else

const char *pyprof_callable_place(const char *frame, const char *copy, const void *code,
                                  pyprof_code_shape *shape, int32_t lasti) {
    (void)frame, (void)copy, (void)code, (void)shape, (void)lasti;
    return NULL;
}

const void *pyprof_callable_in(const char *place) { return (void)place, NULL; }

bool pyprof_callables_open(void) { return false; }

void pyprof_identify_callees(const pyprof_callee *const *callees, size_t count, pyprof_c_function *found) {
    (void)callees;
    memset(found, 0, count * sizeof(*found));
}

size_t pyprof_read_c_name(const pyprof_c_function *function, char *name, const char **own_name,
                          size_t *own_size) {
    (void)function, (void)name, (void)own_name, (void)own_size;
    return 0;
}

#endif
