/* See allocator_hook.h. */
#ifndef PYPROF_PORTABLE
#include <Python.h> /* before all others: it says what the system's headers shall show */

#include "memory/allocator_hook.h"

#include <stdint.h>

#include "cpython/allocators.h"
#include "cpython/interpreter.h"
#include "cpython/traces.h"
#include "sampling/own_threads.h"

enum { DOMAINS = 3, SETS = 8, NO_SET = -1 };

/* The set that passes on to CPython's own functions. */
enum { LOWEST = 0, FIRST_LAYERED = 1 };

/* Blocks of the domains OBJ and MEM that are larger than 512 bytes, with what debug hooks add, come from RAW,
 * and so do those of no size. */
enum { SURELY_NOT_FROM_RAW = 400 };

/* What each set of functions passes on to, for good. */
static PyMemAllocatorEx below[SETS][DOMAINS];
static int used[DOMAINS] = {FIRST_LAYERED, FIRST_LAYERED,
                            FIRST_LAYERED}; /* of the layered ones, up to here */
static bool is_cut[SETS];                   /* atomic: layered, but passes on to CPython's own now */
static bool active;                         /* atomic: the heap is to be told */
static bool traced;                         /* tracemalloc is told, too, of what the heap keeps */
static uint32_t epoch;                      /* atomic: changes with the period */

/* What one asks the function below for; `times`: how often it has come by meanwhile. */
typedef struct {
    PyMemAllocatorDomain domain;
    const void *old;
    size_t size;
    uint32_t times;
} request;

/* What each thread has of its own. */
static _Thread_local struct {
    pyprof_gap gap;
    uint32_t epoch;
    bool is_inside;         /* what is asked of RAW now is counted already */
    request passing;        /* what a layered set passes on now */
    const void *newest_raw; /* the last block of RAW: a library may report it again */
    bool *canary;           /* where to note that an allocation came by */
} own;

/* Domains that need the GIL share one gap, which is cheaper to reach. Interpreters with GILs of their own may
 * lose each other some bytes. */
static pyprof_gap shared;

static inline int64_t left_of(const pyprof_gap *gap) { return __atomic_load_n(&gap->left, __ATOMIC_RELAXED); }

static inline void set_left(pyprof_gap *gap, int64_t left) {
    __atomic_store_n(&gap->left, left, __ATOMIC_RELAXED);
}

static inline bool uses_shared(PyMemAllocatorDomain domain) {
    return PYPROF_OBJECTS_NEED_GIL && domain != PYMEM_DOMAIN_RAW;
}

/* -- counting -- */

typedef struct {
    const void *address;
    size_t size;
    unsigned int track_domain;
    bool attached; /* for sure */
} allocation;

static __attribute__((noinline)) void use_up(pyprof_gap *gap, allocation made) {
    if (own.canary != NULL) {
        *own.canary = true;
        return;
    }
    if (gap->period == 0) {
        pyprof_heap_draw(gap);
        set_left(gap, left_of(gap) - (int64_t)made.size);
        if (left_of(gap) >= 0) {
            return;
        }
    }
    if (__atomic_load_n(&active, __ATOMIC_RELAXED) && !pyprof_own_thread_calls()) {
        PyThreadState *thread = pyprof_attached_thread(made.attached);
        const bool kept = pyprof_heap_sample(gap, made.address, made.size, made.track_domain, thread);
        if (kept && traced && thread != NULL) {
            PyTraceMalloc_Track(made.track_domain, (uintptr_t)made.address, made.size);
        }
    } else {
        pyprof_heap_draw(gap);
    }
}

/* The end of a block that may be live: whether it was. */
static __attribute__((noinline)) bool forget(const void *address, unsigned int domain,
                                             pyprof_live_block *removed) {
    const bool was_live = pyprof_heap_remove(address, domain, removed);
    if (was_live && traced) {
        PyTraceMalloc_Untrack(domain, (uintptr_t)address);
    }
    return was_live;
}

static inline void count(pyprof_gap *gap, allocation made) {
    const size_t most = INT64_MAX / 4;
    made.size = made.size == 0 ? 1 : made.size < most ? made.size : most;
    const int64_t left = left_of(gap) - (int64_t)made.size;
    set_left(gap, left);
    if (__builtin_expect(left < 0, 0)) {
        use_up(gap, made);
    }
}

/* The calling thread's gap; one of another period is no good any more. */
static inline pyprof_gap *own_gap(void) {
    const uint32_t now = __atomic_load_n(&epoch, __ATOMIC_RELAXED);
    if (__builtin_expect(own.epoch != now, 0)) {
        own.epoch = now;
        own.gap = (pyprof_gap){0};
    }
    return &own.gap;
}

