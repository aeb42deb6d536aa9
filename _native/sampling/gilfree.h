/* The `gilfree` engine: stacks read while their threads run, so that nobody is stopped or waited for.
 *
 * Called by the timer thread, detached, holding no lock. The list of threads and their stacks are read by
 * guarded copies and checked (live_stacks.h). What it cannot read at a tick, `current_frames` takes: a stack
 * that does not come out credible, has a call that was never seen, or is of threads of which too many had to
 * be given up at the first look. On free-threaded builds, where that engine makes everybody wait, such a
 * stack is believed, and an incredible one makes the tick a missed one.
 */
#ifndef PYPROF_GILFREE_H
#define PYPROF_GILFREE_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "sampling/snapshot.h"

typedef struct {
    uint64_t unverified; /* stacks that are credible, although their thread moved meanwhile */
    uint64_t incomplete; /* stacks of which only the callers are: what is innermost moved too fast */
    uint64_t torn;       /* stacks, or lists of threads, that did not come out credible */
} pyprof_gilfree_losses;

/* True: the snapshot is taken. False: ask `current_frames`. Adds to `*losses`. Only where
 * `pyprof_live_stacks_obstacle` said NULL. */
bool pyprof_gilfree_take(const pyprof_snapshot_request *request, pyprof_gilfree_losses *losses);

/* To a snapshot of `current_frames`, which sees the main interpreter only: the threads of all others, and
 * what threads of the main one run in them. */
void pyprof_gilfree_add_others(const pyprof_snapshot_request *request, pyprof_gilfree_losses *losses);

/* Frees what is remembered from tick to tick; when the timer thread has ended. */
void pyprof_gilfree_close(void);
size_t pyprof_gilfree_bytes(void); /* of it; from any thread */
/* In the child of a fork: leaves it behind. */
void pyprof_gilfree_reset_child(void);

#endif
