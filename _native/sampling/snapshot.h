/* Snapshot: the stacks of all Python threads of the interpreter at one moment.
 *
 * Made by an engine for the timer thread, which is the only one that reads it; its symbols are valid until
 * the next snapshot begins. Its memory is plain malloc and is kept between ticks. Here is what the engines
 * share, and how one is taken while the interpreter stands still; gilfree.h takes one while it runs.
 */
#ifndef PYPROF_SNAPSHOT_H
#define PYPROF_SNAPSHOT_H

#include <Python.h>
#include <stdbool.h>

#include "cpython/gil_waiters.h"
#include "cpython/interpreter.h"
#include "labels/label_set.h"
#include "sampling/threads.h"
#include "symbols/symbol.h"
#include "windows/window.h"

typedef struct {
    pyprof_thread_key key;
    size_t first_frame; /* in `frames`, leaf first */
    size_t depth;
    bool truncated;
    /* A late snapshot finds most threads elsewhere than where their clocks were read; the one whose C call
     * made it late is where it was, and its clock is read again. */
    bool moved_on;
    double presence;  /* of a thread that is not known yet: how likely it is on a CPU */
    int64_t clock_ns; /* -1: not read again */
    bool kept_cpu;    /* from when the clocks were read until the snapshot */
    /* Where a thread stands that did not have the GIL when its frames were read; NULL: it may have had it. */
    const char *instruction;
    bool walked; /* false: the thread has not run since the last snapshot, its stack is the one it had then */
    bool unread; /* or it has, and its stack could not be read */
    bool is_incomplete;       /* it ends at a caller: to be read again, whether the thread runs or not */
    pyprof_label_set *labels; /* of what it did then, a reference; NULL: none */
    /* Its innermost thread state, if that is of another interpreter than the main one. */
    const void *elsewhere;
} pyprof_thread_view;

typedef struct {
    pyprof_thread_view *threads;
    size_t thread_count, thread_capacity;
    pyprof_frame *frames;
    size_t frame_count, frame_capacity;
    int64_t taken_ns;
    bool lacks_others; /* the threads of all other interpreters were not read */
    bool has_starting; /* a thread was left out that is not there yet */
} pyprof_snapshot;

typedef struct {
    PyInterpreterState *interp;
    size_t max_frames;
    bool raw_walk;
    pyprof_snapshot *snapshot;
    const pyprof_threads *known; /* which threads need no walk */
    int64_t asked_ns;            /* when the clocks were read */
    const void *gil_holder;      /* at that time */
    pyprof_gil_mark gil_mark;    /* at that time */
    pyprof_threads *asked;       /* the same, for what is learned of threads that are not known yet */
    bool asks_of_new;            /* whether a thread that is not known yet is on a CPU */
} pyprof_snapshot_request;

enum { PYPROF_LATE_NS = 300000 }; /* after the clocks were read: the threads are elsewhere by then */
enum { PYPROF_MAX_DEPTH = 1024 }; /* `max_frames` of the configuration is not larger */

void pyprof_snapshot_begin(const pyprof_snapshot_request *request);

/* The place of the next thread to be added among the known ones, their count if it is new. */
size_t pyprof_snapshot_find(const pyprof_snapshot_request *request, const pyprof_thread_key *key);

/* Adds a thread. NULL without memory. */
pyprof_thread_view *pyprof_snapshot_add(const pyprof_snapshot_request *request, const pyprof_thread_key *key);

/* That of a thread that was added; or NULL. */
pyprof_thread_view *pyprof_snapshot_view_of(const pyprof_snapshot_request *request,
                                            const pyprof_thread_key *key);

/* Whether its stack is to be read: it has run since it was, and no other stands for it. */
bool pyprof_snapshot_needs_walk(const pyprof_snapshot_request *request, size_t place);

/* Adds the frames of a thread that have begun, by what `symbol_of` says of their code, to those that were the
 * last to be added, if they were its own: the callers of what it has there. False where it says NULL, or
 * without memory. */
bool pyprof_snapshot_add_frames(const pyprof_snapshot_request *request, pyprof_thread_view *view,
                                const pyprof_code_frame *frames, size_t depth,
                                pyprof_symbol *(*symbol_of)(PyCodeObject *));

/* Takes the snapshot on the calling thread, which holds the GIL or has stopped the world. False without
 * memory, or where others keep the thread states. */
bool pyprof_snapshot_take(const pyprof_snapshot_request *request);
void pyprof_snapshot_free(pyprof_snapshot *snapshot);

#endif
