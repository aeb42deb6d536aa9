/* Ring: finished windows on their way from the timer thread to the exporter.
 *
 * `push` is called by the timer thread (or by `stop`, after that thread has ended), `wait` and `take`
 * by the exporter; all without the GIL. The lock inside is held for pointer moves only. Where the ring
 * is full the oldest window is freed, and the drop is counted in the info of the next one pushed.
 * After a fork the child calls `pyprof_ring_reset_child` before anything else: the lock may have
 * been held by a thread that does not exist there; the parent's windows are left behind unfreed if so.
 * A wake that finds nobody waiting ends the next `wait` that would. Linux only.
 */
#ifndef PYPROF_RING_H
#define PYPROF_RING_H

#include "windows/window.h"

void pyprof_ring_set_capacity(uint32_t windows); /* 1 … 1024; only while nothing pushes */
void pyprof_ring_push(pyprof_window *window);
pyprof_window *pyprof_ring_take(void);     /* the oldest; NULL: none */
bool pyprof_ring_wait(int64_t timeout_ns); /* until there is one; false: a wake, or the time is over */
void pyprof_ring_wake(void);
void pyprof_ring_clear(void);
void pyprof_ring_reset_child(void);
uint64_t pyprof_ring_dropped(void); /* windows dropped since the last clear */
size_t pyprof_ring_bytes(void);

#endif
