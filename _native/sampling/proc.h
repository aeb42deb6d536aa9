/* What the kernel says of this process's threads in /proc. From any thread, attached or not; no lock. */
#ifndef PYPROF_PROC_H
#define PYPROF_PROC_H

#include <stdbool.h>
#include <stdint.h>

/* The timer thread's, if it has file descriptors of its own: from now on it keeps files open, which halves
 * what reading them costs. Other threads open them for every use. */
void pyprof_proc_begin(void);

typedef enum { PYPROF_NO, PYPROF_YES, PYPROF_NOT_TOLD } pyprof_answer;

/* Whether the kernel holds the thread ready to run or running; costs some 4 µs, where the file is not kept
 * open up to 25. */
pyprof_answer pyprof_thread_is_runnable(uint64_t tid);

/* When the thread was last on a CPU, by the scheduler's clock; -1 where the kernel does not say. A thread
 * from which another has taken the CPU was there until that began to run. Costs some 6 µs, or up to 25. */
int64_t pyprof_thread_last_ran_ns(uint64_t tid);

/* In what the thread waits. `first_argument` is that of the system call it is in, for a lock the address of
 * its futex. Costs some 3 µs, where the file is not kept open up to 25. */
typedef enum {
    PYPROF_WAITS_UNKNOWN, /* the kernel does not say, or the thread is gone */
    PYPROF_WAITS_NOT,     /* it runs, or is ready to */
    PYPROF_WAITS,
} pyprof_waiting;
pyprof_waiting pyprof_thread_waits(uint64_t tid, uint64_t *first_argument);

/* Whether the kernel says that of the threads of this process: not in some sandboxes, nor once the process
 * has changed its user and may not be traced since. */
bool pyprof_waiting_is_told(void);

/* What such a question costs the calling thread, ns. */
int64_t pyprof_waiting_cost_ns(void);

/* How large the process is, in bytes; false where the kernel does not say. Costs some 3 µs, where the file is
 * not kept open up to 25. */
typedef struct {
    int64_t resident, address_space;
} pyprof_process_size;
bool pyprof_read_process_size(pyprof_process_size *size);

/* Threads of this process as the kernel counts them, 0 where it cannot be told. */
long pyprof_native_thread_count(void);

#endif
