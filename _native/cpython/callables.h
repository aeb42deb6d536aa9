/* Callables: what a frame of a caller keeps while what it calls runs, and what C function that is.
 *
 * For the timer thread, attached or not, holding no lock; or who takes a snapshot for it with the GIL. What
 * is not certain has no name: what is called must be one of CPython's own kinds of C functions, or an object
 * of a type written in C, and nothing that was read is followed but by guarded reads.
 */
#ifndef PYPROF_CPYTHON_CALLABLES_H
#define PYPROF_CPYTHON_CALLABLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpython/code_view.h"
#include "cpython/interpreter.h"

/* Where `frame`, at the instruction at byte offset `lasti`, keeps what that calls: PYPROF_CALLABLE_BYTES of
 * it. NULL: it calls nothing, or that is not certain. `copy`: the fixed part of the frame. */
enum { PYPROF_CALLABLE_BYTES = 2 * sizeof(void *) };
const char *pyprof_callable_place(const char *frame, const char *copy, const void *code,
                                  pyprof_code_shape *shape, int32_t lasti);

/* The callable of a copy of that. */
const void *pyprof_callable_in(const char *place);

/* Attached, before the others: how classes of Python code are told from types written in C. False, without an
 * exception: they are not. */
bool pyprof_callables_open(void);

typedef enum {
    PYPROF_OF_MODULE,
    PYPROF_OF_TYPE,
    PYPROF_TYPE,           /* that is called itself */
    PYPROF_OBJECT_OF_TYPE, /* that is called itself; named like the type */
} pyprof_c_function_kind;

/* A C function: equal ones have equal names, as long as what is at `name_field` is the same. */
typedef struct {
    pyprof_c_function_kind kind;
    const void *definition; /* NULL: no C function, or none whose name is certain */
    const void *owner;      /* the type, or the name of the module */
    const char *name_field; /* where the address of its own name stands */
} pyprof_c_function;

void pyprof_identify_callees(const pyprof_callee *const *callees, size_t count, pyprof_c_function *found);

/* Its whole name: `zlib.compress`, `builtins.list.sort`, `_json.Encoder`; ASCII. Returns the length, 0 where
 * there is none that is certain. `*own_name`: where its own is in memory, to the end of the whole;
 * `*own_size` its length.
 */
enum { PYPROF_C_NAME_BYTES = 256 };
size_t pyprof_read_c_name(const pyprof_c_function *function, char *name, const char **own_name,
                          size_t *own_size);

#endif
