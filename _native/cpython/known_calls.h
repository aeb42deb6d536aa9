/* Known calls: from this instruction to that function, as stacks have shown them that were read with the GIL.
 *
 * A fixed table in which the older calls make room: what is forgotten is learned again. No lock:
 * `pyprof_live_learn_calls` (live_stacks.h), which fills it, runs with the GIL while the timer thread waits;
 * the functions below are the timer thread's, during a walk, or the proof's. Code objects are compared by
 * address, never followed.
 */
#ifndef PYPROF_CPYTHON_KNOWN_CALLS_H
#define PYPROF_CPYTHON_KNOWN_CALLS_H

#include "cpython/interpreter.h"

typedef enum {
    PYPROF_CALL_KNOWN,    /* seen with the GIL */
    PYPROF_CALL_REPEATED, /* never, but by the copy before this one of the same walk, between the same frames
                           */
    PYPROF_CALL_UNKNOWN,  /* nor that */
} pyprof_call_kind;

/* Copies are compared within one walk. */
void pyprof_known_calls_begin_walk(void);

/* From now on the copy at hand has had the call. */
pyprof_call_kind pyprof_look_up_call(const pyprof_code_frame *caller, const pyprof_code_frame *callee,
                                     const char *callers_frame);

#endif
