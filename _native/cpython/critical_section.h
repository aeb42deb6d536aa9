/* Sections of code that one thread at a time runs for an object, where no GIL sees to that; free before 3.13.
 */
#ifndef PYPROF_CPYTHON_CRITICAL_SECTION_H
#define PYPROF_CPYTHON_CRITICAL_SECTION_H

#include <Python.h>
#include <stdint.h>

#ifndef Py_BEGIN_CRITICAL_SECTION
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#endif

/* The next number, attached: where there is a GIL, it sees to that they are distinct. */
static inline uint64_t pyprof_next_number(uint64_t *last) {
#ifdef Py_GIL_DISABLED
    return __atomic_add_fetch(last, 1, __ATOMIC_RELAXED);
#else
    return ++*last;
#endif
}

#endif
