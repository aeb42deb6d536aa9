/* Threads: what the timer thread remembers of each Python thread from tick to tick.
 *
 * Owned and changed by the timer thread alone. While an engine takes a snapshot, the timer waits and the
 * thread that takes it may read.
 */
#ifndef PYPROF_THREADS_H
#define PYPROF_THREADS_H

#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "windows/window.h"

/* Thread states and kernel ids are used again; together with CPython's own count they are not. */
typedef struct {
    const void *tstate; /* compared, never followed */
    uint64_t unique_id;
    uint64_t tid;
} pyprof_thread_key;

#define PYPROF_NO_STACK UINT32_MAX

/* A thread that wakes up now and then is not, nor are those that begin or end together. */
enum { PYPROF_RESTLESS = 32 };

/* How often a thread that was in doubt turned out to be on a CPU when it was asked for. */
typedef struct {
    double share;
    uint32_t asked; /* up to as many as it is a mean of */
} pyprof_odds;

/* What a thread has of the GIL. */
typedef enum {
    PYPROF_GIL_NOTHING,
    PYPROF_GIL_HELD,
    PYPROF_GIL_WAIT,
    PYPROF_GIL_UNTOLD, /* it may wait or not */
} pyprof_gil_part;

typedef struct {
    pyprof_thread_key key;
    int64_t clock_ns;       /* at the last tick, read before its snapshot */
    int64_t placeable_ns;   /* up to here this tick may charge it */
    int64_t certain_ns;     /* part of that which was used at the stack of this tick without doubt */
    int64_t charged_ns;     /* up to here the clock is in a window */
    int64_t sampled_ns;     /* the clock at the last sample */
    int64_t seen_ns;        /* and at the last tick that may have taken one */
    double was_on_cpu;      /* then: how likely */
    bool moved;             /* the clock went on since the tick before */
    int64_t ran_ns;         /* how far, since it was last read */
    unsigned restless;      /* how often it had, at the last ticks: PYPROF_RESTLESS, nearly always */
    bool ended;             /* the clock is gone */
    bool on_cpu;            /* this tick may place CPU time */
    double presence;        /* how likely it has a CPU */
    bool is_running;        /* that is certain: the clock went on meanwhile */
    uint32_t confirmations; /* of what was presumed of it, in a row */
    pyprof_odds odds[2];    /* not presumed to be on a CPU, presumed */
    bool in_python;         /* `stack` has Python frames */
    bool stack_is_current;  /* the thread has not run since `stack` was seen */
    pyprof_sample_id stack; /* with its labels; ids are of the current window; PYPROF_NO_STACK: none yet */
    pyprof_sample_id placed_stack;
    pyprof_sample_id moved_stack; /* where the thread was seen after it had used most between two samples, */
    int64_t moved_most_ns;        /* and how much that was */
    pyprof_gil_part gil_part;     /* at this tick */
    double gil_weight;            /* for how many threads it stands in that */
    const char *instruction;      /* of this tick's snapshot, see snapshot.h; NULL: it was not needed */
    struct {                      /* see gil_waits.c */
        pyprof_gil_part part;     /* until the clock moves */
        bool in_doubt, named, at_safe_point;
    } gil;

    /* The innermost thread state, where that is another interpreter's than the main one; never followed. */
    const void *elsewhere;
    bool holds_other_gil; /* that of such an interpreter */
    double weight;        /* for how many threads it stands at this tick; 0: another one stands for it */
    bool unread;          /* the stack of this tick could not be read */
    int64_t owed_wall_ns; /* of such ticks: left to the next sample */
    double owed_ticks;
} pyprof_thread;

typedef struct {
    pyprof_thread *items; /* in the order of the last snapshot */
    size_t count, capacity;
    int64_t patience_ns; /* CPU time that may stay unplaced for a while */
    bool trust_clocks;   /* a clock that stands still proves that its thread did not run */
    bool kernel_answers; /* where a thread waits */
    /* See on_cpu.c. */
    pyprof_odds odds[2];    /* of threads at their first tick: not presumed to be on a CPU, presumed */
    int64_t timer_began_ns; /* when it got the CPU, by the scheduler's clock; 0: not asked at this tick */
} pyprof_threads;

/* Starts with the threads that exist now, so that no CPU time of before is charged. World stopped. */
bool pyprof_threads_open(pyprof_threads *threads, PyInterpreterState *interp, bool trust_clocks);
void pyprof_threads_close(pyprof_threads *threads);

/* Who holds the GIL, as `pyprof_gil_holder` says; a known thread that runs another interpreter, and holds it
 * by a thread state of that, by its own. */
const void *pyprof_threads_gil_holder(const pyprof_threads *threads, PyInterpreterState *interp);

/* Once it is known who is on a CPU: gives every thread its weight. `chance`: a random number. */
void pyprof_threads_weigh(pyprof_threads *threads, const void *gil_holder, uint64_t chance);

bool pyprof_is_same_thread(const pyprof_thread_key *a, const pyprof_thread_key *b);

/* The index of the thread, expected at `hint`, or `count`. */
size_t pyprof_threads_find(const pyprof_threads *threads, const pyprof_thread_key *key, size_t hint);

/* A thread seen for the first time, `wall_ns` after the last tick; `presence` as the tick's. */
pyprof_thread pyprof_new_thread(const pyprof_threads *threads, const pyprof_thread_key *key, int64_t wall_ns,
                                double presence);

/* A new window: the ids of the old one mean nothing there. */
void pyprof_threads_forget_stacks(pyprof_threads *threads);

#endif
