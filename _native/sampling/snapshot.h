/* Snapshot: the stacks of all Python threads of the interpreter at one moment.
 *
 * Made by an engine for the timer thread, which is the only one that reads it; its symbols are valid until
 * the next snapshot begins. Its memory is plain malloc and is kept between ticks.
 */
#ifndef PYPROF_SNAPSHOT_H
#define PYPROF_SNAPSHOT_H

#include <Python.h>
#include <stdbool.h>

#include "sampling/threads.h"
#include "windows/window.h"

typedef struct {
    pyprof_thread_key key;
    size_t first_frame; /* in `frames`, leaf first */
    size_t depth;
    bool truncated;
    /* A late snapshot finds most threads elsewhere than where their clocks were read; the one whose C call
     * made it late is where it was, and its clock is read again. */
    bool moved_on;
    bool on_cpu;      /* of a thread that is not known yet: seen on a CPU just now */
    int64_t clock_ns; /* -1: not read again */
    bool walked; /* false: the thread has not run since the last snapshot, its stack is the one it had then */
} pyprof_thread_view;

typedef struct {
    pyprof_thread_view *threads;
    size_t thread_count, thread_capacity;
    pyprof_frame *frames;
    size_t frame_count, frame_capacity;
    int64_t taken_ns;
} pyprof_snapshot;

typedef struct {
    PyInterpreterState *interp;
    size_t max_frames;
    bool raw_walk;
    pyprof_snapshot *snapshot;
    const pyprof_threads *known; /* which threads need no walk */
    int64_t asked_ns;            /* when the clocks were read */
    const void *gil_holder;      /* at that time */
} pyprof_snapshot_request;

/* Takes the snapshot on the calling thread, which holds the GIL or has stopped the world. False without
 * memory. */
bool pyprof_snapshot_take(const pyprof_snapshot_request *request);
void pyprof_snapshot_free(pyprof_snapshot *snapshot);

#endif
