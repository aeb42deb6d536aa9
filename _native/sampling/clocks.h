/* Clocks and waiting, straight from the kernel: no libc version differences, no lock that a fork could leave
 * held. Everything here may be called from any thread, attached or not. */
#ifndef PYPROF_CLOCKS_H
#define PYPROF_CLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int64_t pyprof_monotonic_ns(void);
int64_t pyprof_unix_ns(void);

/* CPU time of a thread of this process by its kernel id (not 0, which would mean the caller); -1 where it is
 * gone. */
int64_t pyprof_thread_cpu_ns(uint64_t tid);

/* Whether the thread is on a CPU now: its clock goes on between two reads. */
bool pyprof_thread_is_on_cpu(uint64_t tid);

/* How many CPUs the calling thread may have; at least 1. */
size_t pyprof_cpu_count(void);

/* Whether the kernel still counts the thread as one of this process. */
bool pyprof_thread_exists(uint64_t tid);

/* Kernel id of the calling thread. */
uint64_t pyprof_own_tid(void);

/* From now on the calling thread wakes as soon as its deadlines come. A deadline that waits for the CPU is
 * not only late: the thread that has the CPU leaves it where it enters the kernel, so that the tick would
 * find it at its system calls. */
void pyprof_wake_promptly(void);

/* Sleeps while `*word == expected`, until woken or until `deadline` on the monotonic clock. May return early.
 */
void pyprof_futex_wait(uint32_t *word, uint32_t expected, int64_t deadline_ns);
void pyprof_futex_wake(uint32_t *word);

#endif
