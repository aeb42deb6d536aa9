/* Allocator functions: what pyprof puts into the interpreter's allocators, in sets.
 *
 * Each set passes on to what it was put on, for good: written before the set is put in, and never again. The
 * lowest one is for CPython's own functions; the others are layered on somebody else's, and lead out of the
 * circles that those make, see allocator_hook.h. Called by whoever allocates.
 */
#ifndef PYPROF_ALLOCATOR_FUNCTIONS_H
#define PYPROF_ALLOCATOR_FUNCTIONS_H

#include <Python.h>
#include <stdbool.h>

enum {
    PYPROF_HOOK_DOMAINS = 3,
    PYPROF_HOOK_SETS = 8,
    PYPROF_HOOK_LOWEST = 0,
    PYPROF_HOOK_FIRST_LAYERED = 1,
};

extern const PyMemAllocatorEx pyprof_hook_functions[PYPROF_HOOK_SETS][PYPROF_HOOK_DOMAINS];
extern PyMemAllocatorEx pyprof_hook_below[PYPROF_HOOK_SETS][PYPROF_HOOK_DOMAINS];

/* A set that is out of the chain passes on to CPython's own, if they are known: who puts it back then does
 * not know whether what it was put on has ended. */
void pyprof_hook_set_cut(int set, bool value);

/* What the set passes on to now. */
const PyMemAllocatorEx *pyprof_hook_next_of(int set, int domain);

#endif
