/* Deaths of code objects, noted by the threads that free them and read by who owns the code cache.
 *
 * `note` may be called from any thread, several at once, and takes no lock; the code object is still intact,
 * and its memory is not used again before the call has returned. The rest is for one thread at a time.
 * A fixed number of deaths is kept: older ones are overwritten, and the reader is told.
 */
#ifndef PYPROF_CODE_DEATHS_H
#define PYPROF_CODE_DEATHS_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

typedef uint64_t pyprof_death_mark; /* a count of deaths */

void pyprof_note_death(PyCodeObject *code);
pyprof_death_mark pyprof_deaths_so_far(void);

/* The death number `at`, of those since `settled`. False: it is overwritten, or just being noted. */
bool pyprof_death_at(pyprof_death_mark settled, pyprof_death_mark at, const void **code);

/* Calls `forget` with everything that has died since `*settled`, and moves that on. False: more has died than
 * was kept. What is just being noted is left to the next time, since it is not freed yet. */
bool pyprof_settle_deaths(pyprof_death_mark *settled, void (*forget)(const void *code));

#endif
