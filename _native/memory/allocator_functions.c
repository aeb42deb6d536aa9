/* See allocator_functions.h. */
#ifndef PYPROF_PORTABLE
#include <Python.h> /* before all others: it says what the system's headers shall show */

#include "memory/allocator_functions.h"

#include <math.h>
#include <stdint.h>

#include "memory/counting.h"

/* Blocks of the domains OBJ and MEM that are larger than 512 bytes, with what debug hooks add, come from RAW,
 * and so do those of no size. */
enum { SURELY_NOT_FROM_RAW = 400 };

PyMemAllocatorEx pyprof_hook_below[PYPROF_HOOK_SETS][PYPROF_HOOK_DOMAINS];
static bool is_cut[PYPROF_HOOK_SETS]; /* atomic: layered, but passes on to CPython's own now */

/* All of these are for one domain each, known when they are compiled, and must be in one piece. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE void *allocate(const PyMemAllocatorEx *next, bool zeroed, size_t count_of, size_t size) {
    return zeroed ? next->calloc(next->ctx, count_of, size) : next->malloc(next->ctx, size);
}

static __attribute__((noinline)) void *allocate_and_sample(const PyMemAllocatorEx *next, bool zeroed,
                                                           size_t count_of, size_t size, pyprof_gap *gap) {
    void *address = allocate(next, zeroed, count_of, size);
    pyprof_count_sample(gap, (pyprof_allocation){address, count_of * size, PYPROF_OWN_BLOCKS, true});
    return address;
}

ALWAYS_INLINE void *hook_allocate(const PyMemAllocatorEx *next, PyMemAllocatorDomain domain, bool zeroed,
                                  size_t count_of, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count_of, size, &bytes)) {
        bytes = SIZE_MAX;
    }
    if (domain == PYMEM_DOMAIN_RAW) {
        void *address = allocate(next, zeroed, count_of, size);
        if (!pyprof_own.is_inside) {
            pyprof_own.newest_raw = address;
            pyprof_count_block(domain, address, bytes);
        }
        return address;
    }
    if (__builtin_expect(bytes - 1 < SURELY_NOT_FROM_RAW, 1)) {
        /* Counted before: then nothing is left to do after it, and it can be jumped to. */
        pyprof_gap *gap = pyprof_gap_of(domain);
        if (__builtin_expect(pyprof_gap_holds(gap, bytes), 1)) {
            return allocate(next, zeroed, count_of, size);
        }
        return allocate_and_sample(next, zeroed, count_of, size, gap);
    }
    const bool was_inside = pyprof_own.is_inside;
    pyprof_own.is_inside = true;
    void *address = allocate(next, zeroed, count_of, size);
    pyprof_own.is_inside = was_inside;
    pyprof_count_block(domain, address, bytes);
    return address;
}

/* What is asked of RAW meanwhile, new blocks and what becomes of old ones, is this. */
ALWAYS_INLINE void *hook_reallocate(const PyMemAllocatorEx *next, PyMemAllocatorDomain domain, void *old,
                                    size_t size) {
    if (domain == PYMEM_DOMAIN_RAW && pyprof_own.is_inside) {
        return next->realloc(next->ctx, old, size);
    }
    pyprof_suspended suspended;
    const bool was_live = old != NULL && pyprof_may_be_live(old) && pyprof_count_suspend(old, &suspended);
    const bool was_inside = pyprof_own.is_inside;
    pyprof_own.is_inside = domain != PYMEM_DOMAIN_RAW;
    void *address = next->realloc(next->ctx, old, size);
    pyprof_own.is_inside = was_inside;
    if (was_live) {
        pyprof_count_settle(&suspended, address == NULL);
    }
    if (address == NULL) {
        return NULL;
    }
    if (domain == PYMEM_DOMAIN_RAW) {
        pyprof_own.newest_raw = address;
    }
    pyprof_count_block(domain, address, size);
    return address;
}

ALWAYS_INLINE void hook_free(const PyMemAllocatorEx *next, PyMemAllocatorDomain domain, void *address) {
    if (__builtin_expect(pyprof_may_be_live(address), 0) && address != NULL) {
        pyprof_count_end(address);
    }
    if (domain == PYMEM_DOMAIN_RAW && pyprof_own.newest_raw == address) {
        pyprof_own.newest_raw = NULL;
    }
    next->free(next->ctx, address);
}

/* -- sets that were put on somebody else's functions --
 *
 * Others that put back what they found, and save what there is when they begin anew, make circles of them:
 * what comes by more often than anybody would ask for it inside itself is led in one, which ends here. And
 * only who was first counts it. */

enum { A_CIRCLE = 3 };

void pyprof_hook_set_cut(int set, bool value) {
    if (set != PYPROF_HOOK_LOWEST) {
        __atomic_store_n(&is_cut[set], value, __ATOMIC_RELAXED);
    }
}

const PyMemAllocatorEx *pyprof_hook_next_of(int set, int domain) {
    const bool past = __atomic_load_n(&is_cut[set], __ATOMIC_RELAXED) &&
                      pyprof_hook_below[PYPROF_HOOK_LOWEST][domain].malloc != NULL;
    return &pyprof_hook_below[past ? PYPROF_HOOK_LOWEST : set][domain];
}

