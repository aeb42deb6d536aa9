/* Who is on a CPU at a tick: which threads' CPU time may be placed where they stand.
 *
 * A clock that goes on tells it, but for threads whose CPU the timer itself has. What is presumed of those is
 * confirmed by the scheduler now and then. The timer thread alone; nothing here takes a lock or the GIL.
 */
#ifndef PYPROF_ON_CPU_H
#define PYPROF_ON_CPU_H

#include "sampling/threads.h"

/* Does the clock of a busy thread go on within 50 µs? Some sandboxes count in whole milliseconds. Takes that
 * long. */
bool pyprof_clocks_are_fine_grained(void);

/* At the beginning of a tick, before anything asks for the GIL: reads every clock and decides who is on a
 * CPU. Returns whether anything may have changed since the last snapshot. */
bool pyprof_threads_read_clocks(pyprof_threads *threads, const void *gil_holder);

/* Are there threads that have run, of which that does not tell where, or not for sure, and is it to be asked
 * for? The timer may have the CPU that they had. `chance`: a random number. */
typedef enum { PYPROF_NO_DOUBT, PYPROF_UNCONFIRMED, PYPROF_NOBODY_PRESUMED } pyprof_doubt;
pyprof_doubt pyprof_threads_doubt(pyprof_threads *threads, const void *gil_holder, uint64_t chance);

/* Decides by what the scheduler says of them. False: it does not say, or there are too many. */
bool pyprof_threads_ask_who_was_preempted(pyprof_threads *threads);

/* How likely a thread that is not known yet, and whose clock stands still, is on a CPU. `asks`: as
 * `pyprof_threads_ask_of_new` said at this tick. Where the scheduler does not say, what is presumed, or
 * whether the thread could run. */
bool pyprof_threads_ask_of_new(pyprof_threads *threads, uint64_t chance);
double pyprof_presence_of_new(pyprof_threads *threads, uint64_t tid, bool presumed, bool asks);

/* Else a nap gives the CPU back to who had it: the thread whose clock goes on meanwhile, if any. */
bool pyprof_nap(void); /* false: it took so long that its end is no random moment */
void pyprof_threads_read_clocks_again(pyprof_threads *threads, const void *gil_holder, bool after_a_nap);

/* Last: how likely those that are presumed to be on a CPU have one, where they are more than there are. */
void pyprof_threads_share_cpus(pyprof_threads *threads);

#endif
