/* See known_calls.h. */
#include "cpython/version.h"

#include "cpython/known_calls.h"
#include "cpython/live_stacks.h"

#include <string.h>

#if PYPROF_KNOWN_LAYOUT

/* Calls that were seen, each with a bit: for certain, or twice. Where there is no room the older ones go, and
 * are learned again. */
enum { CALL_SETS = 8192, CALLS_A_SET = 4 };
#define CERTAIN UINT64_C(1)

typedef struct {
    uint64_t calls[CALL_SETS][CALLS_A_SET];
} call_table;

static call_table known_calls;

static uint64_t mix(uint64_t z) { /* splitmix64's */
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint64_t call_between(const pyprof_code_frame *caller, const pyprof_code_frame *callee) {
    uint64_t call = mix((uintptr_t)caller->code + (uint64_t)(uint32_t)caller->lasti);
    return mix(call + (uintptr_t)callee->code) | CERTAIN; /* 0 is no call */
}

static uint64_t *place_of(uint64_t call) {
    uint64_t *set = known_calls.calls[call / 2 % CALL_SETS];
    for (size_t i = 0; i < CALLS_A_SET; i++) {
        if ((set[i] | CERTAIN) == call) {
            return &set[i];
        }
    }
    return NULL;
}

void pyprof_live_learn_calls(const pyprof_code_frame *frames, size_t depth, bool is_certain) {
    for (size_t i = 1; i < depth; i++) {
        const uint64_t call = call_between(&frames[i], &frames[i - 1]);
        uint64_t *place = place_of(call);
        if (place != NULL) {
            *place = call;
        } else {
            uint64_t *set = known_calls.calls[call / 2 % CALL_SETS];
            memmove(set + 1, set, (CALLS_A_SET - 1) * sizeof(*set));
            set[0] = is_certain ? call : call & ~CERTAIN;
        }
    }
}

bool pyprof_is_known_call(const pyprof_code_frame *caller, const pyprof_code_frame *callee) {
    const uint64_t call = call_between(caller, callee);
    const uint64_t *place = place_of(call);
    return place != NULL && *place == call;
}

#else

void pyprof_live_learn_calls(const pyprof_code_frame *frames, size_t depth, bool is_certain) {
    (void)frames, (void)depth, (void)is_certain;
}

#endif
