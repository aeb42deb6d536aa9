/* See memory_limit.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/memory_limit.h"

#include <sys/resource.h>

#include "sampling/proc.h"

static int64_t most_resident;      /* atomic */
static double address_space_share; /* atomic */

void pyprof_memory_limit_set(int64_t resident, double share) {
    __atomic_store_n(&most_resident, resident, __ATOMIC_RELAXED);
    __atomic_store(&address_space_share, &share, __ATOMIC_RELAXED);
}

/* The process may set RLIMIT_AS any time. */
static int64_t most_address_space(void) {
    double share;
    __atomic_load(&address_space_share, &share, __ATOMIC_RELAXED);
    struct rlimit limit;
    if (share <= 0 || getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
        return 0;
    }
    const double most = share * (double)limit.rlim_cur;
    return most < (double)(INT64_MAX / 2) ? (int64_t)most : 0;
}

bool pyprof_memory_limit_is_set(void) {
    return __atomic_load_n(&most_resident, __ATOMIC_RELAXED) != 0 || most_address_space() != 0;
}

static pyprof_memory_room room_below(int64_t limit, int64_t size) {
    return limit == 0 || size < limit / 2 ? PYPROF_FAR_FROM_LIMIT
           : size < limit - limit / 10    ? PYPROF_HALF_WAY_TO_LIMIT
           : size < limit                 ? PYPROF_NEAR_LIMIT
                                          : PYPROF_BEYOND_LIMIT;
}

pyprof_memory_room pyprof_memory_room_left(void) {
    pyprof_process_size size;
    if (!pyprof_read_process_size(&size)) {
        return PYPROF_FAR_FROM_LIMIT;
    }
    const pyprof_memory_room resident =
        room_below(__atomic_load_n(&most_resident, __ATOMIC_RELAXED), size.resident);
    const pyprof_memory_room address_space = room_below(most_address_space(), size.address_space);
    return resident > address_space ? resident : address_space;
}

#endif
