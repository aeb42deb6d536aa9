/* The interpreters of the process (PEP 734), listed while they come and go.
 *
 * From the timer thread, attached or not, holding no lock: nothing keeps an interpreter alive meanwhile, so
 * all but the head of the list is read by guarded copies. None is ever entered, and nothing of ours is made
 * in one.
 */
#ifndef PYPROF_CPYTHON_LIVE_INTERPRETERS_H
#define PYPROF_CPYTHON_LIVE_INTERPRETERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpython/live_stacks.h"

/* One but the main interpreter. Addresses are used again, together with the id they are not. */
typedef struct {
    const char *address, *next;
    int64_t id;
    const char *newest_thread; /* the first of its thread states; NULL: it has none */
    /* Its GIL, which may be another interpreter's; and if it is its own, whether that is held (1), and whose
     * it was the last time. */
    const char *gil;
    int locked;
    const void *last_holder;
} pyprof_live_interpreter;

/* Of more than that, threads in other interpreters than the main one are not sampled. */
enum { PYPROF_MOST_INTERPRETERS = 1024 };

/* Attached, with thread states held: whether what is known of interpreters is where it is expected, by what
 * CPython says of the main one. */
bool pyprof_finds_interpreters(PyInterpreterState *main);

/* Costs one comparison. */
bool pyprof_is_only_interpreter(const void *main);

/* All others, newest first; valid until the next call. False: the list was changed meanwhile, or is too long.
 */
bool pyprof_live_interpreters(const void *main, const pyprof_live_interpreter **found, size_t *count);

/* Who holds the GIL that is its own; NULL: nobody, or there is none. */
const void *pyprof_own_gil_holder(const pyprof_live_interpreter *one);

/* False: the interpreter is gone. */
bool pyprof_live_newest_thread(const void *interp, const char **newest);

/* Whether its frame holder lies on a C stack; true where there is none (from 3.13 on). */
bool pyprof_is_in_evaluation(const pyprof_live_thread *thread);

/* The first thread state of an interpreter has the ids of the thread that made the interpreter, whoever runs
 * code in it (until 3.12). */
bool pyprof_runs_under_other_ids(const pyprof_live_thread *thread);

#endif
