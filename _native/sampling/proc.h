/* What the kernel says of this process's threads in /proc. From any thread, attached or not; no lock. */
#ifndef PYPROF_PROC_H
#define PYPROF_PROC_H

#include <stdbool.h>
#include <stdint.h>

/* The timer thread's, if it has file descriptors of its own: from now on it keeps files open, which halves
 * what reading them costs. Other threads open them for every use. */
void pyprof_proc_begin(void);

/* Whether the kernel holds the thread ready to run or running; costs some 4 µs, where the file is not kept
 * open up to 25. */
bool pyprof_thread_is_runnable(uint64_t tid);

/* When the thread was last on a CPU, by the scheduler's clock; -1 where the kernel does not say. A thread
 * from which another has taken the CPU was there until that began to run. Costs some 6 µs, or up to 25. */
int64_t pyprof_thread_last_ran_ns(uint64_t tid);

/* Threads of this process as the kernel counts them, 0 where it cannot be told. */
long pyprof_native_thread_count(void);

#endif
