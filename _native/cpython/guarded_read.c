/* See guarded_read.h. */
#define _GNU_SOURCE
#include "cpython/guarded_read.h"

#ifdef __linux__

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { READS_A_CALL = 512, BYTES_A_CALL = PYPROF_FAST_READ_BYTES };

/* The calling thread's file in memory; -1: none. */
static _Thread_local int file = -1;
static char *mapped;

void pyprof_read_memory_begin(void) {
#ifdef SYS_memfd_create
    enum { CLOEXEC = 1, NOEXEC_SEAL = 8 }; /* MFD_…; the latter since Linux 6.3, which wants to be told */
    file = (int)syscall(SYS_memfd_create, "pyprof", CLOEXEC | NOEXEC_SEAL);
    if (file < 0) {
        file = (int)syscall(SYS_memfd_create, "pyprof", CLOEXEC);
    }
    if (file < 0) {
        return;
    }
    mapped = ftruncate(file, BYTES_A_CALL) == 0 ? mmap(NULL, BYTES_A_CALL, PROT_READ, MAP_SHARED, file, 0)
                                                : MAP_FAILED;
    /* A child must not have what its parent goes on writing to. */
    if (mapped == MAP_FAILED || madvise(mapped, BYTES_A_CALL, MADV_DONTFORK) != 0) {
        pyprof_read_memory_end();
    }
#endif
}

void pyprof_read_memory_end(void) {
    if (file >= 0) {
        if (mapped != MAP_FAILED) {
            munmap(mapped, BYTES_A_CALL);
        }
        close(file);
        file = -1;
    }
}

bool pyprof_reads_fast(void) { return file >= 0; }

/* The kernel copies from user memory to the file, which checks each page by reading it. */
static bool read_through_file(const pyprof_read *reads, size_t count, size_t total) {
    struct iovec there[READS_A_CALL];
    for (size_t i = 0; i < count; i++) {
        there[i] = (struct iovec){(void *)reads[i].from, reads[i].size};
    }
    if (pwritev(file, there, (int)count, 0) != (ssize_t)total) {
        return false;
    }
    const char *copy = mapped;
    for (size_t i = 0; i < count; i++) {
        memcpy(reads[i].to, copy, reads[i].size);
        copy += reads[i].size;
    }
    return true;
}

/* The kernel looks the pages up and copies from them. */
static bool read_as_a_process(const pyprof_read *reads, size_t count, size_t total) {
    struct iovec here[READS_A_CALL], there[READS_A_CALL];
    for (size_t i = 0; i < count; i++) {
        here[i] = (struct iovec){reads[i].to, reads[i].size};
        there[i] = (struct iovec){(void *)reads[i].from, reads[i].size};
    }
    /* A fault ends the copy early, without an error if something was copied before it. */
    return process_vm_readv(getpid(), here, count, there, count, 0) == (ssize_t)total;
}

/* Of fast reads in a row that failed, and nothing was wrong with what they read. */
enum { MOST_USELESS = 8 };

static bool read_in_one_call(const pyprof_read *reads, size_t count, size_t total) {
    static unsigned useless;
    if (file >= 0 && total <= BYTES_A_CALL) {
        if (read_through_file(reads, count, total)) {
            useless = 0;
            return true;
        }
        if (!read_as_a_process(reads, count, total)) {
            return false;
        }
        if (++useless == MOST_USELESS) {
            pyprof_read_memory_end(); /* RLIMIT_FSIZE has come down, for one */
        }
        return true;
    }
    return read_as_a_process(reads, count, total);
}

bool pyprof_read_memory(const pyprof_read *reads, size_t count) {
    for (size_t begin = 0, end = 0; begin < count; begin = end) {
        size_t total = 0;
        while (end < count && end - begin < READS_A_CALL &&
               (end == begin || total + reads[end].size <= BYTES_A_CALL)) {
            total += reads[end++].size;
        }
        if (!read_in_one_call(reads + begin, end - begin, total)) {
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

bool pyprof_reads_fast(void) { return false; }

bool pyprof_can_read_memory(void) { return false; }

#endif
