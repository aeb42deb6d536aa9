/* See charge.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/charge.h"

static void add(pyprof_window *window, pyprof_sample_id stack, int column, int64_t value) {
    pyprof_values values = {{0}};
    values.column[column] = value;
    pyprof_window_add(window, stack, &values);
}

/* CPU time between two ticks that placed some may have been used at either's stack: half goes to each. All of
 * it to the later one would take from the first function of every burst, since what ran before it slept. */
static int64_t split_cpu(pyprof_thread *thread, pyprof_window *window) {
    int64_t cpu = thread->placeable_ns - thread->charged_ns;
    int64_t earlier = thread->placed_stack == PYPROF_NO_STACK ? 0 : (cpu - thread->certain_ns) / 2;
    if (earlier > 0) {
        add(window, thread->placed_stack, PYPROF_CPU_NS, earlier);
        cpu -= earlier;
    }
    thread->charged_ns = thread->placeable_ns;
    return cpu;
}

/* A thread of C code that waits is not. */
static bool is_ours(const pyprof_thread *thread) {
    return thread->in_python || thread->on_cpu || thread->unread;
}

static int64_t weighed(const pyprof_thread *thread, int64_t wall_ns) {
    return (int64_t)(thread->weight * (double)wall_ns);
}

static int64_t gil_ns(const pyprof_thread *thread, int64_t wall_ns) {
    return (int64_t)(thread->gil_weight * (double)wall_ns);
}

int64_t pyprof_untold_gil_ns(const pyprof_thread *thread, int64_t wall_ns) {
    const bool is_untold = thread->gil_part == PYPROF_GIL_UNTOLD && !thread->unread && is_ours(thread);
    return is_untold ? gil_ns(thread, thread->owed_wall_ns + weighed(thread, wall_ns)) : 0;
}

static void split_wall(const pyprof_thread *thread, int64_t wall_ns, pyprof_values *values) {
    values->column[PYPROF_WALL_NS] = wall_ns;
    if (thread->gil_part == PYPROF_GIL_HELD) {
        values->column[PYPROF_GIL_HELD_NS] = wall_ns;
    } else if (thread->gil_part == PYPROF_GIL_WAIT) {
        values->column[PYPROF_GIL_WAIT_NS] = gil_ns(thread, wall_ns);
    }
}

void pyprof_charge_sample(pyprof_thread *thread, pyprof_window *window, int64_t wall_ns, uint64_t ticks) {
    if (!thread->unread) {
        thread->seen_ns = thread->clock_ns;
        thread->was_on_cpu = thread->presence;
    }
    if (thread->weight <= 0 || !is_ours(thread)) {
        return;
    }
    thread->owed_wall_ns += weighed(thread, wall_ns);
    thread->owed_ticks += thread->weight * (double)ticks;
    if (thread->unread) {
        return;
    }
    pyprof_values values = {{0}};
    values.column[PYPROF_SAMPLES] = (int64_t)thread->owed_ticks;
    split_wall(thread, thread->owed_wall_ns, &values);
    thread->owed_wall_ns = 0;
    thread->owed_ticks -= (double)values.column[PYPROF_SAMPLES];
    const int64_t used = thread->clock_ns - thread->sampled_ns;
    if (thread->moved && used >= thread->moved_most_ns) {
        thread->moved_stack = thread->stack;
        thread->moved_most_ns = used;
    }
    thread->sampled_ns = thread->clock_ns;
    if (thread->on_cpu) {
        values.column[PYPROF_CPU_SAMPLES] = 1;
        values.column[PYPROF_CPU_NS] = split_cpu(thread, window);
        thread->placed_stack = thread->stack;
    }
    pyprof_window_add(window, thread->stack, &values);
}

int64_t pyprof_charge_rest(pyprof_thread *thread, pyprof_window *window, int64_t wall_ns) {
    pyprof_sample_id place = thread->placed_stack != PYPROF_NO_STACK  ? thread->placed_stack
                             : thread->moved_stack != PYPROF_NO_STACK ? thread->moved_stack
                                                                      : thread->stack;
    int64_t rest = thread->clock_ns - thread->charged_ns;
    if (place == PYPROF_NO_STACK || (rest <= 0 && wall_ns <= 0)) {
        return 0; /* not seen in this window: carried to the next */
    }
    if (wall_ns > 0 && thread->stack != PYPROF_NO_STACK) {
        pyprof_values values = {{0}};
        split_wall(thread, wall_ns, &values);
        pyprof_window_add(window, thread->stack, &values);
    }
    if (rest <= 0) {
        return 0;
    }
    add(window, place, PYPROF_CPU_NS, rest);
    thread->charged_ns = thread->clock_ns;
    return rest;
}

/* What threads use after their last samples, and those that no sample meets at all, is nowhere; samples that
 * find a thread on a CPU and turn out to be its last ones stand for it. Let G be the gap after a sample, S(x)
 * the probability that it is longer than x, and d the time that a moment is before the thread's end. No
 * sample comes between the two with the probability that the integral of S from d on is, over the mean gap;
 * so, if each last sample counts g(G), g has to be such that the mean of g(G) over the G above d is that
 * integral, for every d. Which is so for g = S / -S'. Gaps that are uniform up to `longest` have that at
 * `longest - G`; that none is shorter than a tenth of the period does not matter.
 *
 * The clocks of threads that are about to end may still be there, and tell what they used; but to count that
 * for them, and this for the others, would count too much. */
int64_t pyprof_charge_ended(pyprof_thread *thread, pyprof_window *window, int64_t gap_ns,
                            int64_t longest_gap_ns) {
    thread->clock_ns = thread->seen_ns;
    int64_t unplaced = pyprof_charge_rest(thread, window, thread->owed_wall_ns);
    if (thread->was_on_cpu > 0 && thread->stack != PYPROF_NO_STACK && gap_ns < longest_gap_ns) {
        const double estimate = thread->was_on_cpu * (double)(longest_gap_ns - gap_ns);
        add(window, thread->stack, PYPROF_CPU_NS, (int64_t)estimate);
    }
    return unplaced;
}

#endif