typedef struct {
    pyprof_request before;
    pyprof_gap *gap, had;
    const PyMemAllocatorEx *next;
} passage;

static passage begin_passage(int set, pyprof_request asked) {
    pyprof_gap *gap = pyprof_gap_of(asked.domain);
    passage through = {pyprof_own.passing, gap, {pyprof_left_of(gap), gap->period}, NULL};
    const bool again = pyprof_own.passing.times > 0 && pyprof_own.passing.domain == asked.domain &&
                       pyprof_own.passing.old == asked.old && pyprof_own.passing.size == asked.size;
    asked.times = again ? pyprof_own.passing.times + 1 : 1;
    pyprof_own.passing = asked;
    if (asked.times == A_CIRCLE) {
        pyprof_hook_set_cut(set, true);
    }
    through.next = pyprof_hook_next_of(set, asked.domain);
    gap->period = HUGE_VAL;
    pyprof_set_left(gap, INT64_MAX / 2);
    return through;
}

static void end_passage(const passage *through) {
    through->gap->period = through->had.period;
    pyprof_set_left(through->gap, through->had.left);
    pyprof_own.passing = through->before;
}

static void note_passed(PyMemAllocatorDomain domain, const void *address, size_t size) {
    if (address != NULL && (domain != PYMEM_DOMAIN_RAW || !pyprof_own.is_inside)) {
        pyprof_count_block(domain, address, size);
    }
}

static void *layered_allocate(int set, PyMemAllocatorDomain domain, bool zeroed, size_t count_of,
                              size_t size) {
    const passage through = begin_passage(set, (pyprof_request){domain, NULL, count_of * size, 0});
    void *address = hook_allocate(through.next, domain, zeroed, count_of, size);
    end_passage(&through);
    note_passed(domain, address, count_of * size);
    return address;
}

static void *layered_reallocate(int set, PyMemAllocatorDomain domain, void *old, size_t size) {
    const passage through = begin_passage(set, (pyprof_request){domain, old, size, 0});
    void *address = hook_reallocate(through.next, domain, old, size);
    end_passage(&through);
    note_passed(domain, address, size);
    return address;
}

static void layered_free(int set, PyMemAllocatorDomain domain, void *address) {
    const passage through = begin_passage(set, (pyprof_request){domain, address, 0, 0});
    hook_free(through.next, domain, address);
    end_passage(&through);
}

/* -- all of them -- */

#define hook_next(set, domain) &pyprof_hook_below[set][domain]
#define layered_next(set, domain) set

#define FUNCTIONS(kind, set, domain)                                                                         \
    static void *malloc_##set##_##domain(void *Py_UNUSED(context), size_t size) {                            \
        return kind##_allocate(kind##_next(set, domain), (PyMemAllocatorDomain)domain, false, 1, size);      \
    }                                                                                                        \
    static void *calloc_##set##_##domain(void *Py_UNUSED(context), size_t count_of, size_t size) {           \
        return kind##_allocate(kind##_next(set, domain), (PyMemAllocatorDomain)domain, true, count_of,       \
                               size);                                                                        \
    }                                                                                                        \
    static void *realloc_##set##_##domain(void *Py_UNUSED(context), void *old, size_t size) {                \
        return kind##_reallocate(kind##_next(set, domain), (PyMemAllocatorDomain)domain, old, size);         \
    }                                                                                                        \
    static void free_##set##_##domain(void *Py_UNUSED(context), void *address) {                             \
        kind##_free(kind##_next(set, domain), (PyMemAllocatorDomain)domain, address);                        \
    }

#define FUNCTIONS_OF(kind, set) FUNCTIONS(kind, set, 0) FUNCTIONS(kind, set, 1) FUNCTIONS(kind, set, 2)

FUNCTIONS_OF(hook, 0)
FUNCTIONS_OF(layered, 1)
FUNCTIONS_OF(layered, 2)
FUNCTIONS_OF(layered, 3)
FUNCTIONS_OF(layered, 4)
FUNCTIONS_OF(layered, 5)
FUNCTIONS_OF(layered, 6)
FUNCTIONS_OF(layered, 7)

#define ALLOCATOR(set, domain)                                                                               \
    {                                                                                                        \
        NULL, malloc_##set##_##domain, calloc_##set##_##domain, realloc_##set##_##domain,                    \
            free_##set##_##domain                                                                            \
    }
#define ALLOCATORS(set)                                                                                      \
    { ALLOCATOR(set, 0), ALLOCATOR(set, 1), ALLOCATOR(set, 2) }

const PyMemAllocatorEx pyprof_hook_functions[PYPROF_HOOK_SETS][PYPROF_HOOK_DOMAINS] = {
    ALLOCATORS(0), ALLOCATORS(1), ALLOCATORS(2), ALLOCATORS(3),
    ALLOCATORS(4), ALLOCATORS(5), ALLOCATORS(6), ALLOCATORS(7)};

_Static_assert(PYMEM_DOMAIN_RAW == 0 && PYMEM_DOMAIN_MEM == 1 && PYMEM_DOMAIN_OBJ == 2,
               "domains are numbered as the macros number them");

#endif
