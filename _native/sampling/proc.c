/* See proc.h. */
#ifndef PYPROF_PORTABLE
#define _GNU_SOURCE
#include "sampling/proc.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sampling/clocks.h"

enum { NS_PER_MS = 1000000 };

/* What a small file holds, or NULL. */
static const char *read_from(int fd, char *buffer, size_t size) {
    const ssize_t n = fd < 0 ? -1 : pread(fd, buffer, size - 1, 0);
    if (n <= 0) {
        return NULL;
    }
    buffer[n] = '\0';
    return buffer;
}

static const char *read_and_close(int fd, char *buffer, size_t size) {
    const char *text = read_from(fd, buffer, size);
    if (fd >= 0) {
        close(fd);
    }
    return text;
}

/* In a line like "PID (name) S …", what stands after the name. */
static const char *after_name(const char *line) {
    const char *end = line == NULL ? NULL : strrchr(line, ')'); /* names may hold parentheses and spaces */
    return end != NULL && end[1] == ' ' ? end + 2 : NULL;
}

long pyprof_native_thread_count(void) {
    enum { FIELDS_FROM_STATE_TO_THREADS = 17 };
    char buffer[1024];
    const int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    const char *at = after_name(read_and_close(fd, buffer, sizeof(buffer)));
    for (int i = 0; at != NULL && i < FIELDS_FROM_STATE_TO_THREADS; i++) {
        at = strchr(at, ' ');
        at = at == NULL ? NULL : at + 1;
    }
    return at == NULL ? 0 : strtol(at, NULL, 10);
}

/* -- files of threads -- */

typedef enum { STAT, SCHED, SYSCALL, FILES } file_name;

static int open_of_thread(uint64_t tid, file_name name) {
    static const char *const names[FILES] = {"stat", "sched", "syscall"};
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/task/%llu/%s", (unsigned long long)tid, names[name]);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static _Thread_local bool keeps_files;

/* Ids of threads of one process are close together, so that files of these many hardly ever want one place.
 */
enum { MOST_KEPT_THREADS = 128 };

/* Of the timer thread alone; the kernel closes them when it ends. */
static struct {
    uint64_t tid; /* 0: none */
    int fd;
} kept[MOST_KEPT_THREADS][FILES];

static int kept_statm; /* likewise; 0: none */

void pyprof_proc_begin(void) {
    memset(kept, 0, sizeof(kept));
    kept_statm = 0;
    keeps_files = true;
}

static int keep_open(uint64_t tid, file_name name) {
    const size_t place = tid % MOST_KEPT_THREADS;
    if (kept[place][name].tid == tid) {
        return kept[place][name].fd;
    }
    const int fd = open_of_thread(tid, name);
    if (fd >= 0) {
        if (kept[place][name].tid != 0) {
            close(kept[place][name].fd);
        }
        kept[place][name].tid = tid;
        kept[place][name].fd = fd;
    }
    return fd;
}

/* Files of a thread that is gone stay unreadable; its id may have gone to another. */
static void close_kept(uint64_t tid) {
    for (file_name name = 0; name < FILES; name++) {
        if (kept[tid % MOST_KEPT_THREADS][name].tid == tid) {
            close(kept[tid % MOST_KEPT_THREADS][name].fd);
            kept[tid % MOST_KEPT_THREADS][name].tid = 0;
        }
    }
}

static const char *read_of_thread(uint64_t tid, file_name name, char *buffer, size_t size) {
    if (!keeps_files) {
        return read_and_close(open_of_thread(tid, name), buffer, size);
    }
    const char *text = read_from(keep_open(tid, name), buffer, size);
    if (text == NULL) {
        close_kept(tid);
        text = read_from(keep_open(tid, name), buffer, size);
    }
    return text;
}

pyprof_answer pyprof_thread_is_runnable(uint64_t tid) {
    char buffer[256];
    const char *state = after_name(read_of_thread(tid, STAT, buffer, sizeof(buffer)));
    return state == NULL ? PYPROF_NOT_TOLD : *state == 'R' ? PYPROF_YES : PYPROF_NO;
}

int64_t pyprof_thread_last_ran_ns(uint64_t tid) {
    char buffer[256];
    unsigned long long ms, ns;
    const char *text = read_of_thread(tid, SCHED, buffer, sizeof(buffer));
    const char *line = text == NULL ? NULL : strstr(text, "\nse.exec_start");
    const char *value = line == NULL ? NULL : strchr(line, ':');
    return value != NULL && sscanf(value, ": %llu.%6llu", &ms, &ns) == 2 ? (int64_t)(ms * NS_PER_MS + ns)
                                                                         : -1;
}

/* "running", or the number of the system call and its arguments: "202 0x7f2a… 0x189 …". */
static pyprof_waiting parse_waiting(const char *text, uint64_t *first_argument) {
    if (text == NULL) {
        return PYPROF_WAITS_UNKNOWN;
    }
    *first_argument = 0;
    const char *argument = strchr(text, ' '); /* none in "running"; after "-1", of a page fault, the stack */
    if (argument != NULL && text[0] != '-') {
        *first_argument = strtoull(argument, NULL, 16);
    }
    return argument == NULL ? PYPROF_WAITS_NOT : PYPROF_WAITS;
}

pyprof_waiting pyprof_thread_waits(uint64_t tid, uint64_t *first_argument) {
    char buffer[256];
    return parse_waiting(read_of_thread(tid, SYSCALL, buffer, sizeof(buffer)), first_argument);
}

bool pyprof_waiting_is_told(void) {
    char buffer[256];
    uint64_t argument;
    const int fd = open_of_thread(pyprof_own_tid(), SYSCALL);
    const bool told = parse_waiting(read_from(fd, buffer, sizeof(buffer)), &argument) == PYPROF_WAITS &&
                      argument == (uint64_t)fd; /* of the very call that reads this */
    if (fd >= 0) {
        close(fd);
    }
    return told;
}

enum { KEPT_COST_NS = 3000, OPENED_COST_NS = 25000 };

int64_t pyprof_waiting_cost_ns(void) { return keeps_files ? KEPT_COST_NS : OPENED_COST_NS; }

/* -- the process -- */

bool pyprof_read_process_size(pyprof_process_size *size) {
    static const char name[] = "/proc/self/statm";
    char buffer[256];
    const char *text;
    if (keeps_files) {
        if (kept_statm <= 0) {
            kept_statm = open(name, O_RDONLY | O_CLOEXEC);
        }
        text = read_from(kept_statm, buffer, sizeof(buffer));
    } else {
        text = read_and_close(open(name, O_RDONLY | O_CLOEXEC), buffer, sizeof(buffer));
    }
    char *end;
    const int64_t page = sysconf(_SC_PAGESIZE);
    if (text == NULL) {
        return false;
    }
    size->address_space = strtoll(text, &end, 10) * page;
    size->resident = strtoll(end, NULL, 10) * page;
    return true;
}

#endif
