/* Code cache: the symbol of every code object that was seen in a sample and still lives.
 *
 * One per process, of the timer thread: what is here may be called by the timer thread, attached or not, and
 * by who takes a snapshot for it with the GIL or with the world stopped, while it waits. `open` and `close`
 * are called attached, when there is no timer thread.
 *
 * The death of a code object, of whichever interpreter, is reported on the thread that frees it, possibly on
 * several at once: that only notes its address. Every snapshot begins with forgetting
 * what has died, and asks, before it believes what it has read without the GIL, whether any of that has died
 * since: so an address that CPython uses again never gets its predecessor's name. Where more has died than
 * could be noted, everything is forgotten.
 *
 * The cache holds no reference to code objects, and no lock.
 */
#ifndef PYPROF_CODE_CACHE_H
#define PYPROF_CODE_CACHE_H

#include <Python.h>
#include <stdbool.h>
#include <stddef.h>

#include "cpython/code_view.h"
#include "cpython/interpreter.h"
#include "symbols/symbol.h"

/* Begin and end watching deaths; end empties the cache. */
void pyprof_code_cache_open(void);
void pyprof_code_cache_close(void);

/* Called first in every snapshot: forgets what died. Symbols that were borrowed before are valid no more. */
void pyprof_code_cache_begin_snapshot(void);

/* Code objects may have gone without a death: the next snapshot begins with an empty cache. */
void pyprof_code_cache_forget(void);

/* With the GIL or the world stopped: the symbol of a live code object; borrowed. NULL without memory. */
pyprof_symbol *pyprof_code_cache_get(PyCodeObject *code);

/* Without: of one that is known; else NULL. */
pyprof_symbol *pyprof_code_cache_find(const void *code);

/* The same, and one that is not known yet is read and remembered until `end_walk`. The shape belongs to the
 * timer thread, which may complete it; valid until the next call. NULL where it cannot be read. */
pyprof_code_shape *pyprof_code_cache_find_shape(const void *code);

/* Remembers, of what is new since the last `end_walk`, the code of these frames for good, and forgets the
 * rest: a walk that fails may have taken anything for a code object. False: some of theirs may have died
 * since the snapshot began, and what they show may be of two moments. */
bool pyprof_code_cache_end_walk(const pyprof_code_frame *frames, size_t depth);

/* In the child of a fork, where there is no timer thread: forgets what that was just changing. */
void pyprof_code_cache_reset_child(void);

size_t pyprof_code_cache_bytes(void); /* from any thread */

#endif
