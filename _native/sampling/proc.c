/* See proc.h. */
#ifndef PYPROF_PORTABLE
#define _GNU_SOURCE
#include "sampling/proc.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

typedef enum { STAT, SCHED } file_name;

static int open_of_thread(uint64_t tid, file_name name) {
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/task/%llu/%s", (unsigned long long)tid,
             name == STAT ? "stat" : "sched");
    return open(path, O_RDONLY | O_CLOEXEC);
}

static _Thread_local bool keeps_files;

enum { MOST_KEPT = 32 };

/* Of the timer thread alone; the kernel closes them when it ends. */
static struct {
    struct {
        uint64_t tid; /* 0: none */
        file_name name;
        int fd;
    } files[MOST_KEPT];
    size_t next; /* to be replaced */
} kept;

void pyprof_proc_begin(void) {
    memset(&kept, 0, sizeof(kept));
    keeps_files = true;
}

static int keep_open(uint64_t tid, file_name name) {
    for (size_t i = 0; i < MOST_KEPT; i++) {
        if (kept.files[i].tid == tid && kept.files[i].name == name) {
            return kept.files[i].fd;
        }
    }
    const int fd = open_of_thread(tid, name);
    if (fd >= 0) {
        const size_t place = kept.next++ % MOST_KEPT;
        if (kept.files[place].tid != 0) {
            close(kept.files[place].fd);
        }
        kept.files[place].tid = tid;
        kept.files[place].name = name;
        kept.files[place].fd = fd;
    }
    return fd;
}

/* Files of a thread that is gone stay unreadable; its id may have gone to another. */
static void close_kept(uint64_t tid) {
    for (size_t i = 0; i < MOST_KEPT; i++) {
        if (kept.files[i].tid == tid) {
            close(kept.files[i].fd);
            kept.files[i].tid = 0;
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

bool pyprof_thread_is_runnable(uint64_t tid) {
    char buffer[256];
    const char *state = after_name(read_of_thread(tid, STAT, buffer, sizeof(buffer)));
    return state != NULL && *state == 'R';
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

#endif
