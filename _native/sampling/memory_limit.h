/* Memory limit: how large the process may get before what is in use is reported at once.
 *
 * Set attached; asked by the timer thread, without a lock.
 */
#ifndef PYPROF_MEMORY_LIMIT_H
#define PYPROF_MEMORY_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

/* Of resident memory, in bytes, and as a share of RLIMIT_AS, which is asked each time; 0: no limit. */
void pyprof_memory_limit_set(int64_t resident, double address_space_share);
bool pyprof_memory_limit_is_set(void);

typedef enum {
    PYPROF_FAR_FROM_LIMIT,
    PYPROF_HALF_WAY_TO_LIMIT,
    PYPROF_NEAR_LIMIT, /* too little below it to say that the danger is over */
    PYPROF_BEYOND_LIMIT
} pyprof_memory_room;

pyprof_memory_room pyprof_memory_room_left(void);

#endif
