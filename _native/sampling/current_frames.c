/* See current_frames.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/current_frames.h"

#include "cpython/gil.h"
#include "cpython/interpreter.h"
#include "sampling/clocks.h"
#include "sampling/own_threads.h"

typedef enum { IDLE, REQUESTED, TAKING, TAKEN, FAILED } request_state;

/* Static, because a pending call may run after everything else has ended. */
static struct {
    uint32_t state;  /* atomic, futex */
    uint32_t queued; /* atomic: a pending call is on its way */
    uint32_t sleeps; /* atomic: the timer waits on `state`; else it looks on, and need not be woken */
    const pyprof_snapshot_request *request;
} pending;

static bool claim(void) {
    uint32_t requested = REQUESTED;
    return __atomic_compare_exchange_n(&pending.state, &requested, TAKING, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}

static void take_and_answer(void) {
    bool taken = pyprof_snapshot_take(pending.request);
    /* In one order with the timer's `sleeps` and its look at the state. */
    __atomic_store_n(&pending.state, taken ? TAKEN : FAILED, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&pending.sleeps, __ATOMIC_SEQ_CST)) {
        pyprof_futex_wake(&pending.state);
    }
}

/* The pending call: on a thread of the application, at a safe point, with the GIL. */
static int serve_pending(void *unused) {
    (void)unused;
    __atomic_store_n(&pending.queued, 0, __ATOMIC_RELEASE);
    if (claim()) {
        int64_t start = pyprof_monotonic_ns();
        take_and_answer();
        pyprof_own_threads_add_cpu_ns(pyprof_monotonic_ns() - start);
    }
    return 0;
}

static bool post(PyInterpreterState *interp) {
    if (__atomic_exchange_n(&pending.queued, 1, __ATOMIC_ACQ_REL) != 0) {
        return true; /* an earlier one has not run yet; it will serve this request */
    }
    if (pyprof_post_call(interp, serve_pending)) {
        return true;
    }
    __atomic_store_n(&pending.queued, 0, __ATOMIC_RELEASE);
    return false;
}

/* NULL: no memory, or the interpreter ends, and with it what was made here. */
static PyThreadState *attach(PyInterpreterState *interp, PyThreadState *kept) {
    PyThreadState *own = kept != NULL ? kept : PyThreadState_New(interp);
    return own != NULL && pyprof_take_gil(own) ? own : NULL;
}

static void detach(PyThreadState *own, const PyThreadState *kept) {
    if (own == kept) {
        PyEval_SaveThread();
    } else {
        PyThreadState_Clear(own);
        PyThreadState_DeleteCurrent();
    }
}

static bool take_attached(const pyprof_snapshot_request *request, PyThreadState *kept) {
    PyThreadState *own = attach(request->interp, kept);
    if (own == NULL) {
        return false;
    }
    bool taken = pyprof_snapshot_take(request);
    detach(own, kept);
    return taken;
}

static bool is_held(const void *holder) { return holder != NULL && holder != PYPROF_UNKNOWN_HOLDER; }

static size_t running(const pyprof_snapshot_request *request) {
    size_t count = 0;
    for (size_t i = 0; i < request->known->count; i++) {
        count += request->known->items[i].on_cpu;
    }
    return count;
}

/* Longer than the holder goes without a safe point, unless it is in a C call. Or it is a thread of a
 * subinterpreter with the same GIL, which serves no call of ours: it must be asked to let go. */
enum { FIRST_PATIENCE_NS = 50000, LONGEST_PATIENCE_NS = 2000000, ATTACH_AFTER_NS = 50000000 };
/* Threads that let go of the GIL for an instant, and two of which want it, keep a third one from it for a
 * second: each time they let go they wake it in vain, so that its wait never gets as long as the switch
 * interval, and it never asks for its turn. Free twice in a row, the GIL has not been caught in such an
 * instant. */
enum { FREE_LOOKS = 2 };

/* Cheaper than to sleep and be woken, for both sides, if it does not take long. */
static void look_on(void) {
    const int64_t end = pyprof_monotonic_ns() + PYPROF_LOOK_ON_NS;
    uint32_t state;
    do {
        state = __atomic_load_n(&pending.state, __ATOMIC_ACQUIRE);
    } while ((state == REQUESTED || state == TAKING) && pyprof_monotonic_ns() < end);
}

