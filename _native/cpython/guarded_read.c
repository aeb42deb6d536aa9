/* See guarded_read.h. */
#define _GNU_SOURCE
#include "cpython/guarded_read.h"

#ifdef __linux__

#include <stdint.h>
#include <sys/uio.h>
#include <unistd.h>

static bool read_in_one_call(const pyprof_read *reads, size_t count) {
    struct iovec here[PYPROF_READS_A_CALL], there[PYPROF_READS_A_CALL];
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        here[i] = (struct iovec){reads[i].to, reads[i].size};
        there[i] = (struct iovec){(void *)reads[i].from, reads[i].size};
        total += reads[i].size;
    }
    /* A fault ends the copy early, without an error if something was copied before it. */
    return process_vm_readv(getpid(), here, count, there, count, 0) == (ssize_t)total;
}

bool pyprof_read_memory(const pyprof_read *reads, size_t count) {
    for (size_t done = 0; done < count; done += PYPROF_READS_A_CALL) {
        size_t rest = count - done;
        if (!read_in_one_call(reads + done, rest < PYPROF_READS_A_CALL ? rest : PYPROF_READS_A_CALL)) {
            return false;
        }
    }
    return true;
}

bool pyprof_can_read_memory(void) {
    const uint64_t known = UINT64_C(0x70797072) ^ (uint64_t)getpid();
    uint64_t seen = 0;
    const pyprof_read one = {&seen, &known, sizeof(known)};
    const pyprof_read nothing = {&seen, NULL, sizeof(seen)};
    return pyprof_read_memory(&one, 1) && seen == known && !pyprof_read_memory(&nothing, 1);
}

#else

bool pyprof_read_memory(const pyprof_read *reads, size_t count) {
    (void)reads;
    (void)count;
    return false;
}

bool pyprof_can_read_memory(void) { return false; }

#endif
