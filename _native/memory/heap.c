/* See heap.h. */
#ifndef PYPROF_PORTABLE
#include "memory/heap.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cpython/interpreter.h"
#include "memory/sites.h"
#include "random.h"
#include "sampling/clocks.h"

enum { MOST_LIVE = 16384, MOST_SITES_AT_ONCE = 256 };

static struct {
    pthread_mutex_t lock, reporting; /* `reporting` is taken first; sites go away only under both */
    bool open;
    bool watches_forks;
    double period, wanted_period;
    void (*let_go)(uint32_t domain, const void *address);
    uint64_t random;
    uint32_t generation;         /* changes with the process */
    uint64_t era;                /* changes where what lives is forgotten */
    pyprof_live_block *left_out; /* by the last thinning, and not let go of yet */
    uint32_t left_out_count;
    uint64_t peak; /* which one is the largest so far */
    pyprof_sites sites;
    pyprof_live_set live;
    double inuse_bytes, peak_bytes;
    void (*grown)(void);
    double growth, next_growth;
    pyprof_heap_stats stats; /* the counters of it */
} heap = {.lock = PTHREAD_MUTEX_INITIALIZER, .reporting = PTHREAD_MUTEX_INITIALIZER};

static void lock(void) { pthread_mutex_lock(&heap.lock); }

static void unlock(void) { pthread_mutex_unlock(&heap.lock); }

/* -- what a site has -- */

static double weight_of(size_t size, double period) { return -1 / expm1(-(double)size / period); }

static pyprof_allocated weigh(const pyprof_live_block *block) {
    return (pyprof_allocated){block->weight, (double)block->weight * (double)block->size};
}

static void add(pyprof_allocated *sum, pyprof_allocated some) {
    sum->objects += some.objects;
    sum->bytes += some.bytes;
}

static void subtract(pyprof_allocated *sum, pyprof_allocated some) {
    sum->objects -= some.objects;
    sum->bytes -= some.bytes;
}

/* What was allocated before a fork is the parent's. */
static void enter_generation(pyprof_site *site) {
    if (site->generation != heap.generation) {
        site->generation = heap.generation;
        site->allocated = site->reported = (pyprof_allocated){0};
    }
}

/* A site that has not changed since the peak has still what it had then. */
static void keep_for_peak(pyprof_site *site) {
    if (site->peak != heap.peak) {
        site->peak = heap.peak;
        site->at_peak = site->inuse;
    }
}

static pyprof_allocated at_peak(const pyprof_site *site) {
    return site->peak == heap.peak ? site->at_peak : site->inuse;
}

static void note_size(void) {
    if (heap.inuse_bytes > heap.peak_bytes) {
        heap.peak_bytes = heap.inuse_bytes;
        heap.peak++;
    }
    if (heap.grown != NULL && heap.inuse_bytes > heap.next_growth) {
        heap.next_growth = heap.inuse_bytes + heap.growth;
        heap.grown();
    } else if (heap.inuse_bytes < heap.next_growth - 2 * heap.growth) {
        heap.next_growth = heap.inuse_bytes + heap.growth;
    }
}

static void begin_use(const pyprof_live_block *block) {
    const pyprof_allocated weighed = weigh(block);
    keep_for_peak(block->site);
    add(&block->site->inuse, weighed);
    block->site->live++;
    heap.inuse_bytes += weighed.bytes;
}

static void end_use(const pyprof_live_block *block) {
    const pyprof_allocated weighed = weigh(block);
    keep_for_peak(block->site);
    subtract(&block->site->inuse, weighed);
    heap.inuse_bytes -= weighed.bytes;
    if (--block->site->live == 0) {
        block->site->inuse = (pyprof_allocated){0}; /* and not what rounding has left */
    }
    if (heap.live.count == 0) {
        heap.inuse_bytes = 0;
    }
}

/* -- the live set -- */

/* As if all had been sampled with the period of now. Those that are left out, for which there is room in
 * `left_out`, are removed afterwards: a set that is walked must not change. Until then all are counted, and
 * the others with their new weight already: nothing that could be a peak. */