static void sleep_on(uint32_t state, int64_t ns) {
    __atomic_store_n(&pending.sleeps, 1, __ATOMIC_SEQ_CST);
    pyprof_futex_wait(&pending.state, state, pyprof_monotonic_ns() + ns);
    __atomic_store_n(&pending.sleeps, 0, __ATOMIC_SEQ_CST);
}

static bool take_by_pending_call(const pyprof_snapshot_request *request, PyThreadState *kept) {
    pending.request = request;
    __atomic_store_n(&pending.state, REQUESTED, __ATOMIC_RELEASE);
    bool posted = post(request->interp);
    if (posted && pyprof_can_look_on()) {
        look_on();
    }
    int64_t patience = FIRST_PATIENCE_NS;
    const int64_t attach_at = pyprof_monotonic_ns() + ATTACH_AFTER_NS;
    int free_looks = 0;
    uint32_t state;
    while ((state = __atomic_load_n(&pending.state, __ATOMIC_ACQUIRE)) == REQUESTED || state == TAKING) {
        const void *holder = pyprof_gil_holder(request->interp);
        free_looks = is_held(holder) ? 0 : free_looks + 1;
        if (state == REQUESTED && pyprof_is_finalizing()) {
            if (claim()) {
                break; /* nobody can serve it any more */
            }
        } else if (state == REQUESTED &&
                   (!posted || free_looks >= FREE_LOOKS || pyprof_monotonic_ns() >= attach_at ||
                    (is_held(holder) && !pyprof_runs_posted_calls(holder)))) {
            /* Nobody is there to run the call: the holder went to sleep without a safe point. Or that cannot
             * be told: then the call may still be served while this waits. */
            PyThreadState *own = attach(request->interp, kept);
            if (own == NULL) {
                sleep_on(state, LONGEST_PATIENCE_NS);
                continue;
            }
            if (claim()) {
                take_and_answer();
            }
            detach(own, kept);
        } else {
            sleep_on(state, patience);
            patience = patience * 2 < LONGEST_PATIENCE_NS ? patience * 2 : LONGEST_PATIENCE_NS;
        }
    }
    __atomic_store_n(&pending.state, IDLE, __ATOMIC_RELEASE);
    return state == TAKEN;
}

enum { REST_FACTOR = 20 };

static int64_t rest_until_ns;

static bool take_with_world_stopped(const pyprof_snapshot_request *request, PyThreadState *kept) {
    int64_t start = pyprof_monotonic_ns();
    if (start < rest_until_ns) {
        return false;
    }
    PyThreadState *own = attach(request->interp, kept);
    if (own == NULL) {
        return false;
    }
    pyprof_stop_the_world(request->interp);
    int64_t stopped = pyprof_monotonic_ns();
    bool taken = pyprof_snapshot_take(request);
    pyprof_start_the_world(request->interp);
    detach(own, kept);
    if (running(request) > 1) {
        rest_until_ns = stopped + (stopped - start) * REST_FACTOR;
    }
    return taken;
}

bool pyprof_current_frames_take(const pyprof_snapshot_request *request, PyThreadState *kept) {
    /* Attaching while the interpreter ends would end or freeze this thread. It holds no lock, so that would
     * harm nobody, but there is nothing to see any more either. */
    if (pyprof_is_finalizing()) {
        return false;
    }
    if (pyprof_is_free_threaded()) {
        return take_with_world_stopped(request, kept);
    }
    const void *holder = pyprof_gil_holder(request->interp);
    bool at_rest = holder == NULL && running(request) == 0;
    return !at_rest && pyprof_runs_posted_calls(holder) ? take_by_pending_call(request, kept)
                                                        : take_attached(request, kept);
}

PyThreadState *pyprof_current_frames_keep(PyInterpreterState *interp) { return PyThreadState_New(interp); }

void pyprof_current_frames_drop(PyThreadState *kept) {
    if (kept != NULL && !pyprof_is_finalizing() && pyprof_take_gil(kept)) {
        detach(kept, NULL);
    }
}

void pyprof_current_frames_reset_child(void) {
    pending.state = IDLE;
    pending.queued = pending.sleeps = 0;
    rest_until_ns = 0;
}

#endif
