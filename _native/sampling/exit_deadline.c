/* See exit_deadline.h. */
#ifndef PYPROF_PORTABLE
#include <Python.h> /* before all others: it says what the system's headers shall show */

#include "sampling/exit_deadline.h"

#include <unistd.h>

#include "sampling/clocks.h"
#include "sampling/own_threads.h"

enum { STACK_BYTES = 64 * 1024 };

static int exit_status;
static int64_t exit_at_ns;
static uint32_t never; /* futex */

static void leave(void *Py_UNUSED(argument)) {
    pyprof_own_thread_is_attachable(); /* it makes no thread state */
    while (pyprof_monotonic_ns() < exit_at_ns) {
        pyprof_futex_wait(&never, 0, exit_at_ns);
    }
    _exit(exit_status);
}

bool pyprof_exit_deadline_set(int status, int64_t in_ns) {
    exit_status = status;
    exit_at_ns = pyprof_monotonic_ns() + in_ns;
    pyprof_own_thread *thread = pyprof_own_thread_start(leave, NULL, "pyprof-exit", STACK_BYTES);
    if (thread == NULL) {
        return false;
    }
    pyprof_own_thread_abandon(thread);
    return true;
}

#endif
