/* Who waits for the GIL: what the interpreter and the C library tell of that.
 *
 * A thread that wants the GIL waits for a condition variable inside it, and one that had to drop it, before
 * it goes on, for another until somebody has taken it. The C library counts who is in such a wait, blocked or
 * woken and not yet on a CPU; which threads those are, thread states say (3.15), or the address at which a
 * thread blocks. From any thread, attached or not, and no lock: the GIL lives as long as its interpreter.
 */
#ifndef PYPROF_CPYTHON_GIL_WAITERS_H
#define PYPROF_CPYTHON_GIL_WAITERS_H

#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* NULL, or why it is not told who waits, and nothing below may be called. After
 * `pyprof_trust_layout`. */
const char *pyprof_gil_waiters_obstacle(PyInterpreterState *interp);

/* Whether thread states say that they want the GIL: then those are found by that, and nowhere else. */
bool pyprof_gil_names_waiters(void);
enum { PYPROF_MOST_NAMED = 64 }; /* at once */
void pyprof_gil_named_waiters(const void *const *tstates, size_t count, bool *named);

/* The threads that wait and are not named. */
size_t pyprof_gil_count_waiters(PyInterpreterState *interp);

/* Whether a thread that blocks at this address waits for the GIL. */
bool pyprof_gil_has_address(PyInterpreterState *interp, uint64_t address);

/* A mark that is another one if, in between, any thread but the holder of the first has had the GIL. */
typedef struct {
    const void *holder; /* as `pyprof_gil_holder` says */
    unsigned long switches;
} pyprof_gil_mark;
pyprof_gil_mark pyprof_gil_mark_now(PyInterpreterState *interp);
bool pyprof_gil_stayed(const pyprof_gil_mark *before, const pyprof_gil_mark *after);

/* Whether an instruction calls no C function, and looks whether the GIL is to be dropped: a thread without
 * the GIL that stands there wants it back. At most PYPROF_MOST_NAMED at once. The address is NULL where that
 * is not known. */
const char *pyprof_instruction_of(const PyCodeObject *code, int32_t lasti);
void pyprof_are_safe_points(const char *const *instructions, size_t count, bool *are);

#endif
