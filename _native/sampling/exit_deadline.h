/* The end of the process at a given time, whatever happens to Python until then.
 *
 * Attached or not, by any thread. There is no way back: who asks for it is on its way out. */
#ifndef PYPROF_EXIT_DEADLINE_H
#define PYPROF_EXIT_DEADLINE_H

#include <stdbool.h>
#include <stdint.h>

/* `_exit(status)` in `in_ns`, by a thread of our own, which needs no GIL. False: no thread is to be had. */
bool pyprof_exit_deadline_set(int status, int64_t in_ns);

#endif
