/* Something to do in the parent a moment after os.fork() has returned.
 *
 * CPython 3.12 and later warn when a process with more than one thread forks, and some versions count the
 * threads only after the `after_in_parent` hooks; so what starts threads again must run after those.
 * `prepare` is called (attached) by the Python function registered for `before`; `schedule` by
 * `after_in_parent`, registered as a C function so that no bytecode of ours runs in between; the callable
 * then runs as a pending call in the frame that called os.fork().
 */
#ifndef PYPROF_AFTER_FORK_H
#define PYPROF_AFTER_FORK_H

#include <Python.h>

/* `callable` NULL: nothing is to be done any more. */
void pyprof_after_fork_prepare(PyObject *callable);
void pyprof_after_fork_schedule(void);

#endif
