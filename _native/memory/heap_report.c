/* Reports of the heap. See heap.h. */
#ifndef PYPROF_PORTABLE
#include <Python.h> /* before all others: it says what the system's headers shall show */

#include <math.h>
#include <stdlib.h>

#include "memory/heap_state.h"

enum { MOST_SITES_AT_ONCE = 256 };

pyprof_live_block *pyprof_heap_copy_live(size_t *count) {
    pyprof_heap_lock();
    pyprof_live_block *copy = malloc((pyprof_the_heap.live.count + 1) * sizeof(*copy));
    *count = 0;
    for (uint32_t i = 0; copy != NULL && i < pyprof_the_heap.live.capacity; i++) {
        if (pyprof_the_heap.live.blocks[i].address != NULL) {
            copy[(*count)++] = pyprof_the_heap.live.blocks[i];
        }
    }
    pyprof_heap_unlock();
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
    pyprof_allocated_add(&site->reported, part);
    return part;
}

static int64_t whole(double value) {
    const double rounded = round(value);
    return rounded < 0 ? 0 : rounded < (double)INT64_MAX / 2 ? (int64_t)rounded : INT64_MAX / 2;
}

static pyprof_values report_site(pyprof_site *site, pyprof_heap_view view) {
    pyprof_allocated allocated = {0}, inuse = site->inuse;
    pyprof_site_enter_generation(site);
    if (view == PYPROF_HEAP_WINDOW) {
        allocated = take_unreported(site);
    } else if (view == PYPROF_HEAP_TOTAL) {
        allocated = site->allocated;
    } else {
        inuse = pyprof_site_at_peak(site);
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
    pyprof_heap_lock();
    for (; pyprof_the_heap.open && *next < pyprof_the_heap.sites.count && count < MOST_SITES_AT_ONCE;
         ++*next) {
        pyprof_site *site = pyprof_the_heap.sites.sites[*next];
        reports[count++] = (site_report){site, report_site(site, view)};
    }
    pyprof_heap_unlock();
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
        const pyprof_sample_id sample =
            site->depth == 0
                ? PYPROF_OVERFLOW_SAMPLE
                : pyprof_window_intern(window, site->frames, site->depth, site->truncated, site->labels);
        pyprof_window_add(window, sample, &report->values);
    }
}

static bool is_idle(const pyprof_site *site) {
    const pyprof_allocated peak = pyprof_site_at_peak(site);
    const bool reported = site->generation != pyprof_the_heap.generation ||
                          (fabs(site->allocated.objects - site->reported.objects) <= 0.5 &&
                           fabs(site->allocated.bytes - site->reported.bytes) <= 0.5);
    if (site->live > 0 || peak.bytes > 0 || !reported) {
        return false;
    }
    if (site->generation == pyprof_the_heap.generation) {
        pyprof_site_enter_generation(pyprof_the_heap.sites.overflow);
        pyprof_allocated_add(&pyprof_the_heap.sites.overflow->allocated, site->allocated);
        pyprof_allocated_add(&pyprof_the_heap.sites.overflow->reported, site->reported);
    }
    pyprof_the_heap.stats.evicted++;
    return true;
}

static void tidy(void) {
    pyprof_heap_lock();
    if (pyprof_the_heap.open) {
        if (pyprof_sites_are_pressed(&pyprof_the_heap.sites)) {
            pyprof_sites_evict(&pyprof_the_heap.sites, is_idle);
        }
        pyprof_known_code_sweep(&pyprof_the_heap.sites.code, &pyprof_the_heap.sites.budget);
        if (pyprof_the_heap.period > pyprof_the_heap.wanted_period &&
            pyprof_the_heap.live.count < PYPROF_MOST_LIVE / 8) {
            pyprof_the_heap.period = fmax(pyprof_the_heap.period / 2, pyprof_the_heap.wanted_period);
        }
    }
    pyprof_heap_unlock();
}

void pyprof_heap_report(pyprof_window *window, pyprof_heap_view view) {
    site_report *reports = malloc(MOST_SITES_AT_ONCE * sizeof(*reports));
    if (reports == NULL) {
        return;
    }
    pthread_mutex_lock(&pyprof_the_heap.reporting);
    pyprof_heap_lock();
    const bool has_stacks = pyprof_the_heap.open && pyprof_the_heap.let_go == NULL;
    pyprof_window_get_info(window)->memory_period = has_stacks ? (int64_t)pyprof_the_heap.period : 0;
    pyprof_heap_unlock();
    uint32_t next = 0;
    for (size_t count; has_stacks && (count = report_some(&next, view, reports)) > 0;) {
        for (size_t i = 0; i < count; i++) {
            add_report(window, &reports[i]);
        }
    }
    if (view == PYPROF_HEAP_WINDOW) {
        tidy();
    }
    pthread_mutex_unlock(&pyprof_the_heap.reporting);
    free(reports);
}

void pyprof_heap_get_stats(pyprof_heap_stats *stats) {
    pyprof_heap_lock();
    *stats = pyprof_the_heap.stats;
    stats->live = pyprof_the_heap.live.count;
    stats->inuse_bytes = (uint64_t)fmax(pyprof_the_heap.inuse_bytes, 0);
    stats->peak_bytes = (uint64_t)pyprof_the_heap.peak_bytes;
    stats->period = pyprof_the_heap.open ? pyprof_the_heap.period : 0;
    stats->bytes = pyprof_the_heap.open
                       ? pyprof_the_heap.sites.budget.used + pyprof_live_set_bytes(&pyprof_the_heap.live)
                       : 0;
    pyprof_heap_unlock();
}

#endif