static inline void note(PyMemAllocatorDomain domain, const void *address, size_t size) {
    const allocation made = {address, size, 0, domain != PYMEM_DOMAIN_RAW};
    count(uses_shared(domain) ? &shared : own_gap(), made);
}

/* -- the functions -- */

static inline void *allocate(const PyMemAllocatorEx *next, bool zeroed, size_t count_of, size_t size) {
    return zeroed ? next->calloc(next->ctx, count_of, size) : next->malloc(next->ctx, size);
}

static inline void *hook_allocate(const PyMemAllocatorEx *next, PyMemAllocatorDomain domain, bool zeroed,
                                  size_t count_of, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count_of, size, &bytes)) {
        bytes = SIZE_MAX;
    }
    if (domain == PYMEM_DOMAIN_RAW) {
        void *address = allocate(next, zeroed, count_of, size);
        if (!own.is_inside) {
            own.newest_raw = address;
            note(domain, address, bytes);
        }
        return address;
    }
    if (__builtin_expect(bytes - 1 < SURELY_NOT_FROM_RAW, 1)) {
        void *address = allocate(next, zeroed, count_of, size);
        note(domain, address, bytes);
        return address;
    }
    const bool was_inside = own.is_inside;
    own.is_inside = true;
    void *address = allocate(next, zeroed, count_of, size);
    own.is_inside = was_inside;
    note(domain, address, bytes);
    return address;
}

/* What is asked of RAW meanwhile, new blocks and what becomes of old ones, is this. */
static inline void *hook_reallocate(const PyMemAllocatorEx *next, PyMemAllocatorDomain domain, void *old,
                                    size_t size) {
    if (domain == PYMEM_DOMAIN_RAW && own.is_inside) {
        return next->realloc(next->ctx, old, size);
    }
    pyprof_live_block removed;
    const bool was_live = old != NULL && pyprof_may_be_live(old) && forget(old, 0, &removed);
    const bool was_inside = own.is_inside;
    own.is_inside = domain != PYMEM_DOMAIN_RAW;
    void *address = next->realloc(next->ctx, old, size);
    own.is_inside = was_inside;
    if (address == NULL) {
        if (was_live) {
            pyprof_heap_restore(&removed);
        }
        return NULL;
    }
    if (domain == PYMEM_DOMAIN_RAW) {
        own.newest_raw = address;
    }
    note(domain, address, size);
    return address;
}

static inline void hook_free(const PyMemAllocatorEx *next, PyMemAllocatorDomain domain, void *address) {
    if (__builtin_expect(pyprof_may_be_live(address), 0) && address != NULL) {
        forget(address, 0, NULL);
    }
    if (domain == PYMEM_DOMAIN_RAW && own.newest_raw == address) {
        own.newest_raw = NULL;
    }
    next->free(next->ctx, address);
}

/* -- sets that were put on somebody else's functions --
 *
 * Others that put back what they found, and save what there is when they begin anew, make circles of them:
 * what comes by more often than anybody would ask for it inside itself is led in one, which ends here. And
 * only who was first counts it. */

enum { A_CIRCLE = 3 };

/* A set that is out of the chain passes on to CPython's own, too: who puts it back then does not know whether
 * what it was put on has ended. */
static void set_cut(int set, bool value) {
    if (set != LOWEST) {
        __atomic_store_n(&is_cut[set], value, __ATOMIC_RELAXED);
    }
}

static const PyMemAllocatorEx *next_of(int set, int domain) {
    const bool past = __atomic_load_n(&is_cut[set], __ATOMIC_RELAXED) && below[LOWEST][domain].malloc != NULL;
    return &below[past ? LOWEST : set][domain];
}

typedef struct {
    request before;
    pyprof_gap *gap;
    int64_t left;
    const PyMemAllocatorEx *next;
} passage;

static passage begin_passage(int set, request asked) {
    pyprof_gap *gap = uses_shared(asked.domain) ? &shared : own_gap();
    passage through = {own.passing, gap, left_of(gap), NULL};
    const bool again = own.passing.times > 0 && own.passing.domain == asked.domain &&
                       own.passing.old == asked.old && own.passing.size == asked.size;
    asked.times = again ? own.passing.times + 1 : 1;
    own.passing = asked;
    if (asked.times == A_CIRCLE) {
        set_cut(set, true);
    }
    through.next = next_of(set, asked.domain);
    set_left(gap, INT64_MAX / 2);
    return through;
}

static void end_passage(const passage *through) {
    set_left(through->gap, through->left);
    own.passing = through->before;
}

static void note_passed(PyMemAllocatorDomain domain, const void *address, size_t size) {
    if (address != NULL && (domain != PYMEM_DOMAIN_RAW || !own.is_inside)) {
        note(domain, address, size);
    }
}

