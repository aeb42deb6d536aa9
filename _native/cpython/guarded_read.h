/* Guarded reads: copies of the process's own memory that fail where nothing is mapped, instead of faulting.
 *
 * The kernel copies, so no signal handler is needed and nothing of the host's is touched. Three ways: for the
 * timer thread a write to a file in memory that it has mapped; process_vm_readv, which looks every page up
 * and takes ten times as long (0.4 µs an item); where a sandbox forbids that, /proc/self/mem, a call an item.
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

/* All of them, in this order, in as few system calls as possible; or false, and `to` is undefined. */
bool pyprof_read_memory(const pyprof_read *reads, size_t count);

/* Whether this process may read itself that way: some sandboxes forbid it. Before anything else, and again in
 * the child of a fork. */
bool pyprof_can_read_memory(void);

/* The timer thread's: from now on it reads in the faster way, if the kernel lets it, until `end`. Only if its
 * file descriptors are no other thread's: the host might close the file's number and open a file of its own
 * that gets it. */
void pyprof_read_memory_begin(void);
void pyprof_read_memory_end(void);
enum { PYPROF_FAST_READ_BYTES = 128 * 1024 }; /* the file's */

/* How the calling thread reads. */
typedef enum { PYPROF_BY_PROC = 1, PYPROF_BY_PROCESS_VM_READV, PYPROF_BY_MEMFD } pyprof_way_of_reading;
pyprof_way_of_reading pyprof_way_of_reading_memory(void);

#endif
