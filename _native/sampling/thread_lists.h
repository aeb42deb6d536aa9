/* Thread states of all interpreters, as they were read the last time, and which of them belong to one thread.
 *
 * Of the timer thread alone, detached, holding no lock: everything is read by guarded copies while it
 * changes. A thread that runs code in another interpreter has a thread state there too. It is one thread:
 * what it runs there has been called from where its state in the interpreter that it came from stands.
 */
#ifndef PYPROF_THREAD_LISTS_H
#define PYPROF_THREAD_LISTS_H

#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sampling/snapshot.h"
#include "sampling/thread_list.h"

/* Which interpreters there are; before each read. The code cache is told when one is gone. */
void pyprof_thread_lists_find(PyInterpreterState *interp);

/* Reads the lists, and the stacks of threads that have run since the last snapshot. False: the main
 * interpreter's could not be read. `*others`: whether those of all other interpreters were. */
bool pyprof_thread_lists_read(const pyprof_snapshot_request *request, bool *others);

/* All that were read; the main interpreter's first, in CPython's order. The pointers are valid until the next
 * read. */
size_t pyprof_thread_lists_count(void);
pyprof_thread_node *pyprof_thread_lists_at(size_t i);

/* No frames and no clock of its own yet. */
bool pyprof_thread_is_starting(const pyprof_thread_node *node, bool is_new);

pyprof_thread_key pyprof_thread_node_key(const pyprof_thread_node *node);

/* At the beginning of a tick: a mark that changes when a thread state is made in any interpreter. Says of
 * each known thread whether it holds the GIL of another interpreter that has its own. */
uint64_t pyprof_thread_lists_mark(PyInterpreterState *interp, pyprof_threads *known);

void pyprof_thread_lists_close(void);
size_t pyprof_thread_lists_bytes(void); /* from any thread */
void pyprof_thread_lists_reset_child(void);

#endif
