/* Guarded reads: copies of the process's own memory that fail where nothing is mapped, instead of faulting.
 *
 * The kernel copies (process_vm_readv), so no signal handler is needed and nothing of the host's is touched.
 * Any thread, attached or not; no lock. What another thread writes meanwhile may come half old, half new: the
 * reader checks what it gets.
 */
#ifndef PYPROF_CPYTHON_GUARDED_READ_H
#define PYPROF_CPYTHON_GUARDED_READ_H

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    void *to;
    const void *from;
    size_t size;
} pyprof_read;

/* All of them, in this order, in one system call for every PYPROF_READS_A_CALL; or false, and `to` is
 * undefined. */
enum { PYPROF_READS_A_CALL = 512 };
bool pyprof_read_memory(const pyprof_read *reads, size_t count);

/* Whether this process may read itself that way: some sandboxes forbid it. Before anything else, and again in
 * the child of a fork. */
bool pyprof_can_read_memory(void);

#endif
