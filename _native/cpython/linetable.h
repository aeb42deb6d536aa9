/* CPython's location table (PEP 626, the format of 3.11 to 3.15; CPython's InternalDocs/code_objects.md).
 * Plain bytes in, a line out: from any thread, no lock, bounded by the table's own size. */
#ifndef PYPROF_CPYTHON_LINETABLE_H
#define PYPROF_CPYTHON_LINETABLE_H

#include <stddef.h>
#include <stdint.h>

/* The line of the instruction at byte offset `lasti`; 0 where the table gives it none or is damaged. */
int32_t pyprof_linetable_line(const uint8_t *table, size_t size, int32_t first_line, int32_t lasti);

#endif
