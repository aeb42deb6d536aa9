/* Threads of pyprof's own: real OS threads, made without Python's threading and without whatever patched it.
 *
 * They are left out of every profile; their CPU time is counted instead. Start and join may be called from
 * any thread; `join` only without the GIL. In the child of a fork none of them exists: `reset_child` forgets
 * them.
 */
#ifndef PYPROF_OWN_THREADS_H
#define PYPROF_OWN_THREADS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pyprof_own_thread pyprof_own_thread;

/* Starts `run(argument)` in a new thread in which every signal but the synchronous ones is blocked. NULL: no
 * thread could be made. `name` (at most 15 bytes) is what the kernel shows. */
pyprof_own_thread *pyprof_own_thread_start(void (*run)(void *), void *argument, const char *name,
                                           size_t stack_bytes);

/* By the thread itself: it has a thread state, or will make none. */
void pyprof_own_thread_is_attachable(void);

/* By the thread itself: from now on it has file descriptors of its own, none at first. Then it can keep files
 * open, while neither `os.closerange` and forks of the application touch them nor they its numbers and
 * limits. False: the kernel refuses. */
bool pyprof_own_thread_unshares_descriptors(void);

/* By who has started the thread, attached: waits, the GIL released, until then, if it must. In the child of a
 * fork the thread that came over may be the last one, and about to end: a thread state made after that is
 * fatal where thread states need company. */
void pyprof_own_thread_wait_attachable(pyprof_own_thread *thread);

/* Waits for the end at most until `deadline` (monotonic). True: the thread has ended and the handle is gone.
 */
bool pyprof_own_thread_join(pyprof_own_thread *thread, int64_t deadline_ns);

/* Instead of a join, where that came to nothing: the thread goes on, and is counted until its end. */
void pyprof_own_thread_abandon(pyprof_own_thread *thread);

long pyprof_own_thread_count(void); /* made, and not joined or ended after `abandon` */
bool pyprof_is_own_thread(uint64_t tid);
bool pyprof_own_thread_calls(void);               /* whether the calling thread is one */
int64_t pyprof_own_threads_cpu_ns(void);          /* ended ones included */
void pyprof_own_threads_add_cpu_ns(int64_t ns);   /* work done for pyprof on a thread of the application */
int64_t pyprof_own_threads_borrowed_cpu_ns(void); /* the sum of that; `cpu_ns` counts it too */
void pyprof_own_threads_reset_child(void);

#endif
