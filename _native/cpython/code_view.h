/* What pyprof wants to know of a code object, and two ways to read it: from a live object with the GIL, and
 * by guarded reads without. */
#ifndef PYPROF_CPYTHON_CODE_VIEW_H
#define PYPROF_CPYTHON_CODE_VIEW_H

#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpython/call_sites.h"

/* What a reader of live frames must know of a code object beforehand. */
typedef struct {
    uint32_t frame_bytes;          /* of a frame on the data stack */
    int32_t bytecode_bytes;        /* length */
    int32_t first_traceable;       /* byte offset */
    int32_t bytecode_copy;         /* free-threaded builds: which thread's copy `bytecode` is */
    const char *bytecode;          /* NULL: not looked up yet */
    uint32_t locals;               /* words before a frame's value stack, cells included */
    pyprof_call_sites *call_sites; /* NULL: not looked up yet */
} pyprof_code_shape;

/* A str, as CPython stores it: `kind` bytes a character. */
typedef struct {
    int kind;
    size_t length;
    const void *data;
} pyprof_text;

typedef struct {
    pyprof_code_shape shape;
    pyprof_text qualname, filename;
    int32_t first_line;
    const uint8_t *linetable;
    size_t linetable_size;
} pyprof_code_view;

/* Attached: of a live code object. Valid as long as that is. */
pyprof_code_view pyprof_view_code(PyCodeObject *code);

/* The timer thread, attached or not, holding no lock: a copy of what `code` points to, valid until the next
 * one. False where that is no code object, or one out of the common. Who calls must know that `code` has not
 * died meanwhile, or that nothing depends on it: a copy of what was there before may look as good. */
bool pyprof_copy_code(const void *code, pyprof_code_view *view);

/* Frees the memory of copies; how much that is, from any thread. */
void pyprof_copied_code_close(void);
size_t pyprof_copied_code_bytes(void);
/* In the child of a fork: leaves it behind. */
void pyprof_copied_code_reset_child(void);

#endif
