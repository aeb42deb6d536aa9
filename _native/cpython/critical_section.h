/* Sections of code that one thread at a time runs for an object, where no GIL sees to that; free before 3.13.
 */
#ifndef PYPROF_CPYTHON_CRITICAL_SECTION_H
#define PYPROF_CPYTHON_CRITICAL_SECTION_H

#include <Python.h>

#ifndef Py_BEGIN_CRITICAL_SECTION
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#endif

#endif
