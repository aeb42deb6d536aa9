/* The `current_frames` engine: what sys._current_frames() gives, without the frame objects and without a long
 * wait.
 *
 * Called by the timer thread, detached, holding no lock. How the interpreter is made to stand still:
 *   - a GIL that nobody holds is taken;
 *   - a GIL that somebody holds is not: a pending call takes the snapshot on the holder's thread at its next
 * safe point, so nobody hands the GIL over (3.12 on; on 3.11 only if the main thread holds it);
 *   - else the holder is asked to drop the GIL at its next safe point, and the timer takes it (gil.h);
 *   - free-threaded builds: the world is stopped. A thread in a C call that stays attached makes the others
 * wait for that call, so after a stop of d with others waiting the engine rests for 20 d.
 */
#ifndef PYPROF_CURRENT_FRAMES_H
#define PYPROF_CURRENT_FRAMES_H

#include <Python.h>
#include <stdbool.h>

#include "sampling/snapshot.h"

/* A thread state for all snapshots, made in the timer thread and ended there, before the interpreter ends;
 * NULL without memory. Whoever lists the interpreter's threads sees it: faulthandler prints a thread without
 * frames. So it is for those that attach at every tick, or find no company (interpreter.h) later. */
PyThreadState *pyprof_current_frames_keep(PyInterpreterState *interp);
void pyprof_current_frames_drop(PyThreadState *kept);

/* `kept` NULL: with a thread state that is there for the moment, if one is needed.
 * True: the snapshot is taken. False: not at this tick (no memory, interpreter ending, engine at rest). */
bool pyprof_current_frames_take(const pyprof_snapshot_request *request, PyThreadState *kept);

/* In the child of a fork: forget whatever the parent's timer had asked for. */
void pyprof_current_frames_reset_child(void);

#endif
