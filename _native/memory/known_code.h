/* Known code: the symbols of the code objects that sampled allocations came by.
 *
 * Takes the caller's lock. Code that dies is forgotten at once, on the thread that frees it, so that an
 * address which CPython uses again never gets its predecessor's name. The symbol of dead code is kept, and
 * counted, until nobody else has it.
 */
#ifndef PYPROF_KNOWN_CODE_H
#define PYPROF_KNOWN_CODE_H

#include <Python.h>
#include <stddef.h>
#include <stdint.h>

#include "symbols/symbol.h"
#include "windows/budget.h"

typedef struct {
    const void *code; /* NULL: free */
    pyprof_symbol *symbol;
} pyprof_known_code_entry;

typedef struct {
    pyprof_known_code_entry *entries; /* open addressing, linear probing */
    uint32_t capacity;                /* a power of two, or 0 */
    uint32_t count;
    pyprof_symbol **dead;
    uint32_t dead_count, dead_room;
} pyprof_known_code;

/* Of a live code object; borrowed. NULL where there is no room. */
pyprof_symbol *pyprof_known_code_get(pyprof_known_code *known, pyprof_budget *budget, PyCodeObject *code);

void pyprof_known_code_forget(pyprof_known_code *known, pyprof_budget *budget, const void *code);

/* Lets go of the symbols of dead code that nobody else has. */
void pyprof_known_code_sweep(pyprof_known_code *known, pyprof_budget *budget);

void pyprof_known_code_free(pyprof_known_code *known, pyprof_budget *budget);

#endif
