/* Counting: the bytes that are left until the next sample, and what happens when they are used up.
 *
 * For the functions that are put into the interpreter's allocators, which are called by any thread, attached
 * or not, and inside one another; everything here may be called inside an allocation. `set_active`,
 * `set_traced` and `period_changed` are for who puts them in, see allocator_hook.h.
 */
#ifndef PYPROF_COUNTING_H
#define PYPROF_COUNTING_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "cpython/allocators.h"
#include "memory/heap.h"

/* What one asks the function below for; `times`: how often it has come by meanwhile. */
typedef struct {
    PyMemAllocatorDomain domain;
    const void *old;
    size_t size;
    uint32_t times;
} pyprof_request;

/* What each thread has of its own. */
typedef struct {
    pyprof_gap gap;
    uint32_t epoch;
    bool is_inside;         /* what is asked of RAW now is counted already */
    pyprof_request passing; /* what a layered set of functions passes on now */
    const void *newest_raw; /* the last block of RAW: a library may report it again */
    bool *canary;           /* where to note that an allocation came by */
} pyprof_counting;

/* In the C library's own block of each thread: else glibc allocates it where a thread comes by first, and
 * ends the process where there is no memory for that. */
#ifdef __GLIBC__
#define PYPROF_IN_EACH_THREAD _Thread_local __attribute__((tls_model("initial-exec")))
#else
#define PYPROF_IN_EACH_THREAD _Thread_local
#endif

extern PYPROF_IN_EACH_THREAD pyprof_counting pyprof_own;

/* Domains that need the GIL share one gap, which is cheaper to reach. Interpreters with GILs of their own may
 * lose each other some bytes. */
extern pyprof_gap pyprof_shared_gap;

extern uint32_t pyprof_gap_epoch; /* atomic: changes with the period */

typedef struct {
    const void *address;
    size_t size;
    uint32_t domain; /* PYPROF_OWN_BLOCKS, or that of who reports plus one */
    bool attached;   /* for sure */
} pyprof_allocation;

/* The gap is used up by this, or it is sampled surely: then, too, another gap is as good as what was left. */
void pyprof_count_sample(pyprof_gap *gap, pyprof_allocation made);

/* Live blocks of the interpreter's allocators; those that libraries report have the domain of theirs plus
 * one. */
enum { PYPROF_OWN_BLOCKS = 0 };

/* The end of a block that may be live; and of one that may live on after all, as `settle` tells. */
void pyprof_count_end(const void *address);
bool pyprof_count_suspend(const void *address, pyprof_suspended *suspended);
void pyprof_count_settle(const pyprof_suspended *suspended, bool lives_on);

/* Takes a live block's trace from tracemalloc. */
void pyprof_untrack(uint32_t domain, const void *address);

/* What tracemalloc calls the domain of a live block. */
unsigned int pyprof_domain_of(uint32_t domain);

/* PyTraceMalloc_Track and _Untrack for those who allocate without the interpreter's allocators. */
int pyprof_count_track(unsigned int domain, uintptr_t address, size_t size);
int pyprof_count_untrack(unsigned int domain, uintptr_t address);

/* Whether the heap is told; and whether tracemalloc is, too, of what the heap keeps, changed while it is not.
 */
void pyprof_counting_set_active(bool value);
void pyprof_counting_set_traced(bool value);
bool pyprof_counting_is_traced(void);

/* The gaps that are under way are drawn anew. */
void pyprof_counting_period_changed(void);

/* Interpreters with GILs of their own may have left a gap that does not end. */
void pyprof_counting_look_after_gap(double period);

static inline int64_t pyprof_left_of(const pyprof_gap *gap) {
    return __atomic_load_n(&gap->left, __ATOMIC_RELAXED);
}

static inline void pyprof_set_left(pyprof_gap *gap, int64_t left) {
    __atomic_store_n(&gap->left, left, __ATOMIC_RELAXED);
}

/* The calling thread's gap; one of another period is no good any more. */
static inline pyprof_gap *pyprof_own_gap(void) {
    const uint32_t now = __atomic_load_n(&pyprof_gap_epoch, __ATOMIC_RELAXED);
    if (__builtin_expect(pyprof_own.epoch != now, 0)) {
        pyprof_own.epoch = now;
        pyprof_own.gap = (pyprof_gap){0};
    }
    return &pyprof_own.gap;
}

static inline pyprof_gap *pyprof_gap_of(PyMemAllocatorDomain domain) {
    return PYPROF_OBJECTS_NEED_GIL && domain != PYMEM_DOMAIN_RAW ? &pyprof_shared_gap : pyprof_own_gap();
}

/* Takes so many bytes from the gap; false: it is used up, and they are to be told to `count_sample`. */
static inline bool pyprof_gap_holds(pyprof_gap *gap, size_t size) {
    const int64_t left = pyprof_left_of(gap) - (int64_t)size;
    pyprof_set_left(gap, left);
    return left >= 0;
}

static inline void pyprof_count_in(pyprof_gap *gap, pyprof_allocation made) {
    const size_t most = INT64_MAX / 4;
    made.size = made.size == 0 ? 1 : made.size < most ? made.size : most;
    const bool holds = pyprof_gap_holds(gap, made.size);
    if (__builtin_expect(!holds || pyprof_is_surely_sampled(made.size, gap->period), 0)) {
        pyprof_count_sample(gap, made);
    }
}

static inline void pyprof_count_block(PyMemAllocatorDomain domain, const void *address, size_t size) {
    pyprof_count_in(pyprof_gap_of(domain), (pyprof_allocation){address, size, 0, domain != PYMEM_DOMAIN_RAW});
}

#endif
