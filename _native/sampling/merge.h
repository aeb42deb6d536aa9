/* What a snapshot says of the threads becomes what is known of them.
 *
 * For the timer thread, between a snapshot that was taken and the charging of its threads.
 */
#ifndef PYPROF_MERGE_H
#define PYPROF_MERGE_H

#include "sampling/timer_thread.h"

/* The threads of the snapshot become the known ones; what those that are gone have used is charged. The
 * snapshot speaks for the last `wall_ns`. `share`: how much of the time between the reading of the clocks and
 * the snapshot it may place. `longest_gap_ns`: see charge.c. False: no memory, and nothing has changed. */
bool pyprof_merge_snapshot(pyprof_timer *timer, int64_t wall_ns, double share, int64_t longest_gap_ns);

#endif
