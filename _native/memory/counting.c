/* See counting.h. */
#ifndef PYPROF_PORTABLE
#include <Python.h> /* before all others: it says what the system's headers shall show */

#include "memory/counting.h"

#include "cpython/interpreter.h"
#include "cpython/traces.h"
#include "sampling/own_threads.h"

PYPROF_IN_EACH_THREAD pyprof_counting pyprof_own;
pyprof_gap pyprof_shared_gap;
uint32_t pyprof_gap_epoch;

static bool active; /* atomic */
static bool traced;

void pyprof_counting_set_active(bool value) { __atomic_store_n(&active, value, __ATOMIC_RELEASE); }

static bool is_active(void) { return __atomic_load_n(&active, __ATOMIC_RELAXED); }

void pyprof_counting_set_traced(bool value) { traced = value; }

bool pyprof_counting_is_traced(void) { return traced; }

void pyprof_counting_period_changed(void) {
    __atomic_add_fetch(&pyprof_gap_epoch, 1, __ATOMIC_RELEASE);
    pyprof_shared_gap.period = 0;
    pyprof_set_left(&pyprof_shared_gap, 0);
}

void pyprof_count_sample(pyprof_gap *gap, pyprof_allocation made) {
    if (pyprof_own.canary != NULL) {
        *pyprof_own.canary = true;
        return;
    }
    if (gap->period == 0) {
        pyprof_heap_draw(gap);
        pyprof_set_left(gap, pyprof_left_of(gap) - (int64_t)made.size);
        if (pyprof_left_of(gap) >= 0 && !pyprof_is_surely_sampled(made.size, gap->period)) {
            return;
        }
    }
    if (is_active() && !pyprof_own_thread_calls()) {
        PyThreadState *thread = pyprof_attached_thread(made.attached);
        const bool kept = pyprof_heap_sample(gap, made.address, made.size, made.domain, thread);
        if (kept && traced && thread != NULL && pyprof_may_track()) {
            PyTraceMalloc_Track(pyprof_domain_of(made.domain), (uintptr_t)made.address, made.size);
        }
    } else {
        pyprof_heap_draw(gap);
    }
}

unsigned int pyprof_domain_of(uint32_t domain) { return domain == PYPROF_OWN_BLOCKS ? 0 : domain - 1; }

static uint32_t reported(unsigned int domain) { return domain + 1; }

/* A trace that stays is shown nowhere, and goes with the next one of its address. */
void pyprof_untrack(uint32_t domain, const void *address) {
    if (pyprof_may_track()) {
        PyTraceMalloc_Untrack(pyprof_domain_of(domain), (uintptr_t)address);
    }
}

void pyprof_count_end(const void *address) {
    if (pyprof_heap_remove(address, PYPROF_OWN_BLOCKS) && traced) {
        pyprof_untrack(PYPROF_OWN_BLOCKS, address);
    }
}

bool pyprof_count_suspend(const void *address, pyprof_suspended *suspended) {
    const bool was_live = pyprof_heap_suspend(address, PYPROF_OWN_BLOCKS, suspended);
    if (was_live && traced) {
        pyprof_untrack(PYPROF_OWN_BLOCKS, address);
    }
    return was_live;
}

void pyprof_count_settle(const pyprof_suspended *suspended, bool lives_on) {
    pyprof_heap_settle(suspended, lives_on);
    const pyprof_live_block *block = &suspended->block;
    if (lives_on && traced && pyprof_attached_thread(false) != NULL && pyprof_may_track()) {
        PyTraceMalloc_Track(0, (uintptr_t)block->address, block->size);
    }
}

/* A library that hands a block of RAW on to a domain of its own takes it out of the interpreter's, which is
 * not its end: so only what was reported ends here. */
static void end_track(unsigned int domain, const void *address) {
    if (pyprof_may_be_live(address)) {
        pyprof_heap_remove(address, reported(domain));
    }
}

int pyprof_count_track(unsigned int domain, uintptr_t address, size_t size) {
    const int result = traced ? 0 : PyTraceMalloc_Track(domain, address, size);
    const void *block = (const void *)address;
    if (block != pyprof_own.newest_raw && is_active()) {
        end_track(domain, block); /* its size has changed */
        pyprof_count_in(pyprof_own_gap(), (pyprof_allocation){block, size, reported(domain), false});
    }
    return result;
}

int pyprof_count_untrack(unsigned int domain, uintptr_t address) {
    end_track(domain, (const void *)address);
    return PyTraceMalloc_Untrack(domain, address);
}

/* Longer ones are drawn once in 10^27 times. */
enum { LONGEST_GAP = 64 };

void pyprof_counting_look_after_gap(double period) {
    if ((double)pyprof_left_of(&pyprof_shared_gap) > LONGEST_GAP * period) {
        pyprof_shared_gap.period = 0;
        pyprof_set_left(&pyprof_shared_gap, 0);
    }
}

#endif
