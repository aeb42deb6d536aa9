/* See charge.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/charge.h"

static void add(pyprof_window *window, pyprof_stack_id stack, int column, int64_t value) {
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

void pyprof_charge_sample(pyprof_thread *thread, pyprof_window *window, int64_t wall_ns, uint64_t ticks) {
    pyprof_values values = {{0}};
    values.column[PYPROF_SAMPLES] = (int64_t)ticks;
    values.column[PYPROF_WALL_NS] = wall_ns;
    if (thread->moved) {
        thread->moved_stack = thread->stack;
    }
    thread->weight_ns = thread->on_cpu ? wall_ns : 0;
    if (thread->on_cpu) {
        values.column[PYPROF_CPU_SAMPLES] = 1;
        values.column[PYPROF_CPU_NS] = split_cpu(thread, window);
        thread->placed_stack = thread->stack;
    }
    pyprof_window_add(window, thread->stack, &values);
}

int64_t pyprof_charge_rest(pyprof_thread *thread, pyprof_window *window, int64_t wall_ns) {
    pyprof_stack_id place = thread->placed_stack != PYPROF_NO_STACK  ? thread->placed_stack
                            : thread->moved_stack != PYPROF_NO_STACK ? thread->moved_stack
                                                                     : thread->stack;
    int64_t rest = thread->clock_ns - thread->charged_ns;
    if (place == PYPROF_NO_STACK || (rest <= 0 && wall_ns <= 0)) {
        return 0; /* not seen in this window: carried to the next */
    }
    if (wall_ns > 0 && thread->stack != PYPROF_NO_STACK) {
        add(window, thread->stack, PYPROF_WALL_NS, wall_ns);
    }
    if (rest <= 0) {
        return 0;
    }
    add(window, place, PYPROF_CPU_NS, rest);
    thread->charged_ns = thread->clock_ns;
    return rest;
}

/* What a thread used after its last sample, on average. A sample that finds a thread on a CPU stands for the
 * gap before it, so that the sum of these gaps is what threads use on average, however long they live: most
 * of those that live shorter than a gap are never seen, and the few that are stand for them. All but the
 * first gap the clock has told exactly; of that one, what the thread had not used is charged at its end.
 * Where nothing is known of its first gap, half of the last one is as good. */
static int64_t estimated_tail(const pyprof_thread *thread) {
    return thread->tail_ns == PYPROF_UNKNOWN ? thread->weight_ns / 2 : thread->tail_ns;
}

int64_t pyprof_charge_ended(pyprof_thread *thread, pyprof_window *window) {
    int64_t unplaced = pyprof_charge_rest(thread, window, 0);
    /* One that was still there when the clocks were read, and not on a CPU, has told all. */
    bool was_on_cpu = thread->weight_ns > 0 && (thread->ended || thread->on_cpu);
    if (was_on_cpu && thread->placed_stack != PYPROF_NO_STACK) {
        add(window, thread->placed_stack, PYPROF_CPU_NS, estimated_tail(thread));
    }
    return unplaced;
}

#endif
