/* The thread states of one interpreter, as they were read the last time.
 *
 * Of the timer thread alone, detached, holding no lock: everything is read by guarded copies while it
 * changes. For thread_lists.c, which has the lists of all interpreters.
 */
#ifndef PYPROF_THREAD_LIST_H
#define PYPROF_THREAD_LIST_H

#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpython/guarded_read.h"
#include "cpython/live_stacks.h"

typedef struct pyprof_thread_node {
    pyprof_live_thread thread;
    pyprof_live_stack *stack; /* where it was found the last time; NULL: it was never needed */
    bool is_own;              /* a thread of pyprof */
    bool is_needed;           /* its stack, at this tick */
    bool is_stood_for;        /* its stack is that of a later tick: another thread stands for it */
    bool is_copied;           /* its stack is, with all the others of its list */

    /* By thread_lists.c: */
    size_t list, place; /* where it is; the main interpreter's list is 0 */
    uint64_t tid;       /* of the thread that runs it; 0: of none, or the thread is not there yet */
    /* The next state of the same thread, in another interpreter. Which of them called which is not said. */
    struct pyprof_thread_node *companion;
    bool is_companion; /* of one before it */
} pyprof_thread_node;

typedef struct {
    const void *interp;
    int64_t id;
    bool is_main;
    const char *newest;        /* its first thread state, as the interpreter says */
    pyprof_thread_node *nodes; /* newest first */
    size_t count, capacity;
    bool has_changed; /* nodes have moved, or are of other threads; set here, reset by who has seen it */
} pyprof_thread_list;

/* What is read in one go; room that all lists share. */
typedef struct {
    pyprof_read *reads;
    size_t capacity;
} pyprof_read_room;

/* Whether threads came or went, by what `newest` is now. */
bool pyprof_thread_list_is_old(const pyprof_thread_list *list);

/* Follows the list from thread to thread: up to one that is known, after which the others are expected as
 * they were, for CPython puts new threads first; or to its end. All of it or nothing: a part would be taken
 * for the whole. False: it has no nodes now. */
typedef enum { PYPROF_UP_TO_KNOWN, PYPROF_TO_THE_END } pyprof_how_far;
bool pyprof_thread_list_follow(pyprof_thread_list *list, pyprof_how_far how_far);

/* The threads that are needed, and if `whole` all others, in one go, as if nothing had changed since the last
 * time. False: it has. */
bool pyprof_thread_list_read(pyprof_thread_list *list, bool whole, pyprof_read_room *room);

bool pyprof_thread_list_needs_any(const pyprof_thread_list *list);
void pyprof_thread_list_free_idle_stacks(pyprof_thread_list *list);
size_t pyprof_thread_list_bytes(const pyprof_thread_list *list);
void pyprof_thread_list_free(pyprof_thread_list *list);

#endif
