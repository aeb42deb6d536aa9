/* See known_calls.h. */
#include "cpython/version.h"

#include "cpython/known_calls.h"
#include "cpython/live_stacks.h"

#include <string.h>

#if PYPROF_KNOWN_LAYOUT

/* Calls that were seen, each with how often; CERTAIN is certain. A call that did not seem to move may be a
 * mix of two moments all the same, but hardly the first that is seen at its place, so that one counts
 * threefold: an entry for the place, without a function, tells that there was one. Where there is no room the
 * older ones go, and are learned again. */
enum { CALL_SETS = 8192, CALLS_A_SET = 4 };
#define CERTAIN UINT64_C(3)
#define FIRST (CERTAIN - 1)

typedef struct {
    uint64_t calls[CALL_SETS][CALLS_A_SET];
} call_table;

static call_table known_calls;

static uint64_t mix(uint64_t z) { /* splitmix64's */
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Without its count; 0 is no call. */
static uint64_t call_of(const pyprof_code_frame *caller, const void *callee) {
    uint64_t call = mix((uintptr_t)caller->code + (uint64_t)(uint32_t)caller->lasti);
    call = mix(call + (uintptr_t)callee);
    return call <= CERTAIN ? CERTAIN + 1 : call & ~CERTAIN;
}

static uint64_t *set_of(uint64_t call) { return known_calls.calls[call / (CERTAIN + 1) % CALL_SETS]; }

static uint64_t *place_of(uint64_t call) {
    uint64_t *set = set_of(call);
    for (size_t i = 0; i < CALLS_A_SET; i++) {
        if ((set[i] & ~CERTAIN) == call) {
            return &set[i];
        }
    }
    return NULL;
}

static void add(uint64_t call, uint64_t times) {
    uint64_t *set = set_of(call);
    memmove(set + 1, set, (CALLS_A_SET - 1) * sizeof(*set));
    set[0] = call | times;
}

static void learn(const pyprof_code_frame *caller, const pyprof_code_frame *callee, bool is_certain) {
    const uint64_t call = call_of(caller, callee->code), site = call_of(caller, NULL);
    uint64_t *known = place_of(call);
    if (known != NULL) {
        *known = call | (is_certain ? CERTAIN : *known % (CERTAIN + 1) + (*known % (CERTAIN + 1) < CERTAIN));
        return;
    }
    const bool is_first = place_of(site) == NULL;
    if (is_first && !is_certain) {
        add(site, CERTAIN);
    }
    add(call, is_certain ? CERTAIN : is_first ? FIRST : 0);
}

void pyprof_live_learn_calls(const pyprof_code_frame *frames, size_t depth, bool is_certain) {
    for (size_t i = 1; i < depth; i++) {
        learn(&frames[i], &frames[i - 1], is_certain);
    }
}

bool pyprof_is_known_call(const pyprof_code_frame *caller, const pyprof_code_frame *callee) {
    const uint64_t call = call_of(caller, callee->code);
    const uint64_t *known = place_of(call);
    return known != NULL && *known == (call | CERTAIN);
}

#else

void pyprof_live_learn_calls(const pyprof_code_frame *frames, size_t depth, bool is_certain) {
    (void)frames, (void)depth, (void)is_certain;
}

#endif
