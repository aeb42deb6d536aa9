/* Taking a held GIL within microseconds where pending calls cannot do it (3.11).
 *
 * A thread that waits for the GIL asks its holder to drop it only after the switch interval, 5 ms, and the
 * request is gone as soon as any thread gets the GIL; where several threads want it the timer would wait its
 * turn many times over. So while the timer waits, a second thread repeats the request: each time the GIL goes
 * to whoever has waited longest.
 *
 * A request that nobody waits behind would make the next thread that drops the GIL wait for a taker, for ever
 * if there is none. So requests are made only between `begin` and `end`, under a lock, and `end`, with the
 * GIL held, takes back what is left. The lock is held for a few stores; nobody holds it while waiting for the
 * GIL.
 */
#ifndef PYPROF_GIL_REQUEST_H
#define PYPROF_GIL_REQUEST_H

#include <Python.h>
#include <stdbool.h>

/* Called by the timer thread, detached. False: no thread could be made. */
bool pyprof_gil_request_open(PyInterpreterState *interp);
void pyprof_gil_request_close(void);

/* PyEval_RestoreThread, sooner. */
void pyprof_gil_request_restore(PyThreadState *tstate);

void pyprof_gil_request_reset_child(void);

#endif