static uint32_t thin_out(pyprof_live_block *left_out) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < heap.live.capacity; i++) {
        pyprof_live_block *block = &heap.live.blocks[i];
        if (block->address == NULL) {
            continue;
        }
        const double weight = weight_of(block->size, heap.period);
        if (weight <= block->weight) {
            continue;
        }
        if (pyprof_next_uniform(&heap.random) * weight > block->weight) {
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
        if (pyprof_live_set_remove(&heap.live, left_out[i].address, &removed)) {
            end_use(&removed);
        }
    }
    return count;
}

static void make_room(void) {
    pyprof_live_block *left_out = heap.left_out != NULL ? NULL : malloc(heap.live.count * sizeof(*left_out));
    if (left_out == NULL) {
        return; /* the next sample tries again */
    }
    uint32_t count = 0;
    while (heap.live.count > MOST_LIVE / 2 && heap.period < (double)(INT64_MAX / 4)) {
        heap.period *= 2;
        count += thin_out(left_out + count);
    }
    heap.left_out = left_out;
    heap.left_out_count = count;
}

/* Unlocks, and lets go of what was left out: that may wait for who waits for the lock. */
static void unlock_and_let_go(void) {
    pyprof_live_block *left_out = heap.left_out;
    const uint32_t count = heap.left_out_count;
    void (*let_go)(uint32_t, const void *) = heap.let_go;
    heap.left_out = NULL;
    unlock();
    for (uint32_t i = 0; left_out != NULL && let_go != NULL && i < count; i++) {
        let_go(left_out[i].domain, left_out[i].address);
    }
    free(left_out);
}

static bool keep(const pyprof_live_block *block) {
    pyprof_live_block missed;
    if (pyprof_may_be_live(block->address) && pyprof_live_set_remove(&heap.live, block->address, &missed)) {
        end_use(&missed); /* freed by who went past the hook */
    }
    if (!pyprof_live_set_insert(&heap.live, block)) {
        heap.stats.unkept++;
        return false;
    }
    begin_use(block);
    note_size();
    if (heap.live.count > MOST_LIVE) {
        make_room();
    }
    return pyprof_may_be_live(block->address);
}

/* -- samples -- */

static void draw(pyprof_gap *gap) {
    /* Not beyond what fits; a gap of 40 periods has a chance of 1 in 10^17. */
    const double bytes = -log(pyprof_next_uniform(&heap.random)) * heap.period;
    gap->left = bytes < (double)(INT64_MAX / 2) ? (int64_t)bytes : INT64_MAX / 2;
    gap->period = heap.period;
}

void pyprof_heap_draw(pyprof_gap *gap) {
    lock();
    draw(gap);
    unlock();
}

bool pyprof_heap_sample(pyprof_gap *gap, const void *address, size_t size, uint32_t domain,
                        PyThreadState *thread) {
    bool kept = false;
    lock();
    if (heap.open && address != NULL) {
        pyprof_live_block block = {
            .address = address,
            .size = size,
            .weight = (float)weight_of(size, gap->period),
            .domain = domain,
        };
        block.site = pyprof_sites_find(&heap.sites, heap.let_go == NULL ? thread : NULL);
        heap.stats.samples++;
        heap.stats.overflowed += block.site == heap.sites.overflow;
        enter_generation(block.site);
        add(&block.site->allocated, weigh(&block));
        kept = keep(&block);
    }
    draw(gap);
    unlock_and_let_go();
    return kept;
}

static bool remove_live(const void *address, uint32_t domain, pyprof_live_block *block) {
    if (!pyprof_live_set_remove(&heap.live, address, block)) {
        return false;
    }
    if (block->domain != domain) { /* another one of the same number; the room that it had is still there */
        pyprof_live_set_insert(&heap.live, block);
        return false;
    }
    end_use(block);
    return true;
}

bool pyprof_heap_remove(const void *address, uint32_t domain) {
    pyprof_live_block block;
    lock();
    const bool found = remove_live(address, domain, &block);
    unlock();
    return found;
}

bool pyprof_heap_suspend(const void *address, uint32_t domain, pyprof_suspended *suspended) {
    lock();
    const bool found = remove_live(address, domain, &suspended->block);
    if (found) {
        suspended->block.site->live++; /* it is not idle */
        suspended->era = heap.era;
    }
    unlock();
    return found;
}

void pyprof_heap_settle(const pyprof_suspended *suspended, bool lives_on) {
    lock();
    if (heap.open && suspended->era == heap.era) {
        suspended->block.site->live--;
        if (lives_on) {
            keep(&suspended->block);
        }
    }
    unlock_and_let_go();
}

