/* C functions: the symbols of those that frames call, and that are certain.
 *
 * A symbol is made at the first sight of a function, and found again by its definition and owner, as long as
 * its name in memory is still the same: definitions may be freed and made anew, by C++ bindings above all.
 * The table is bounded, and emptied where it is full or something of it has changed. Of the timer thread, and
 * of who takes a snapshot for it with the GIL, while it waits. No lock.
 */
#ifndef PYPROF_C_FUNCTIONS_H
#define PYPROF_C_FUNCTIONS_H

#include <stddef.h>

#include "cpython/interpreter.h"
#include "symbols/symbol.h"

/* Called first in every snapshot: makes room. Symbols that were borrowed before are valid no more. */
void pyprof_c_functions_begin_snapshot(void);

/* For each frame the symbol of the C function that it calls, or NULL; borrowed, until the next snapshot. */
void pyprof_find_c_functions(const pyprof_code_frame *frames, size_t depth, pyprof_symbol **symbols);

void pyprof_c_functions_close(void);
void pyprof_c_functions_reset_child(void); /* leaves behind what the parent's timer was changing */
size_t pyprof_c_functions_bytes(void);     /* from any thread */

#endif
