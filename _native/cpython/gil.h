/* Taking the GIL from a thread of ours: the timer, detached, holding no lock.
 *
 * A thread that waits for the GIL asks its holder to drop it only after the switch interval, 5 ms, and only
 * if nobody else got it meanwhile; where several threads want it, the timer would wait its turn many times
 * over. Where pending calls run on every thread the timer hardly ever has to take a held GIL. On 3.11 they
 * run on the main thread only, so there the timer does what CPython's own `take_gil` does, but asks at once,
 * and again whenever another thread was faster.
 */
#ifndef PYPROF_CPYTHON_GIL_H
#define PYPROF_CPYTHON_GIL_H

#include <Python.h>
#include <stdbool.h>

/* Who holds the GIL; NULL where nobody does or where there is none, PYPROF_UNKNOWN_HOLDER where that cannot
 * be told. From any thread, attached or not; the result may only be compared. */
#define PYPROF_UNKNOWN_HOLDER ((const void *)-1)
const void *pyprof_gil_holder(PyInterpreterState *interp);

/* The same on free-threaded builds too, where the GIL may have been turned on. */
const void *pyprof_gil_holder_if_on(PyInterpreterState *interp);

/* The interpreter's GIL, which may be that of others too; NULL where the layout is not trusted. */
struct _gil_runtime_state *pyprof_gil_of(PyInterpreterState *interp);

/* Whether looking on for some microseconds makes sense: there is another CPU for who holds the GIL. */
bool pyprof_can_look_on(void);
enum { PYPROF_LOOK_ON_NS = 20000 };

/* Attaches `own` to the calling thread, like PyEval_RestoreThread, but within microseconds where the holder
 * runs Python code. False: the interpreter ends, and the thread is not attached. */
bool pyprof_take_gil(PyThreadState *own);

/* Runs `callback` on the thread that holds the GIL, at its next safe point, if calls run there at all. False
 * where the queue is full. From any thread, attached or not. */
bool pyprof_runs_posted_calls(const void *holder);
bool pyprof_post_call(PyInterpreterState *interp, int (*callback)(void *));

/* With the GIL held, before the timer starts: which thread is the main one, and how many CPUs there are. */
void pyprof_gil_open(PyInterpreterState *interp);

#endif
