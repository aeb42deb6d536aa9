/* Charging: at which stack a thread's time appears in the window. Timer thread only.
 *
 * A thread's CPU clock says exactly how much it used (the amount); at which stack it is charged (the place)
 * is decided at ticks at which the thread is seen on a CPU. CPU time that cannot be placed at a tick is
 * carried to the thread's next tick that can place it; what is left when the window or the thread ends goes
 * to the last stack that was seen on a CPU and is counted as unplaced. Where none was, as it happens to one
 * of many threads that take turns if ticks are seldom, it goes to the stack at which the thread was seen
 * after it had used most: the last one is, as a rule, where it waits for more to do. So totals are those of
 * the clocks, whatever the ticks saw, but for one thing: a thread takes its clock with it when it ends, and
 * what it used after its last sample is estimated.
 */
#ifndef PYPROF_CHARGE_H
#define PYPROF_CHARGE_H

#include "sampling/threads.h"
#include "windows/window.h"

/* A tick: `wall_ns` and `ticks` have passed since the one before. */
void pyprof_charge_sample(pyprof_thread *thread, pyprof_window *window, int64_t wall_ns, uint64_t ticks);

/* How much of that wall time it has not charged although the thread may have waited for the GIL. */
int64_t pyprof_untold_gil_ns(const pyprof_thread *thread, int64_t wall_ns);

/* Charges what is not charged yet and returns how much of it was never placed. `wall_ns` is for the time
 * since the last tick. At the end of a window. */
int64_t pyprof_charge_rest(pyprof_thread *thread, pyprof_window *window, int64_t wall_ns);

/* The same for a thread that is gone, `gap_ns` after its last sample; gaps are as long as `longest_gap_ns`.
 */
int64_t pyprof_charge_ended(pyprof_thread *thread, pyprof_window *window, int64_t gap_ns,
                            int64_t longest_gap_ns);

#endif