/* -- life -- */

static void forget_dead_code(PyCodeObject *code) {
    lock();
    if (heap.open) {
        pyprof_known_code_forget(&heap.sites.code, &heap.sites.budget, code);
    }
    unlock();
}

static void reset_child(void) {
    pthread_mutex_init(&heap.lock, NULL);
    pthread_mutex_init(&heap.reporting, NULL); /* who held it does not exist here */
    heap.generation++;
    heap.random ^= (uint64_t)pyprof_own_tid() << 32 ^ (uint64_t)pyprof_monotonic_ns();
    heap.peak_bytes = heap.inuse_bytes;
    heap.peak++;
    heap.stats = (pyprof_heap_stats){0};
}

static void forget_live(void) {
    for (uint32_t i = 0; i < heap.sites.count; i++) {
        pyprof_site *site = heap.sites.sites[i];
        keep_for_peak(site);
        site->inuse = (pyprof_allocated){0};
        site->live = 0;
    }
    heap.inuse_bytes = 0;
    heap.next_growth = heap.growth;
    heap.era++;
    pyprof_live_set_free(&heap.live);
}

bool pyprof_heap_open(const pyprof_heap_options *options) {
    if (!heap.watches_forks) {
        heap.watches_forks = pthread_atfork(lock, unlock, reset_child) == 0;
    }
    lock();
    if (!heap.open && pyprof_sites_open(&heap.sites, options->max_bytes, options->max_frames)) {
        heap.open = true;
        heap.period = heap.wanted_period = options->period;
        heap.let_go = options->let_go;
        heap.random = (uint64_t)pyprof_monotonic_ns() ^ pyprof_own_tid() << 40 ^ (uintptr_t)&options;
        heap.inuse_bytes = heap.peak_bytes = 0;
        heap.next_growth = heap.growth;
        heap.peak++;
    }
    const bool open = heap.open;
    unlock();
    if (open) {
        pyprof_watch_code_deaths(forget_dead_code);
    }
    return open;
}

void pyprof_heap_close(void) {
    pyprof_unwatch_code_deaths(forget_dead_code);
    pthread_mutex_lock(&heap.reporting);
    lock();
    if (heap.open) {
        heap.open = false;
        heap.era++;
        pyprof_live_set_free(&heap.live);
        pyprof_sites_close(&heap.sites);
        heap.inuse_bytes = 0;
    }
    unlock();
    pthread_mutex_unlock(&heap.reporting);
}

void pyprof_heap_forget(void) {
    lock();
    heap.stats.gaps++;
    forget_live();
    unlock();
}

bool pyprof_heap_is_open(void) { return __atomic_load_n(&heap.open, __ATOMIC_RELAXED); }

bool pyprof_heap_set_period(double period) {
    lock();
    const bool changes = period != heap.wanted_period;
    if (changes) {
        heap.period = heap.wanted_period = period;
    }
    unlock();
    return changes;
}

void pyprof_heap_watch_growth(void (*callback)(void), double bytes) {
    lock();
    heap.grown = callback;
    heap.growth = bytes;
    heap.next_growth = heap.inuse_bytes + bytes;
    unlock();
}

/* -- reports -- */

pyprof_live_block *pyprof_heap_copy_live(size_t *count) {
    lock();
    pyprof_live_block *copy = malloc((heap.live.count + 1) * sizeof(*copy));
    *count = 0;
    for (uint32_t i = 0; copy != NULL && i < heap.live.capacity; i++) {
        if (heap.live.blocks[i].address != NULL) {
            copy[(*count)++] = heap.live.blocks[i];
        }
    }
    unlock();
    return copy;
}

typedef struct {
    const pyprof_site *site;
    pyprof_values values;
} site_report;

/* Whole numbers that have not been reported; what is left is in the next report. */
static pyprof_allocated take_unreported(pyprof_site *site) {
    const pyprof_allocated part = {
        round(site->allocated.objects - site->reported.objects),
        round(site->allocated.bytes - site->reported.bytes),
    };
    add(&site->reported, part);
    return part;
}

static int64_t whole(double value) {
    const double rounded = round(value);
    return rounded < 0 ? 0 : rounded < (double)INT64_MAX / 2 ? (int64_t)rounded : INT64_MAX / 2;
}

