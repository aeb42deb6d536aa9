/* See gil_waiters.h. */
#define _GNU_SOURCE
#define Py_BUILD_CORE 1 /* the GIL is in no public header */
#include "cpython/version.h"

#if PYPROF_KNOWN_LAYOUT
#include "internal/pycore_ceval.h"
#include "internal/pycore_interp.h"
#include "internal/pycore_pystate.h"
#include "internal/pycore_runtime.h"
#endif
#undef Py_BUILD_CORE

#include <opcode.h>
#include <string.h>

#include "cpython/gil.h"
#include "cpython/gil_waiters.h"
#include "cpython/guarded_read.h"
#include "cpython/interpreter.h"

/* A condition variable of glibc (since 2.25) has a word `__wrefs`: eight times the threads in a wait, and
 * three flags, of which CPython sets the one for the monotonic clock. musl has a list of waiters instead. */
#ifdef __GLIBC__
#define HAS_WREFS PYPROF_KNOWN_LAYOUT
#else
#define HAS_WREFS 0
#endif

static bool counts_waiters; /* set before the timer starts, as is what follows */

#if HAS_WREFS
static size_t wrefs_at;
enum { WAITER = 8, FLAGS = WAITER - 1, MONOTONIC = 2 };

static uint32_t wrefs(const pthread_cond_t *condition) {
    return __atomic_load_n((const uint32_t *)((const char *)condition + wrefs_at), __ATOMIC_ACQUIRE);
}

/* The word has moved from one glibc to another, and the one at hand counts: it is the only one that is not
 * zero in a new condition variable with that clock. */
static bool find_wrefs(void) {
    pthread_condattr_t attributes;
    pthread_cond_t fresh;
    memset(&fresh, 0, sizeof(fresh));
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&fresh, &attributes);
    pthread_condattr_destroy(&attributes);
    size_t found = 0;
    for (size_t at = 0; at < sizeof(fresh); at += sizeof(uint32_t)) {
        uint32_t word;
        memcpy(&word, (char *)&fresh + at, sizeof(word));
        if (word != 0) {
            wrefs_at = at;
            found++;
        }
    }
    const bool is_it = found == 1 && wrefs(&fresh) == MONOTONIC;
    pthread_cond_destroy(&fresh);
    return is_it;
}

/* Patch releases have moved fields of other structures; of this one the table of offsets has two. */
static bool layout_is_as_compiled(const struct _gil_runtime_state *gil) {
#if PYPROF_HAS_DEBUG_OFFSETS
    const _Py_DebugOffsets *at = &_PyRuntime.debug_offsets;
    const uint64_t inside = at->interpreter_state.gil_runtime_state;
    if (at->interpreter_state.gil_runtime_state_locked - inside !=
            offsetof(struct _gil_runtime_state, locked) ||
        at->interpreter_state.gil_runtime_state_holder - inside !=
            offsetof(struct _gil_runtime_state, last_holder)) {
        return false;
    }
#endif
    return (wrefs(&gil->cond) & FLAGS) == MONOTONIC && (wrefs(&gil->switch_cond) & FLAGS) == MONOTONIC;
}
#endif

const char *pyprof_gil_waiters_obstacle(PyInterpreterState *interp) {
    const struct _gil_runtime_state *gil = pyprof_gil_of(interp);
    if (gil == NULL) {
        return "the interpreter's structures are not known";
    }
#if HAS_WREFS
    counts_waiters = find_wrefs() && layout_is_as_compiled(gil);
#endif
    return counts_waiters || pyprof_gil_names_waiters() ? NULL
                                                        : "the C library does not count who waits for it";
}

bool pyprof_gil_names_waiters(void) { return PYPROF_KNOWN_LAYOUT && PYPROF_STATES_NAME_WAITERS; }

/* All at once, as a rule; what belongs to a thread that has ended spoils that for the others. */
static void read_each(const pyprof_read *reads, size_t count, bool *read) {
    const bool all = pyprof_read_memory(reads, count);
    for (size_t i = 0; i < count; i++) {
        read[i] = all || pyprof_read_memory(&reads[i], 1);
    }
}

