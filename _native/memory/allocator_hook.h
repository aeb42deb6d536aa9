/* Allocator hook: the interpreter's three allocators (PEP 445) seen by the heap.
 *
 * `install` and `uninstall` are called attached, in the main interpreter, one thread at a time. The
 * functions that they put in are called by whoever allocates: with the GIL in the domains OBJ and MEM,
 * without in RAW, and inside one another, since large blocks of the former come from the latter; each block
 * counts once.
 *
 * Others hook the same allocators, and put back what they found when they began, whoever has come since. So
 * ours are taken out only while they are the outermost; else they stay in the chain and pass on. Where
 * somebody has cut them out, `install` finds that when it is called again, and a set of functions is put on
 * top; functions of a set go on passing to what they were put on. That may lead back to them, where others
 * put back one of ours, and save it when they begin anew as what they are to pass on to: what has come by is
 * passed on to CPython's own functions then.
 *
 * The five words of an allocator are not exchanged at once, and other threads may be reading them: any mix of
 * old and new words works, since our functions ignore their context, and are installed with that of those
 * they are put on.
 */
#ifndef PYPROF_ALLOCATOR_HOOK_H
#define PYPROF_ALLOCATOR_HOOK_H

#include <Python.h>
#include <stdbool.h>

#include "memory/heap.h"

typedef enum { PYPROF_HOOK_SEES, PYPROF_HOOK_WAS_CUT_OUT, PYPROF_HOOK_GIVES_UP } pyprof_hook_state;

/* Remembers CPython's own functions, where nobody has hooked them yet. */
void pyprof_allocator_hook_prepare(void);

/* From now on the heap is told. Called again it looks whether allocations still come by, and puts the hook in
 * again where they do not: what was freed meanwhile nobody knows. Others have cut it out too often: it is
 * off. */
pyprof_hook_state pyprof_allocator_hook_install(void);
void pyprof_allocator_hook_uninstall(void);

/* The same above tracemalloc, which has to be off and is started, for so many frames: what is sampled is
 * reported to it, everything else goes past it. False with an error set. `uninstall` stops it again. */
bool pyprof_allocator_hook_install_traced(unsigned int max_frames);

#endif
