/* See gil_waits.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/gil_waits.h"

#include "cpython/gil_waiters.h"
#include "sampling/proc.h"

static const char *kernel_obstacle(const pyprof_threads *threads) {
    return threads->kernel_answers || pyprof_gil_names_waiters()
               ? NULL
               : "the kernel does not tell where a thread waits (/proc/self/task/*/syscall)";
}

const char *pyprof_gil_waits_obstacle(const pyprof_threads *threads, PyInterpreterState *interp) {
    const char *obstacle = pyprof_gil_waiters_obstacle(interp);
    return obstacle != NULL ? obstacle : kernel_obstacle(threads);
}

static bool may_do_something_else(const pyprof_threads *threads, const pyprof_thread *thread) {
    return thread->moved || !threads->trust_clocks || thread->gil.part == PYPROF_GIL_UNTOLD;
}

/* What needs no question. */
static void see_who_cannot_wait(pyprof_threads *threads, const void *holder) {
    for (size_t i = 0; i < threads->count; i++) {
        pyprof_thread *thread = &threads->items[i];
        thread->gil.named = false;
        thread->gil_weight = 1;
        if (thread->is_running || thread->on_cpu || thread->key.tstate == holder) {
            thread->gil.part = PYPROF_GIL_NOTHING;
            thread->gil.in_doubt = false;
        } else {
            thread->gil.in_doubt = may_do_something_else(threads, thread);
        }
    }
}

/* Thread states are right at any moment. But where the GIL is free, a thread that wants it lacks a CPU. */
static void see_who_is_named(pyprof_threads *threads, const void *holder) {
    const void *tstates[PYPROF_MOST_NAMED];
    pyprof_thread *asked[PYPROF_MOST_NAMED];
    bool named[PYPROF_MOST_NAMED];
    size_t count = 0;
    for (size_t i = 0; i < threads->count; i++) {
        pyprof_thread *thread = &threads->items[i];
        if (thread->gil.in_doubt || thread->gil.part == PYPROF_GIL_WAIT) {
            tstates[count] = thread->key.tstate;
            asked[count++] = thread;
        }
        if (count == PYPROF_MOST_NAMED || (count > 0 && i + 1 == threads->count)) {
            pyprof_gil_named_waiters(tstates, count, named);
            for (size_t j = 0; j < count; j++) {
                asked[j]->gil.named = named[j];
                if (named[j]) {
                    asked[j]->gil.in_doubt = false;
                    asked[j]->gil.part = holder != NULL ? PYPROF_GIL_WAIT : PYPROF_GIL_UNTOLD;
                }
            }
            count = 0;
        }
    }
}

typedef struct {
    size_t in_doubt; /* threads of which it is not decided */
    size_t missing;  /* waiters that are none of those of which it is */
} balance;

static balance take_balance(const pyprof_threads *threads, size_t waiters) {
    balance left = {0, waiters};
    for (size_t i = 0; i < threads->count; i++) {
        const pyprof_thread *thread = &threads->items[i];
        left.in_doubt += thread->gil.in_doubt;
        if (!thread->gil.in_doubt && thread->gil.part == PYPROF_GIL_WAIT && !thread->gil.named) {
            left.missing -= left.missing > 0;
        }
    }
    return left;
}

static void decide(pyprof_thread *thread, pyprof_gil_part part, balance *left) {
    thread->gil.part = part;
    thread->gil.in_doubt = false;
    left->in_doubt--;
    left->missing -= part == PYPROF_GIL_WAIT && left->missing > 0;
}

/* Asks the threads in doubt until it is clear what the others do. If they are more than `most`, as many at
 * random, each of which stands for others too: an answer of a former tick would speak of another stack. */