static pyprof_values report_site(pyprof_site *site, pyprof_heap_view view) {
    pyprof_allocated allocated = {0}, inuse = site->inuse;
    enter_generation(site);
    if (view == PYPROF_HEAP_WINDOW) {
        allocated = take_unreported(site);
    } else if (view == PYPROF_HEAP_TOTAL) {
        allocated = site->allocated;
    } else {
        inuse = at_peak(site);
    }
    pyprof_values values = {0};
    values.column[PYPROF_ALLOC_OBJECTS] = whole(allocated.objects);
    values.column[PYPROF_ALLOC_SPACE] = whole(allocated.bytes);
    values.column[PYPROF_INUSE_OBJECTS] = whole(inuse.objects);
    values.column[PYPROF_INUSE_SPACE] = whole(inuse.bytes);
    return values;
}

static size_t report_some(uint32_t *next, pyprof_heap_view view, site_report *reports) {
    size_t count = 0;
    lock();
    for (; heap.open && *next < heap.sites.count && count < MOST_SITES_AT_ONCE; ++*next) {
        pyprof_site *site = heap.sites.sites[*next];
        reports[count++] = (site_report){site, report_site(site, view)};
    }
    unlock();
    return count;
}

static bool has_values(const pyprof_values *values) {
    for (int i = PYPROF_ALLOC_OBJECTS; i <= PYPROF_INUSE_SPACE; i++) {
        if (values->column[i] != 0) {
            return true;
        }
    }
    return false;
}

static void add_report(pyprof_window *window, const site_report *report) {
    const pyprof_site *site = report->site;
    if (has_values(&report->values)) {
        const pyprof_stack_id stack =
            site->depth == 0 ? PYPROF_OVERFLOW_STACK
                             : pyprof_window_intern(window, site->frames, site->depth, site->truncated);
        pyprof_window_add(window, stack, &report->values);
    }
}

static bool is_idle(const pyprof_site *site) {
    const pyprof_allocated peak = at_peak(site);
    const bool reported = site->generation != heap.generation ||
                          (fabs(site->allocated.objects - site->reported.objects) <= 0.5 &&
                           fabs(site->allocated.bytes - site->reported.bytes) <= 0.5);
    if (site->live > 0 || peak.bytes > 0 || !reported) {
        return false;
    }
    if (site->generation == heap.generation) {
        enter_generation(heap.sites.overflow);
        add(&heap.sites.overflow->allocated, site->allocated);
        add(&heap.sites.overflow->reported, site->reported);
    }
    heap.stats.evicted++;
    return true;
}

static void tidy(void) {
    lock();
    if (heap.open) {
        if (pyprof_sites_are_pressed(&heap.sites)) {
            pyprof_sites_evict(&heap.sites, is_idle);
        }
        pyprof_known_code_sweep(&heap.sites.code, &heap.sites.budget);
        if (heap.period > heap.wanted_period && heap.live.count < MOST_LIVE / 8) {
            heap.period = fmax(heap.period / 2, heap.wanted_period);
        }
    }
    unlock();
}

void pyprof_heap_report(pyprof_window *window, pyprof_heap_view view) {
    site_report *reports = malloc(MOST_SITES_AT_ONCE * sizeof(*reports));
    if (reports == NULL) {
        return;
    }
    pthread_mutex_lock(&heap.reporting);
    lock();
    const bool has_stacks = heap.open && heap.let_go == NULL;
    pyprof_window_get_info(window)->memory_period = has_stacks ? (int64_t)heap.period : 0;
    unlock();
    uint32_t next = 0;
    for (size_t count; has_stacks && (count = report_some(&next, view, reports)) > 0;) {
        for (size_t i = 0; i < count; i++) {
            add_report(window, &reports[i]);
        }
    }
    if (view == PYPROF_HEAP_WINDOW) {
        tidy();
    }
    pthread_mutex_unlock(&heap.reporting);
    free(reports);
}

void pyprof_heap_get_stats(pyprof_heap_stats *stats) {
    lock();
    *stats = heap.stats;
    stats->live = heap.live.count;
    stats->inuse_bytes = (uint64_t)fmax(heap.inuse_bytes, 0);
    stats->peak_bytes = (uint64_t)heap.peak_bytes;
    stats->period = heap.open ? heap.period : 0;
    stats->bytes = heap.open ? heap.sites.budget.used + pyprof_live_set_bytes(&heap.live) : 0;
    unlock();
}

#endif
