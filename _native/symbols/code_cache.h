/* Code cache: the symbol of every code object that was seen in a sample and still lives.
 *
 * One per process. It is changed by whoever takes a snapshot, which holds the GIL or has stopped the world:
 * snapshots never overlap. The one exception is the death of a code object, reported on the thread that frees
 * it (with the GIL; on free-threaded builds possibly on several threads at once): that only marks an entry.
 * Marked entries are removed by the next snapshot, so an address that CPython uses again never gets its
 * predecessor's name.
 *
 * The cache holds no reference to code objects, and no lock.
 */
#ifndef PYPROF_CODE_CACHE_H
#define PYPROF_CODE_CACHE_H

#include <Python.h>
#include <stddef.h>

#include "symbols/symbol.h"

/* Begin and end watching deaths (attached thread). -1 where that is impossible; end empties the cache. */
int pyprof_code_cache_open(void);
void pyprof_code_cache_close(void);

/* The symbol of a live code object; borrowed, valid until the next `begin_snapshot`.
 * NULL without memory. */
pyprof_symbol *pyprof_code_cache_get(PyCodeObject *code);

/* Called first in every snapshot: removes what died. */
void pyprof_code_cache_begin_snapshot(void);

size_t pyprof_code_cache_bytes(void); /* from any thread */

#endif
