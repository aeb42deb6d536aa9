/* See heap.h. */
#ifndef PYPROF_PORTABLE
#include "memory/heap.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cpython/interpreter.h"
#include "memory/heap_state.h"
#include "random.h"
#include "sampling/clocks.h"

pyprof_heap pyprof_the_heap = {.lock = PTHREAD_MUTEX_INITIALIZER, .reporting = PTHREAD_MUTEX_INITIALIZER};

/* -- what is in use -- */

static double weight_of(size_t size, double period) {
    return pyprof_is_surely_sampled(size, period) ? 1 : -1 / expm1(-(double)size / period);
}

static pyprof_allocated weigh(const pyprof_live_block *block) {
    return (pyprof_allocated){block->weight, (double)block->weight * (double)block->size};
}

static void subtract(pyprof_allocated *sum, pyprof_allocated some) {
    sum->objects -= some.objects;
    sum->bytes -= some.bytes;
}

/* A site that has not changed since the peak has still what it had then. */
static void keep_for_peak(pyprof_site *site) {
    if (site->peak != pyprof_the_heap.peak) {
        site->peak = pyprof_the_heap.peak;
        site->at_peak = site->inuse;
    }
}

static void note_size(void) {
    if (pyprof_the_heap.inuse_bytes > pyprof_the_heap.peak_bytes) {
        pyprof_the_heap.peak_bytes = pyprof_the_heap.inuse_bytes;
        pyprof_the_heap.peak++;
    }
    if (pyprof_the_heap.grown != NULL && pyprof_the_heap.inuse_bytes > pyprof_the_heap.next_growth) {
        pyprof_the_heap.next_growth = pyprof_the_heap.inuse_bytes + pyprof_the_heap.growth;
        pyprof_the_heap.grown();
    } else if (pyprof_the_heap.inuse_bytes < pyprof_the_heap.next_growth - 2 * pyprof_the_heap.growth) {
        pyprof_the_heap.next_growth = pyprof_the_heap.inuse_bytes + pyprof_the_heap.growth;
    }
}

static void begin_use(const pyprof_live_block *block) {
    const pyprof_allocated weighed = weigh(block);
    keep_for_peak(block->site);
    pyprof_allocated_add(&block->site->inuse, weighed);
    block->site->live++;
    pyprof_the_heap.inuse_bytes += weighed.bytes;
}

static void end_use(const pyprof_live_block *block) {
    const pyprof_allocated weighed = weigh(block);
    keep_for_peak(block->site);
    subtract(&block->site->inuse, weighed);
    pyprof_the_heap.inuse_bytes -= weighed.bytes;
    if (--block->site->live == 0) {
        block->site->inuse = (pyprof_allocated){0}; /* and not what rounding has left */
    }
    if (pyprof_the_heap.live.count == 0) {
        pyprof_the_heap.inuse_bytes = 0;
    }
}

/* -- the live set -- */

/* As if all had been sampled with the period of now. Those that are left out, for which there is room in
 * `left_out`, are removed afterwards: a set that is walked must not change. Until then all are counted, and
 * the others with their new weight already: nothing that could be a peak. */
static uint32_t thin_out(pyprof_live_block *left_out) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < pyprof_the_heap.live.capacity; i++) {
        pyprof_live_block *block = &pyprof_the_heap.live.blocks[i];
        if (block->address == NULL) {
            continue;
        }
        const double weight = weight_of(block->size, pyprof_the_heap.period);
        if (weight <= block->weight) {
            continue;
        }
        if (pyprof_next_uniform(&pyprof_the_heap.random) * weight > block->weight) {
            left_out[count++] = *block;
            continue;
        }
        pyprof_live_block heavier = *block;
        heavier.weight = (float)weight;
        end_use(block);
        begin_use(&heavier);
        *block = heavier;
    }
    for (uint32_t i = 0; i < count; i++) {
        pyprof_live_block removed;
        if (pyprof_live_set_remove(&pyprof_the_heap.live, left_out[i].address, &removed)) {
            end_use(&removed);
        }
    }
    return count;
}

static void make_room(void) {
    pyprof_live_block *left_out =
        pyprof_the_heap.left_out != NULL ? NULL : malloc(pyprof_the_heap.live.count * sizeof(*left_out));
    if (left_out == NULL) {
        return; /* the next sample tries again */
    }
    uint32_t count = 0;
    while (pyprof_the_heap.live.count > PYPROF_MOST_LIVE / 2 &&
           pyprof_the_heap.period < (double)(INT64_MAX / 4)) {
        pyprof_the_heap.period *= 2;
        count += thin_out(left_out + count);
    }
    pyprof_the_heap.left_out = left_out;
    pyprof_the_heap.left_out_count = count;
}