static void ask(pyprof_threads *threads, const pyprof_gil_tick *tick, size_t most, balance *left) {
    const size_t all = left->in_doubt;
    const size_t first = all == 0 ? 0 : tick->chance % all;
    size_t number = 0;
    for (size_t i = 0; i < threads->count; i++) {
        pyprof_thread *thread = &threads->items[i];
        if (!thread->gil.in_doubt) {
            continue;
        }
        const bool is_asked = all <= most || (number + all - first) % all < most;
        number++;
        thread->gil.part = PYPROF_GIL_UNTOLD;
        thread->gil_weight = !is_asked ? 0 : all <= most ? 1 : (double)all / (double)most;
        if (!is_asked || left->missing == 0) {
            continue;
        }
        uint64_t address;
        const pyprof_waiting waiting = pyprof_thread_waits(thread->key.tid, &address);
        if (waiting == PYPROF_WAITS) {
            decide(thread,
                   pyprof_gil_has_address(tick->interp, address) ? PYPROF_GIL_WAIT : PYPROF_GIL_NOTHING,
                   left);
        } else if (waiting == PYPROF_WAITS_UNKNOWN && !thread->ended) {
            threads->kernel_answers = pyprof_waiting_is_told();
        }
    }
}

static void decide_all(pyprof_threads *threads, pyprof_gil_part part, balance *left) {
    for (size_t i = 0; i < threads->count; i++) {
        if (threads->items[i].gil.in_doubt) {
            decide(&threads->items[i], part, left);
        }
    }
}

enum { SHARE_OF_PERIOD = 200 };

static size_t most_to_ask(int64_t period_ns) {
    const int64_t most = period_ns / SHARE_OF_PERIOD / pyprof_waiting_cost_ns();
    return most < 1 ? 1 : (size_t)most;
}

/* Where as many wait as there are in doubt, it is these; but among few, one of the waiters may be none of the
 * known threads, as pyprof's own are not. */
enum { MANY = 16 };

const char *pyprof_gil_waits_decide(pyprof_threads *threads, const pyprof_gil_tick *tick) {
    see_who_cannot_wait(threads, tick->holder);
    if (pyprof_gil_names_waiters()) {
        see_who_is_named(threads, tick->holder);
    }
    balance left = take_balance(threads, pyprof_gil_count_waiters(tick->interp));
    if (tick->holder != NULL && left.in_doubt >= MANY && left.missing == left.in_doubt) {
        decide_all(threads, PYPROF_GIL_WAIT, &left);
    } else if (threads->kernel_answers) {
        ask(threads, tick, most_to_ask(tick->period_ns), &left);
    }
    if (left.missing == 0) {
        decide_all(threads, PYPROF_GIL_NOTHING, &left);
    }
    return kernel_obstacle(threads);
}

static void see_safe_points(pyprof_threads *threads) {
    const char *instructions[PYPROF_MOST_NAMED];
    pyprof_thread *asked[PYPROF_MOST_NAMED];
    bool are[PYPROF_MOST_NAMED];
    size_t count = 0;
    for (size_t i = 0; i < threads->count; i++) {
        pyprof_thread *thread = &threads->items[i];
        if (thread->instruction != NULL) {
            instructions[count] = thread->instruction;
            asked[count++] = thread;
            thread->instruction = NULL;
        }
        if (count == PYPROF_MOST_NAMED || (count > 0 && i + 1 == threads->count)) {
            pyprof_are_safe_points(instructions, count, are);
            for (size_t j = 0; j < count; j++) {
                asked[j]->gil.at_safe_point = are[j];
            }
            count = 0;
        }
    }
}

void pyprof_gil_waits_settle(pyprof_threads *threads, const void *holder) {
    see_safe_points(threads);
    for (size_t i = 0; i < threads->count; i++) {
        pyprof_thread *thread = &threads->items[i];
        thread->gil_part = thread->gil.part;
        if (holder == NULL && thread->gil_part == PYPROF_GIL_UNTOLD) {
            thread->gil_part = PYPROF_GIL_NOTHING; /* it was not blocked, and there is nothing to wait for */
        }
        if (thread->key.tstate == holder) {
            thread->gil_part = PYPROF_GIL_HELD;
        } else if (holder != NULL && thread->gil.at_safe_point && !thread->is_running && !thread->on_cpu) {
            thread->gil_part = PYPROF_GIL_WAIT;
            thread->gil_weight = 1;
        }
    }
}

#endif
