/* Code cache: the symbol of every code object that was seen in a sample and still lives.
 *
 * One per process. It is changed by whoever takes a snapshot, which holds the GIL or has stopped the world:
 * snapshots never overlap. The one exception is the death of a code object, reported on the thread that frees
 * it (with the GIL; on free-threaded builds possibly on several threads at once): that only marks an entry.
 * Marked entries are removed by the next snapshot, so an address that CPython uses again never gets its
 * predecessor's name.
 *
 * Between snapshots the timer thread may look up what is there, without the GIL: an entry that is not marked
 * at that moment was alive until then, and so is what its symbol says.
 *
 * The cache holds no reference to code objects, and no lock.
 */
#ifndef PYPROF_CODE_CACHE_H
#define PYPROF_CODE_CACHE_H

#include <Python.h>
#include <stdbool.h>
#include <stddef.h>

#include "cpython/interpreter.h"
#include "symbols/symbol.h"

/* Begin and end watching deaths (attached thread). -1 where that is impossible; end empties the cache. */
int pyprof_code_cache_open(void);
void pyprof_code_cache_close(void);

/* The symbol of a live code object; borrowed, valid until the next `begin_snapshot`.
 * NULL without memory. */
pyprof_symbol *pyprof_code_cache_get(PyCodeObject *code);

/* The timer thread, without the GIL: NULL where the code object is not known, or dead. The shape belongs to
 * the timer thread, which may complete it. */
pyprof_symbol *pyprof_code_cache_find(const void *code);
pyprof_code_shape *pyprof_code_cache_find_shape(const void *code);

/* Called first in every snapshot with the GIL: removes what died. It is time for one when so much has died
 * that it should not wait for the next code object that is not known. */
bool pyprof_code_cache_needs_snapshot(void);
void pyprof_code_cache_begin_snapshot(void);

size_t pyprof_code_cache_bytes(void); /* from any thread */

#endif