static void *layered_allocate(int set, PyMemAllocatorDomain domain, bool zeroed, size_t count_of,
                              size_t size) {
    const passage through = begin_passage(set, (request){domain, NULL, count_of * size, 0});
    void *address = hook_allocate(through.next, domain, zeroed, count_of, size);
    end_passage(&through);
    note_passed(domain, address, count_of * size);
    return address;
}

static void *layered_reallocate(int set, PyMemAllocatorDomain domain, void *old, size_t size) {
    const passage through = begin_passage(set, (request){domain, old, size, 0});
    void *address = hook_reallocate(through.next, domain, old, size);
    end_passage(&through);
    note_passed(domain, address, size);
    return address;
}

static void layered_free(int set, PyMemAllocatorDomain domain, void *address) {
    const passage through = begin_passage(set, (request){domain, address, 0, 0});
    hook_free(through.next, domain, address);
    end_passage(&through);
}

/* -- all of them -- */

#define hook_next(set, domain) &below[set][domain]
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

static const PyMemAllocatorEx ours[SETS][DOMAINS] = {ALLOCATORS(0), ALLOCATORS(1), ALLOCATORS(2),
                                                     ALLOCATORS(3), ALLOCATORS(4), ALLOCATORS(5),
                                                     ALLOCATORS(6), ALLOCATORS(7)};

_Static_assert(PYMEM_DOMAIN_RAW == 0 && PYMEM_DOMAIN_MEM == 1 && PYMEM_DOMAIN_OBJ == 2,
               "domains are numbered as the macros number them");

/* -- the chain -- */

static PyMemAllocatorEx outermost(int domain) {
    PyMemAllocatorEx found;
    PyMem_GetAllocator((PyMemAllocatorDomain)domain, &found);
    return found;
}

/* The one of ours that is outermost. */
static int set_on_top(int domain) {
    const PyMemAllocatorEx found = outermost(domain);
    int set = SETS - 1;
    while (set != NO_SET && ours[set][domain].malloc != found.malloc) {
        set--;
    }
    return set;
}

/* An allocation that uses up the gap, and whether that was noticed. */
static bool comes_by(int domain) {
    static void *(*const allocate_in[DOMAINS])(size_t) = {PyMem_RawMalloc, PyMem_Malloc, PyObject_Malloc};
    static void (*const free_in[DOMAINS])(void *) = {PyMem_RawFree, PyMem_Free, PyObject_Free};
    pyprof_gap *gap = uses_shared((PyMemAllocatorDomain)domain) ? &shared : own_gap();
    const int64_t left = left_of(gap);
    bool came_by = false;
    own.canary = &came_by;
    set_left(gap, 0);
    void *address = allocate_in[domain](1);
    own.canary = NULL;
    set_left(gap, left);
    free_in[domain](address);
    return came_by || address == NULL;
}

static bool is_in_chain(int domain) { return set_on_top(domain) != NO_SET || comes_by(domain); }

static bool same(const PyMemAllocatorEx *a, const PyMemAllocatorEx *b) {
    return a->ctx == b->ctx && a->malloc == b->malloc && a->calloc == b->calloc && a->realloc == b->realloc &&
           a->free == b->free;
}

/* CPython's own need no context; a hook's says what it was put on. */
static void look_for_cpythons(int domain, const PyMemAllocatorEx *found) {
    if (found->ctx == NULL && below[LOWEST][domain].malloc == NULL) {
        below[LOWEST][domain] = *found;
    }
}

/* Functions that pass on to `next` already, or else fresh ones. */
static int choose_set(int domain, const PyMemAllocatorEx *next) {
    look_for_cpythons(domain, next);
    for (int set = 0; set < SETS; set++) {
        if (set == used[domain]) {
            below[set][domain] = *next;
            used[domain]++;
            __atomic_thread_fence(__ATOMIC_RELEASE);
            return set;
        }
        if (same(&below[set][domain], next)) {
            return set;
        }
    }
    return NO_SET;
}

/* On top of all others, passing on to `next`. */
static bool put_in(int domain, const PyMemAllocatorEx *next) {
    const int set = choose_set(domain, next);
    if (set == NO_SET) {
        return false;
    }
    set_cut(set, false);
    PyMemAllocatorEx hook = ours[set][domain];
    hook.ctx = outermost(domain).ctx;
    PyMem_SetAllocator((PyMemAllocatorDomain)domain, &hook);
    return true;
}

/* tracemalloc's own functions, which ours stand in for. */
static PyMemAllocatorEx tracers[DOMAINS];