/* Unlocks, and lets go of what was left out: that may wait for who waits for the lock. */
static void unlock_and_let_go(void) {
    pyprof_live_block *left_out = pyprof_the_heap.left_out;
    const uint32_t count = pyprof_the_heap.left_out_count;
    void (*let_go)(uint32_t, const void *) = pyprof_the_heap.let_go;
    pyprof_the_heap.left_out = NULL;
    pyprof_heap_unlock();
    for (uint32_t i = 0; left_out != NULL && let_go != NULL && i < count; i++) {
        let_go(left_out[i].domain, left_out[i].address);
    }
    free(left_out);
}

static bool keep(const pyprof_live_block *block) {
    pyprof_live_block missed;
    if (pyprof_may_be_live(block->address) &&
        pyprof_live_set_remove(&pyprof_the_heap.live, block->address, &missed)) {
        end_use(&missed); /* freed by who went past the hook */
    }
    if (!pyprof_live_set_insert(&pyprof_the_heap.live, block)) {
        pyprof_the_heap.stats.unkept++;
        return false;
    }
    begin_use(block);
    note_size();
    if (pyprof_the_heap.live.count > PYPROF_MOST_LIVE) {
        make_room();
    }
    return pyprof_may_be_live(block->address);
}

/* -- samples -- */

static void draw(pyprof_gap *gap) {
    /* Not beyond what fits; a gap of 40 periods has a chance of 1 in 10^17. */
    const double bytes = -log(pyprof_next_uniform(&pyprof_the_heap.random)) * pyprof_the_heap.period;
    gap->left = bytes < (double)(INT64_MAX / 2) ? (int64_t)bytes : INT64_MAX / 2;
    gap->period = pyprof_the_heap.period;
}

void pyprof_heap_draw(pyprof_gap *gap) {
    pyprof_heap_lock();
    draw(gap);
    pyprof_heap_unlock();
}

bool pyprof_heap_sample(pyprof_gap *gap, const void *address, size_t size, uint32_t domain,
                        PyThreadState *thread) {
    bool kept = false;
    pyprof_heap_lock();
    if (pyprof_the_heap.open && address != NULL) {
        pyprof_live_block block = {
            .address = address,
            .size = size,
            .weight = (float)weight_of(size, gap->period),
            .domain = domain,
        };
        block.site =
            pyprof_sites_find(&pyprof_the_heap.sites, pyprof_the_heap.let_go == NULL ? thread : NULL);
        pyprof_the_heap.stats.samples++;
        pyprof_the_heap.stats.overflowed += block.site == pyprof_the_heap.sites.overflow;
        pyprof_site_enter_generation(block.site);
        pyprof_allocated_add(&block.site->allocated, weigh(&block));
        kept = keep(&block);
    }
    draw(gap);
    unlock_and_let_go();
    return kept;
}

static bool remove_live(const void *address, uint32_t domain, pyprof_live_block *block) {
    if (!pyprof_live_set_remove(&pyprof_the_heap.live, address, block)) {
        return false;
    }
    if (block->domain != domain) { /* another one of the same number; the room that it had is still there */
        pyprof_live_set_insert(&pyprof_the_heap.live, block);
        return false;
    }
    end_use(block);
    return true;
}

bool pyprof_heap_remove(const void *address, uint32_t domain) {
    pyprof_live_block block;
    pyprof_heap_lock();
    const bool found = remove_live(address, domain, &block);
    pyprof_heap_unlock();
    return found;
}

bool pyprof_heap_suspend(const void *address, uint32_t domain, pyprof_suspended *suspended) {
    pyprof_heap_lock();
    const bool found = remove_live(address, domain, &suspended->block);
    if (found) {
        suspended->block.site->live++; /* it is not idle */
        suspended->era = pyprof_the_heap.era;
    }
    pyprof_heap_unlock();
    return found;
}

void pyprof_heap_settle(const pyprof_suspended *suspended, bool lives_on) {
    pyprof_heap_lock();
    if (pyprof_the_heap.open && suspended->era == pyprof_the_heap.era) {
        suspended->block.site->live--;
        if (lives_on) {
            keep(&suspended->block);
        }
    }
    unlock_and_let_go();
}

