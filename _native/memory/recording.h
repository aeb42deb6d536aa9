/* Recording: the memory profile as a whole, on and off. Attached, in the main interpreter, one thread at a
 * time (the profiler's lock). */
#ifndef PYPROF_RECORDING_H
#define PYPROF_RECORDING_H

#include <Python.h>
#include <stdbool.h>

#include "memory/heap.h"

/* False with an error set. On already: nothing is looked at. `traced`: stacks are kept by tracemalloc, which
 * is started for it; else there is nothing that it is told. */
bool pyprof_recording_start(const pyprof_heap_options *options, bool traced);
void pyprof_recording_stop(void);
void pyprof_recording_set_period(double period);

/* Puts right what others did to the hook; false: it is off for good. */
bool pyprof_recording_check(void);

#endif
