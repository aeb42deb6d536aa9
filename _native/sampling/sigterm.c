/* See sigterm.h. */
#ifndef PYPROF_PORTABLE
#include <Python.h> /* before all others: it says what the system's headers shall show */

#include "sampling/sigterm.h"

#include <errno.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "cpython/interpreter.h"
#include "sampling/clocks.h"
#include "sampling/timer.h"

enum { NS_PER_S = 1000000000 };

enum { NONE, ASKED, ON_RING };
static uint32_t state; /* atomic, futex */

static pid_t armed_by; /* atomic; 0: nobody */
static timer_t deadline;
static int64_t bound;

static void die(void) { kill(getpid(), SIGTERM); }

static void set(uint32_t next) {
    __atomic_store_n(&state, next, __ATOMIC_SEQ_CST);
    pyprof_futex_wake(&state);
}

static bool is_armed(void) { return __atomic_load_n(&armed_by, __ATOMIC_SEQ_CST) == getpid(); }

static void set_deadline(int64_t ns) {
    const struct itimerspec in = {.it_value = {(time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S)}};
    timer_settime(deadline, 0, &in, NULL);
}

static void wait_for_death(void) {
    const int64_t until = pyprof_monotonic_ns() + bound;
    PyThreadState *attached;
    if (!pyprof_detach_in_handler(&attached)) {
        return;
    }
    for (uint32_t now; (now = __atomic_load_n(&state, __ATOMIC_ACQUIRE)) != NONE;) {
        if (pyprof_monotonic_ns() >= until) {
            break;
        }
        pyprof_futex_wait(&state, now, until);
    }
    if (attached != NULL) {
        PyEval_RestoreThread(attached);
    }
}

static bool is_from_ourselves(const siginfo_t *info) {
    return (info->si_code == SI_USER || info->si_code == SI_TKILL) && info->si_pid == getpid();
}

/* The disposition is the default one by now, and the signal is not blocked. */
static void on_sigterm(int Py_UNUSED(number), siginfo_t *info, void *Py_UNUSED(context)) {
    const int error = errno;
    if (!is_armed()) {
        die();
    } else {
        set_deadline(bound);
        set(ASKED);
        if (!is_armed()) {
            die(); /* `disarm` in another thread may not have seen it */
        }
        pyprof_timer_nudge();
        if (is_from_ourselves(info)) {
            wait_for_death();
        }
    }
    errno = error;
}

static bool is_ours(const struct sigaction *action) {
    return (action->sa_flags & SA_SIGINFO) != 0 && action->sa_sigaction == on_sigterm;
}

static bool is_default(const struct sigaction *action) {
    return (action->sa_flags & SA_SIGINFO) == 0 && action->sa_handler == SIG_DFL;
}

bool pyprof_sigterm_arm(int64_t bound_ns) {
    struct sigaction present;
    if (pyprof_own_tid() != (uint64_t)getpid() || sigaction(SIGTERM, NULL, &present) != 0 ||
        !(is_default(&present) || is_ours(&present))) {
        return false;
    }
    struct sigevent once_more = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGTERM};
    if (!is_armed() && timer_create(CLOCK_MONOTONIC, &once_more, &deadline) != 0) {
        return false; /* without the deadline, nothing would bound the flush */
    }
    bound = bound_ns;
    __atomic_store_n(&armed_by, getpid(), __ATOMIC_SEQ_CST);
    struct sigaction ours = {.sa_flags = SA_SIGINFO | SA_RESETHAND | SA_NODEFER | SA_RESTART | SA_ONSTACK};
    ours.sa_sigaction = on_sigterm;
    sigemptyset(&ours.sa_mask);
    return sigaction(SIGTERM, &ours, NULL) == 0;
}

void pyprof_sigterm_disarm(void) {
    if (!is_armed()) {
        return;
    }
    struct sigaction present;
    if (sigaction(SIGTERM, NULL, &present) == 0 && is_ours(&present)) {
        struct sigaction standard = {.sa_handler = SIG_DFL};
        sigaction(SIGTERM, &standard, NULL);
    }
    __atomic_store_n(&armed_by, 0, __ATOMIC_SEQ_CST);
    timer_delete(deadline);
    if (__atomic_load_n(&state, __ATOMIC_SEQ_CST) != NONE) {
        die();
        set(NONE);
    }
}

bool pyprof_sigterm_wants_window(void) { return __atomic_load_n(&state, __ATOMIC_ACQUIRE) == ASKED; }

void pyprof_sigterm_has_window(void) {
    uint32_t asked = ASKED; /* or `disarm` was faster, in a process that has survived */
    __atomic_compare_exchange_n(&state, &asked, ON_RING, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

bool pyprof_sigterm_came(void) { return __atomic_load_n(&state, __ATOMIC_ACQUIRE) == ON_RING; }

void pyprof_sigterm_pass_on(void) {
    set_deadline(0);
    die();
    set(NONE);
}

void pyprof_sigterm_reset_child(void) {
    state = NONE;
    armed_by = 0;
}

#endif
