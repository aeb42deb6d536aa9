/* Death by SIGTERM, put off until what was sampled is delivered.
 *
 * The handler is the kernel's, not Python's: code that asks Python finds SIG_DFL, and a thread that is stuck
 * in C code can put death off no longer than the bound, at which the kernel sends SIGTERM once more. From the
 * first SIGTERM on the disposition is the default one again, so that a second ends the process at once. The
 * application goes on meanwhile, since it may hold what the delivery needs; only who has sent the signal to
 * its own process waits, because it does not expect to come back.
 *
 * `arm` and `disarm` are called attached, by one thread at a time (the profiler's lock). In the child of a
 * fork SIGTERM does what it does by default, until the child is armed itself.
 */
#ifndef PYPROF_SIGTERM_H
#define PYPROF_SIGTERM_H

#include <stdbool.h>
#include <stdint.h>

/* Whether it is armed now: not if the application ignores or handles SIGTERM, and from the main thread only,
 * for that is the one which installs the application's handlers. */
bool pyprof_sigterm_arm(int64_t bound_ns);

/* Leaves another's handler where it is. A SIGTERM that came before takes effect. */
void pyprof_sigterm_disarm(void);

/* By the timer thread: whether the window so far shall go to the ring, and that it has. */
bool pyprof_sigterm_wants_window(void);
void pyprof_sigterm_has_window(void);

/* By the exporter: whether SIGTERM came, and the last window was on the ring before this call. */
bool pyprof_sigterm_came(void);

/* Let it take effect now. Returns where it does not end the process: a handler has been installed since, or
 * the process is the first one of a container. */
void pyprof_sigterm_pass_on(void);

void pyprof_sigterm_reset_child(void); /* the parent's signal is none of the child's */

#endif
