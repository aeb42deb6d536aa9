/* See guarded_read.h. */
#define _GNU_SOURCE
#include "cpython/guarded_read.h"

#ifdef __linux__

#include <errno.h>
#include <fcntl.h>
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

/* Found out by trying; a host may forbid it later. */
static bool is_forbidden; /* atomic: process_vm_readv */
static _Thread_local int proc_file = -1;
static _Thread_local bool keeps_proc_file;

static void close_file(void) {
    if (file >= 0) {
        if (mapped != MAP_FAILED) {
            munmap(mapped, BYTES_A_CALL);
        }
        close(file);
        file = -1;
    }
}

static void close_proc_file(void) {
    if (proc_file >= 0) {
        close(proc_file);
        proc_file = -1;
    }
}

void pyprof_read_memory_begin(void) {
    keeps_proc_file = true;
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
        close_file();
    }
#endif
}

void pyprof_read_memory_end(void) {
    close_file();
    close_proc_file();
    keeps_proc_file = false;
}

pyprof_way_of_reading pyprof_way_of_reading_memory(void) {
    return file >= 0                                          ? PYPROF_BY_MEMFD
           : __atomic_load_n(&is_forbidden, __ATOMIC_RELAXED) ? PYPROF_BY_PROC
                                                              : PYPROF_BY_PROCESS_VM_READV;
}

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

/* An address is an offset in that file. It is the process's that opens it: a thread may keep it open if no
 * other can close it, and its child begins without. */
static bool read_from_proc(const pyprof_read *reads, size_t count) {
    bool is_read = true;
    if (proc_file < 0) {
        proc_file = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    }
    for (size_t i = 0; i < count && is_read; i++) {
        is_read = pread(proc_file, reads[i].to, reads[i].size, (off_t)(uintptr_t)reads[i].from) ==
                  (ssize_t)reads[i].size;
    }
    if (!keeps_proc_file) {
        close_proc_file();
    }
    return is_read;
}

/* The kernel looks the pages up and copies from them. */
static bool read_as_a_process(const pyprof_read *reads, size_t count, size_t total) {
    struct iovec here[count], there[count]; /* whose thread this is may have a small stack */
    for (size_t i = 0; i < count; i++) {
        here[i] = (struct iovec){reads[i].to, reads[i].size};
        there[i] = (struct iovec){(void *)reads[i].from, reads[i].size};
    }
    /* A fault ends the copy early, without an error if something was copied before it. */
    const ssize_t copied = process_vm_readv(getpid(), here, count, there, count, 0);
    if (copied < 0 && (errno == EPERM || errno == EACCES || errno == ENOSYS)) {
        __atomic_store_n(&is_forbidden, true, __ATOMIC_RELAXED);
    }
    return copied == (ssize_t)total;
}

static bool read_slowly(const pyprof_read *reads, size_t count, size_t total) {
    return (!__atomic_load_n(&is_forbidden, __ATOMIC_RELAXED) && read_as_a_process(reads, count, total)) ||
           (__atomic_load_n(&is_forbidden, __ATOMIC_RELAXED) && read_from_proc(reads, count));
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
        if (!read_slowly(reads, count, total)) {
            return false;
        }
        if (++useless == MOST_USELESS) {
            close_file(); /* RLIMIT_FSIZE has come down, for one */
        }
        return true;
    }
    return read_slowly(reads, count, total);
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
    __atomic_store_n(&is_forbidden, false, __ATOMIC_RELAXED);
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

pyprof_way_of_reading pyprof_way_of_reading_memory(void) { return PYPROF_BY_PROC; }

bool pyprof_can_read_memory(void) { return false; }

#endif