static void take_out(int domain) {
    for (int set = set_on_top(domain); set != NO_SET; set = set_on_top(domain)) {
        PyMemAllocatorEx next = traced ? tracers[domain] : *next_of(set, domain);
        PyMem_SetAllocator((PyMemAllocatorDomain)domain, &next);
    }
}

void pyprof_allocator_hook_prepare(void) {
    for (int domain = 0; domain < DOMAINS; domain++) {
        const PyMemAllocatorEx found = outermost(domain);
        look_for_cpythons(domain, &found);
    }
}

static void set_active(bool value) { __atomic_store_n(&active, value, __ATOMIC_RELEASE); }

pyprof_hook_state pyprof_allocator_hook_install(void) {
    bool is_in[DOMAINS];
    int count_in = 0;
    for (int domain = 0; domain < DOMAINS; domain++) {
        is_in[domain] = is_in_chain(domain);
        count_in += is_in[domain];
    }
    for (int set = 0; set < SETS && count_in == 0; set++) {
        set_cut(set, true);
    }
    for (int domain = 0; domain < DOMAINS; domain++) {
        const PyMemAllocatorEx next = outermost(domain);
        if (!is_in[domain] && !put_in(domain, &next)) {
            pyprof_allocator_hook_uninstall();
            return PYPROF_HOOK_GIVES_UP;
        }
    }
    set_active(true);
    return count_in == DOMAINS ? PYPROF_HOOK_SEES : PYPROF_HOOK_WAS_CUT_OUT;
}

/* Takes the argument over. False with an error set. */
static bool call_tracemalloc(const char *name, PyObject *argument) {
    PyObject *module = PyImport_ImportModule("tracemalloc");
    PyObject *function = module == NULL ? NULL : PyObject_GetAttrString(module, name);
    PyObject *result = function == NULL ? NULL : PyObject_CallFunctionObjArgs(function, argument, NULL);
    Py_XDECREF(argument);
    Py_XDECREF(function);
    Py_XDECREF(module);
    Py_XDECREF(result);
    return result != NULL;
}

void pyprof_allocator_hook_uninstall(void) {
    set_active(false);
    for (int domain = 0; domain < DOMAINS; domain++) {
        take_out(domain);
    }
    if (traced) {
        traced = false;
        call_tracemalloc("stop", NULL);
        PyErr_Clear();
    }
}

static bool put_in_for_tracemalloc(const PyMemAllocatorEx *next) {
    for (int domain = 0; domain < DOMAINS; domain++) {
        if (!put_in(domain, &next[domain])) {
            PyErr_SetString(PyExc_RuntimeError, "other tools have hooked the allocators too often");
            return false;
        }
    }
    pyprof_stop_tracing_references();
    return call_tracemalloc("clear_traces", NULL); /* what came by while ours were not on top */
}

bool pyprof_allocator_hook_install_traced(unsigned int max_frames) {
    PyMemAllocatorEx next[DOMAINS];
    for (int domain = 0; domain < DOMAINS; domain++) {
        next[domain] = outermost(domain);
    }
    if (!call_tracemalloc("start", PyLong_FromUnsignedLong(max_frames))) {
        return false;
    }
    for (int domain = 0; domain < DOMAINS; domain++) {
        tracers[domain] = outermost(domain);
    }
    traced = true;
    if (!put_in_for_tracemalloc(next)) {
        pyprof_allocator_hook_uninstall();
        return false;
    }
    set_active(true);
    return true;
}

void pyprof_hook_let_go(uint32_t domain, const void *address) {
    PyTraceMalloc_Untrack(domain, (uintptr_t)address);
}

void pyprof_allocator_hook_period_changed(void) {
    __atomic_add_fetch(&epoch, 1, __ATOMIC_RELEASE);
    shared.period = 0;
    set_left(&shared, 0);
}

/* -- what is allocated elsewhere -- */

/* Domain 0 is the interpreter's own: its functions tell, and a library that hands a block of it on to its own
 * domain must not take it away from us. */
static void end_track(unsigned int domain, const void *address) {
    if (domain != 0 && pyprof_may_be_live(address)) {
        pyprof_heap_remove(address, domain, NULL);
    }
}

int pyprof_hook_track(unsigned int domain, uintptr_t address, size_t size) {
    const int result = traced ? 0 : PyTraceMalloc_Track(domain, address, size);
    const void *block = (const void *)address;
    if (block != own.newest_raw && __atomic_load_n(&active, __ATOMIC_RELAXED)) {
        end_track(domain, block); /* its size has changed */
        const allocation made = {block, size, domain, false};
        count(own_gap(), made);
    }
    return result;
}

int pyprof_hook_untrack(unsigned int domain, uintptr_t address) {
    end_track(domain, (const void *)address);
    return PyTraceMalloc_Untrack(domain, address);
}

#endif
