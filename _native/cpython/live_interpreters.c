/* The interpreters of the process, while they come and go. See live_interpreters.h. */
#include "cpython/live_private.h"

#include "cpython/live_interpreters.h"

#if PYPROF_KNOWN_LAYOUT

#if PYPROF_HAS_DEBUG_OFFSETS
#define INTERPRETERS_HEAD                                                                                    \
    (*(const void **)((char *)&_PyRuntime + _PyRuntime.debug_offsets.runtime_state.interpreters_head))
#define INTERPRETER_FIELD(name, offset) (_PyRuntime.debug_offsets.interpreter_state.offset)
#define OWN_GIL INTERPRETER_FIELD(, gil_runtime_state)
#define OWN_GIL_FIELD(name, offset) INTERPRETER_FIELD(, offset)
#else
#define INTERPRETERS_HEAD (*(const void **)&_PyRuntime.interpreters.head)
#define INTERPRETER_FIELD(name, offset) (offsetof(PyInterpreterState, name))
#define OWN_GIL (offsetof(PyInterpreterState, _gil))
#define OWN_GIL_FIELD(name, offset) (offsetof(PyInterpreterState, _gil.name))
#endif
#define HAS_OWN_GIL (PYPROF_GIL_PER_INTERPRETER && !PYPROF_FREE_THREADED)

/* Of the timer thread: as they were the last time, newest first, without the main one. */
static pyprof_live_interpreter others[PYPROF_MOST_INTERPRETERS];
static size_t other_count;

bool pyprof_is_only_interpreter(const void *main) {
    return __atomic_load_n(&INTERPRETERS_HEAD, __ATOMIC_ACQUIRE) == main;
}

enum { READS_EACH = HAS_OWN_GIL ? 6 : 3 };

static void reads_of(pyprof_live_interpreter *one, pyprof_read *reads) {
#if HAS_OWN_GIL
    reads[3] =
        (pyprof_read){&one->gil, one->address + INTERPRETER_FIELD(ceval.gil, ceval_gil), sizeof(one->gil)};
    reads[4] = (pyprof_read){&one->locked, one->address + OWN_GIL_FIELD(locked, gil_runtime_state_locked),
                             sizeof(one->locked)};
    reads[5] =
        (pyprof_read){&one->last_holder, one->address + OWN_GIL_FIELD(last_holder, gil_runtime_state_holder),
                      sizeof(one->last_holder)};
#endif
    reads[0] = (pyprof_read){&one->next, one->address + INTERPRETER_FIELD(next, next), sizeof(one->next)};
    reads[1] = (pyprof_read){&one->id, one->address + INTERPRETER_FIELD(id, id), sizeof(one->id)};
    reads[2] =
        (pyprof_read){&one->newest_thread, one->address + INTERPRETER_FIELD(threads.head, threads_head),
                      sizeof(one->newest_thread)};
}

/* The main one, whose thread asks. */
static bool has_own_gil(const pyprof_live_interpreter *one) {
#if HAS_OWN_GIL
    return one->gil == one->address + OWN_GIL && one->locked == 1;
#else
    return (void)one, true;
#endif
}

bool pyprof_finds_interpreters(PyInterpreterState *main) {
    pyprof_live_interpreter one = {.address = (const char *)main};
    pyprof_read reads[READS_EACH];
    reads_of(&one, reads);
    return pyprof_is_only_interpreter(PyInterpreterState_Head()) && pyprof_read_memory(reads, READS_EACH) &&
           one.next == NULL && one.id == PyInterpreterState_GetID(main) &&
           one.newest_thread == (const char *)PyInterpreterState_ThreadHead(main) && has_own_gil(&one);
}

/* All in one go, as if none had come or gone. */
static bool read_known(const void *main) {
    static pyprof_read reads[READS_EACH * PYPROF_MOST_INTERPRETERS];
    for (size_t i = 0; i < other_count; i++) {
        reads_of(&others[i], reads + READS_EACH * i);
    }
    const void *head = __atomic_load_n(&INTERPRETERS_HEAD, __ATOMIC_ACQUIRE);
    if (other_count == 0 || head != others[0].address ||
        !pyprof_read_memory(reads, READS_EACH * other_count)) {
        return false;
    }
    for (size_t i = 0; i < other_count; i++) {
        const void *next = i + 1 < other_count ? others[i + 1].address : main;
        if (others[i].next != next) {
            return false;
        }
    }
    return true;
}

enum { COUNTS_AGAIN_EVERY = 256 };

/* New ones are put first, so the main one is the last. */
static bool follow(const void *main) {
    /* Else they would be counted again at each tick. */
    static const char *too_many_from;
    static unsigned left_out;
    const char *const head = __atomic_load_n(&INTERPRETERS_HEAD, __ATOMIC_ACQUIRE);
    const char *address = head;
    other_count = 0;
    if (head == too_many_from && ++left_out % COUNTS_AGAIN_EVERY != 0) {
        return false;
    }
    too_many_from = NULL;
    while (address != NULL && address != main && other_count < PYPROF_MOST_INTERPRETERS) {
        pyprof_live_interpreter *one = &others[other_count];
        pyprof_read reads[READS_EACH];
        one->address = address;
        reads_of(one, reads);
        if (!pyprof_read_memory(reads, READS_EACH)) {
            break;
        }
        other_count++;
        address = one->next;
    }
    if (address != main) {
        too_many_from = other_count == PYPROF_MOST_INTERPRETERS ? head : NULL;
        other_count = 0;
    }
    return address == main;
}

bool pyprof_live_interpreters(const void *main, const pyprof_live_interpreter **found, size_t *count) {
    if (pyprof_is_only_interpreter(main)) {
        other_count = 0;
    } else if (!read_known(main) && !follow(main)) {
        return false;
    }
    *found = others;
    *count = other_count;
    return true;
}

const void *pyprof_own_gil_holder(const pyprof_live_interpreter *one) {
#if HAS_OWN_GIL
    const bool is_own = one->gil == one->address + OWN_GIL;
    return is_own && one->locked == 1 ? one->last_holder : NULL;
#else
    return (void)one, NULL;
#endif
}

bool pyprof_live_newest_thread(const void *interp, const char **newest) {
    const pyprof_read one = {newest, (const char *)interp + INTERPRETER_FIELD(threads.head, threads_head),
                             sizeof(*newest)};
    return pyprof_read_memory(&one, 1);
}

bool pyprof_is_in_evaluation(const pyprof_live_thread *thread) {
    return !PYPROF_FRAME_ON_C_STACK || thread->frame_holder < thread->address ||
           thread->frame_holder >= thread->address + sizeof(PyThreadState);
}

bool pyprof_runs_under_other_ids(const pyprof_live_thread *thread) {
    return PYPROF_FIRST_THREAD_STATE_SHARED && thread->unique_id == 1;
}

#else

bool pyprof_finds_interpreters(PyInterpreterState *main) { return (void)main, false; }

bool pyprof_is_only_interpreter(const void *main) { return (void)main, true; }

bool pyprof_live_interpreters(const void *main, const pyprof_live_interpreter **found, size_t *count) {
    (void)main;
    *found = NULL;
    *count = 0;
    return true;
}

const void *pyprof_own_gil_holder(const pyprof_live_interpreter *one) { return (void)one, NULL; }

bool pyprof_live_newest_thread(const void *interp, const char **newest) {
    return (void)interp, (void)newest, false;
}

bool pyprof_is_in_evaluation(const pyprof_live_thread *thread) { return (void)thread, true; }

bool pyprof_runs_under_other_ids(const pyprof_live_thread *thread) { return (void)thread, false; }

#endif
