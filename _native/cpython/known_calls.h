/* Known calls: from this instruction to that function, as stacks have shown them that were read with the GIL,
 * or, on free-threaded builds, that did not move meanwhile.
 *
 * A fixed table in which the older calls make room: what is forgotten is learned again. No lock:
 * `pyprof_live_learn_calls` (live_stacks.h), which fills it, runs in the timer thread or, with the GIL, while
 * that waits; the function below is the timer thread's, during a walk, or the proof's. Code objects are
 * compared by address, never followed.
 */
#ifndef PYPROF_CPYTHON_KNOWN_CALLS_H
#define PYPROF_CPYTHON_KNOWN_CALLS_H

#include "cpython/interpreter.h"

bool pyprof_is_known_call(const pyprof_code_frame *caller, const pyprof_code_frame *callee);

#endif