void pyprof_gil_named_waiters(const void *const *tstates, size_t count, bool *named) {
#if PYPROF_KNOWN_LAYOUT && PYPROF_STATES_NAME_WAITERS
    const uint64_t offset = _PyRuntime.debug_offsets.thread_state.gil_requested;
    int requested[PYPROF_MOST_NAMED];
    pyprof_read reads[PYPROF_MOST_NAMED] = {{0}};
    for (size_t i = 0; i < count; i++) {
        reads[i] = (pyprof_read){&requested[i], (const char *)tstates[i] + offset, sizeof(int)};
    }
    read_each(reads, count, named);
    for (size_t i = 0; i < count; i++) {
        named[i] = named[i] && requested[i] == 1;
    }
#else
    (void)tstates;
    for (size_t i = 0; i < count; i++) {
        named[i] = false;
    }
#endif
}

size_t pyprof_gil_count_waiters(PyInterpreterState *interp) {
#if HAS_WREFS
    const struct _gil_runtime_state *gil = pyprof_gil_of(interp);
    if (!counts_waiters) {
        return 0;
    }
    const unsigned named = PYPROF_STATES_NAME_WAITERS ? 0 : wrefs(&gil->cond) / WAITER;
    return named + wrefs(&gil->switch_cond) / WAITER;
#else
    (void)interp;
    return 0;
#endif
}

bool pyprof_gil_has_address(PyInterpreterState *interp, uint64_t address) {
#if PYPROF_KNOWN_LAYOUT
    const uint64_t gil = (uintptr_t)pyprof_gil_of(interp);
    return address >= gil && address < gil + sizeof(struct _gil_runtime_state);
#else
    (void)interp;
    (void)address;
    return false;
#endif
}

pyprof_gil_mark pyprof_gil_mark_now(PyInterpreterState *interp) {
    pyprof_gil_mark mark = {.holder = pyprof_gil_holder(interp)};
#if PYPROF_KNOWN_LAYOUT
    const struct _gil_runtime_state *gil = pyprof_gil_of(interp);
    if (gil != NULL) {
        mark.switches = __atomic_load_n(&gil->switch_number, __ATOMIC_ACQUIRE);
    }
#endif
    return mark;
}

bool pyprof_gil_stayed(const pyprof_gil_mark *before, const pyprof_gil_mark *after) {
    return before->holder != NULL && before->holder != PYPROF_UNKNOWN_HOLDER &&
           before->holder == after->holder && before->switches == after->switches;
}

const char *pyprof_instruction_of(const PyCodeObject *code, int32_t lasti) {
#if PYPROF_KNOWN_LAYOUT && !PYPROF_FREE_THREADED
    return (const char *)code + offsetof(PyCodeObject, co_code_adaptive) + lasti;
#else
    (void)code;
    (void)lasti;
    return NULL;
#endif
}

#if PYPROF_KNOWN_LAYOUT && !PYPROF_FREE_THREADED
/* Not the instrumented ones: what a debugger or profiler has them call may be C code without the GIL. */
static bool is_safe_point(uint8_t opcode) {
    switch (opcode) {
    case RESUME:
    case JUMP_BACKWARD:
#ifdef RESUME_CHECK
    case RESUME_CHECK:
#endif
#ifdef RESUME_CHECK_JIT
    case RESUME_CHECK_JIT:
#endif
#ifdef RESUME_QUICK
    case RESUME_QUICK:
    case JUMP_BACKWARD_QUICK:
#endif
#ifdef JUMP_BACKWARD_NO_JIT
    case JUMP_BACKWARD_NO_JIT:
    case JUMP_BACKWARD_JIT:
#endif
#ifdef POP_JUMP_BACKWARD_IF_TRUE
    case POP_JUMP_BACKWARD_IF_TRUE:
    case POP_JUMP_BACKWARD_IF_FALSE:
    case POP_JUMP_BACKWARD_IF_NONE:
    case POP_JUMP_BACKWARD_IF_NOT_NONE:
#endif
        return true;
    default:
        return false;
    }
}
#else
static bool is_safe_point(uint8_t opcode) {
    (void)opcode;
    return false;
}
#endif

void pyprof_are_safe_points(const char *const *instructions, size_t count, bool *are) {
    uint8_t opcodes[PYPROF_MOST_NAMED];
    pyprof_read reads[PYPROF_MOST_NAMED] = {{0}};
    for (size_t i = 0; i < count; i++) {
        reads[i] = (pyprof_read){&opcodes[i], instructions[i], sizeof(uint8_t)};
    }
    read_each(reads, count, are);
    for (size_t i = 0; i < count; i++) {
        are[i] = are[i] && is_safe_point(opcodes[i]);
    }
}
