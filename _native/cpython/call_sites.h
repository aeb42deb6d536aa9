/* Call sites: where a frame keeps the callable while an instruction of its code calls it.
 *
 * CPython leaves what is called on the caller's value stack until the call returns. Where that is follows
 * from the depth of the stack at the instruction, which the bytecode tells: the same on every path, since the
 * compiler makes it so (Lindholm and Yellin, The Java Virtual Machine Specification, 4.10, has the argument).
 * Bytecode and exception table are read by guarded reads, once for a code object. Any thread, attached or
 * not, no lock.
 */
#ifndef PYPROF_CPYTHON_CALL_SITES_H
#define PYPROF_CPYTHON_CALL_SITES_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint16_t instruction; /* its number, in code units */
    uint16_t callable;    /* index in the value stack; where that holds NULL, it is in the next one */
    uint16_t depth;       /* of the value stack */
} pyprof_call_site;

typedef struct {
    size_t count;
    pyprof_call_site sites[]; /* by instruction */
} pyprof_call_sites;

/* All of a code object; none where its bytecode is out of the common, or traced. NULL where it cannot be
 * read.
 */
pyprof_call_sites *pyprof_read_call_sites(const void *code);
void pyprof_free_call_sites(pyprof_call_sites *sites);
size_t pyprof_call_sites_bytes(void); /* of all that there are; from any thread */

/* That of the instruction at byte offset `lasti`, or NULL. */
const pyprof_call_site *pyprof_find_call_site(const pyprof_call_sites *sites, int32_t lasti);

#endif
