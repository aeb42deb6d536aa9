/* See code_view.h. */
#define Py_BUILD_CORE 1 /* the size of a frame's fixed part is internal on 3.11 */
#include "cpython/version.h"

#if PYPROF_KNOWN_LAYOUT
#include "internal/pycore_code.h"
#include "internal/pycore_frame.h"
#endif
#undef Py_BUILD_CORE

#include "cpython/code_view.h"
#include "cpython/guarded_read.h"

#include <stdlib.h>

/* `copy` may be a copy of the fixed part of the code object at `code`. */
static pyprof_code_shape shape_of(const PyCodeObject *copy, const void *code) {
    pyprof_code_shape shape = {0};
#if PYPROF_KNOWN_LAYOUT
    const int32_t code_unit = (int32_t)sizeof(_Py_CODEUNIT);
#if PYPROF_CODE_KNOWS_FRAME_SIZE
    shape.frame_bytes = (uint32_t)copy->co_framesize * sizeof(PyObject *);
#else
    shape.frame_bytes =
        (uint32_t)(copy->co_nlocalsplus + copy->co_stacksize + FRAME_SPECIALS_SIZE) * sizeof(PyObject *);
#endif
    shape.bytecode_bytes = (int32_t)Py_SIZE(copy) * code_unit;
    shape.locals = (uint32_t)copy->co_nlocalsplus;
    shape.first_traceable = copy->_co_firsttraceable * code_unit;
#if !PYPROF_FREE_THREADED
    shape.bytecode = (const char *)code + offsetof(PyCodeObject, co_code_adaptive);
#endif
#else
    (void)copy;
#endif
    (void)code;
    return shape;
}

static pyprof_text text_of(PyObject *string) {
    return (pyprof_text){PyUnicode_KIND(string), (size_t)PyUnicode_GET_LENGTH(string),
                         PyUnicode_DATA(string)};
}

pyprof_code_view pyprof_view_code(PyCodeObject *code) {
    return (pyprof_code_view){
        .shape = shape_of(code, code),
        .qualname = text_of(code->co_qualname),
        .filename = text_of(code->co_filename),
        .first_line = code->co_firstlineno,
        .linetable = (const uint8_t *)PyBytes_AS_STRING(code->co_linetable),
        .linetable_size = (size_t)PyBytes_GET_SIZE(code->co_linetable),
    };
}

/* -- copies -- */

enum { MOST_CHARACTERS = 1 << 16, MOST_LINETABLE_BYTES = 1 << 24 };

static struct {
    char *bytes;
    size_t capacity; /* atomic */
} copied;

static void set_capacity(size_t capacity) { __atomic_store_n(&copied.capacity, capacity, __ATOMIC_RELAXED); }

void pyprof_copied_code_close(void) {
    free(copied.bytes);
    copied.bytes = NULL;
    set_capacity(0);
}

void pyprof_copied_code_reset_child(void) {
    copied.bytes = NULL; /* it may just have been freed */
    set_capacity(0);
}

size_t pyprof_copied_code_bytes(void) { return __atomic_load_n(&copied.capacity, __ATOMIC_RELAXED); }

static bool make_room(size_t bytes) {
    if (bytes > copied.capacity) {
        free(copied.bytes);
        copied.bytes = malloc(bytes * 2);
        set_capacity(copied.bytes == NULL ? 0 : bytes * 2);
    }
    return copied.bytes != NULL;
}

/* What a str's header says of its characters; false where it is none of the usual kind. */
static bool describe_text(const PyASCIIObject *header, const char *object, pyprof_text *text) {
    *text = (pyprof_text){
        .kind = header->state.kind,
        .length = (size_t)header->length,
        .data = object + (header->state.ascii ? sizeof(PyASCIIObject) : sizeof(PyCompactUnicodeObject)),
    };
    return header->ob_base.ob_type == &PyUnicode_Type && header->state.compact && header->length >= 0 &&
           header->length <= MOST_CHARACTERS && (text->kind == 1 || text->kind == 2 || text->kind == 4);
}

static bool is_object_address(const void *address) {
    return address != NULL && (uintptr_t)address % sizeof(void *) == 0;
}

bool pyprof_copy_code(const void *address, pyprof_code_view *view) {
    PyCodeObject code;
    const pyprof_read fixed_part = {&code, address, offsetof(PyCodeObject, co_code_adaptive)};
    if (!is_object_address(address) || !pyprof_read_memory(&fixed_part, 1) ||
        ((PyObject *)&code)->ob_type != &PyCode_Type || Py_SIZE(&code) <= 0 ||
        !is_object_address(code.co_qualname) || !is_object_address(code.co_filename) ||
        !is_object_address(code.co_linetable)) {
        return false;
    }
    PyASCIIObject qualname, filename;
    PyVarObject linetable;
    const pyprof_read headers[] = {
        {&qualname, code.co_qualname, sizeof(qualname)},
        {&filename, code.co_filename, sizeof(filename)},
        {&linetable, code.co_linetable, sizeof(linetable)},
    };
    *view = (pyprof_code_view){.shape = shape_of(&code, address), .first_line = code.co_firstlineno};
    if (!pyprof_read_memory(headers, 3) ||
        !describe_text(&qualname, (const char *)code.co_qualname, &view->qualname) ||
        !describe_text(&filename, (const char *)code.co_filename, &view->filename) ||
        linetable.ob_base.ob_type != &PyBytes_Type || linetable.ob_size < 0 ||
        linetable.ob_size > MOST_LINETABLE_BYTES) {
        return false;
    }
    view->linetable_size = (size_t)linetable.ob_size;
    const size_t qualname_bytes = view->qualname.length * (size_t)view->qualname.kind;
    const size_t filename_bytes = view->filename.length * (size_t)view->filename.kind;
    /* Each begins where its characters may be read as such. */
    const size_t filename_at = (qualname_bytes + 7) & ~(size_t)7;
    const size_t linetable_at = filename_at + filename_bytes;
    if (!make_room(linetable_at + view->linetable_size + 1)) {
        return false;
    }
    const char *table = (const char *)code.co_linetable + offsetof(PyBytesObject, ob_sval);
    const pyprof_read contents[] = {
        {copied.bytes, view->qualname.data, qualname_bytes},
        {copied.bytes + filename_at, view->filename.data, filename_bytes},
        {copied.bytes + linetable_at, table, view->linetable_size},
    };
    view->qualname.data = copied.bytes;
    view->filename.data = copied.bytes + filename_at;
    view->linetable = (const uint8_t *)copied.bytes + linetable_at;
    return pyprof_read_memory(contents, 3);
}