/* -- life -- */

static void forget_dead_code(PyCodeObject *code) {
    pyprof_heap_lock();
    if (pyprof_the_heap.open) {
        pyprof_known_code_forget(&pyprof_the_heap.sites.code, &pyprof_the_heap.sites.budget, code);
    }
    pyprof_heap_unlock();
}

static void reset_child(void) {
    pthread_mutex_init(&pyprof_the_heap.lock, NULL);
    pthread_mutex_init(&pyprof_the_heap.reporting, NULL); /* who held it does not exist here */
    pyprof_the_heap.generation++;
    pyprof_the_heap.random ^= (uint64_t)pyprof_own_tid() << 32 ^ (uint64_t)pyprof_monotonic_ns();
    pyprof_the_heap.peak_bytes = pyprof_the_heap.inuse_bytes;
    pyprof_the_heap.peak++;
    pyprof_the_heap.stats = (pyprof_heap_stats){0};
}

static void forget_live(void) {
    for (uint32_t i = 0; i < pyprof_the_heap.sites.count; i++) {
        pyprof_site *site = pyprof_the_heap.sites.sites[i];
        keep_for_peak(site);
        site->inuse = (pyprof_allocated){0};
        site->live = 0;
    }
    pyprof_the_heap.inuse_bytes = 0;
    pyprof_the_heap.next_growth = pyprof_the_heap.growth;
    pyprof_the_heap.era++;
    pyprof_live_set_free(&pyprof_the_heap.live);
}

bool pyprof_heap_open(const pyprof_heap_options *options) {
    if (!pyprof_the_heap.watches_forks) {
        pyprof_the_heap.watches_forks =
            pthread_atfork(pyprof_heap_lock, pyprof_heap_unlock, reset_child) == 0;
    }
    pyprof_heap_lock();
    if (!pyprof_the_heap.open &&
        pyprof_sites_open(&pyprof_the_heap.sites, options->max_bytes, options->max_frames)) {
        pyprof_the_heap.open = true;
        pyprof_the_heap.period = pyprof_the_heap.wanted_period = options->period;
        pyprof_the_heap.let_go = options->let_go;
        pyprof_the_heap.random =
            (uint64_t)pyprof_monotonic_ns() ^ pyprof_own_tid() << 40 ^ (uintptr_t)&options;
        pyprof_the_heap.inuse_bytes = pyprof_the_heap.peak_bytes = 0;
        pyprof_the_heap.next_growth = pyprof_the_heap.growth;
        pyprof_the_heap.peak++;
    }
    const bool open = pyprof_the_heap.open;
    pyprof_heap_unlock();
    if (open) {
        pyprof_watch_code_deaths(forget_dead_code);
    }
    return open;
}

void pyprof_heap_close(void) {
    pyprof_unwatch_code_deaths(forget_dead_code);
    pthread_mutex_lock(&pyprof_the_heap.reporting);
    pyprof_heap_lock();
    if (pyprof_the_heap.open) {
        pyprof_the_heap.open = false;
        pyprof_the_heap.era++;
        pyprof_live_set_free(&pyprof_the_heap.live);
        pyprof_sites_close(&pyprof_the_heap.sites);
        pyprof_the_heap.inuse_bytes = 0;
    }
    pyprof_heap_unlock();
    pthread_mutex_unlock(&pyprof_the_heap.reporting);
}

void pyprof_heap_forget(void) {
    pyprof_heap_lock();
    pyprof_the_heap.stats.gaps++;
    forget_live();
    pyprof_heap_unlock();
}

bool pyprof_heap_is_open(void) { return __atomic_load_n(&pyprof_the_heap.open, __ATOMIC_RELAXED); }

bool pyprof_heap_set_period(double period) {
    pyprof_heap_lock();
    const bool changes = period != pyprof_the_heap.wanted_period;
    if (changes) {
        pyprof_the_heap.period = pyprof_the_heap.wanted_period = period;
    }
    pyprof_heap_unlock();
    return changes;
}

void pyprof_heap_watch_growth(void (*callback)(void), double bytes) {
    pyprof_heap_lock();
    pyprof_the_heap.grown = callback;
    pyprof_the_heap.growth = bytes;
    pyprof_the_heap.next_growth = pyprof_the_heap.inuse_bytes + bytes;
    pyprof_heap_unlock();
}

#endif
