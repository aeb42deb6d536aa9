/* See memory_limit.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/memory_limit.h"

#include "sampling/proc.h"

static int64_t most_resident, most_address_space; /* atomic */

void pyprof_memory_limit_set(int64_t resident, int64_t address_space) {
    __atomic_store_n(&most_resident, resident, __ATOMIC_RELAXED);
    __atomic_store_n(&most_address_space, address_space, __ATOMIC_RELAXED);
}

bool pyprof_memory_limit_is_set(void) {
    return (__atomic_load_n(&most_resident, __ATOMIC_RELAXED) |
            __atomic_load_n(&most_address_space, __ATOMIC_RELAXED)) != 0;
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
    const pyprof_memory_room address_space =
        room_below(__atomic_load_n(&most_address_space, __ATOMIC_RELAXED), size.address_space);
    return resident > address_space ? resident : address_space;
}

#endif
