/* See window.h. */
#include "windows/window.h"

#include <stdlib.h>

#include "windows/budget.h"
#include "windows/label_table.h"
#include "windows/saturating.h"
#include "windows/stack_table.h"

struct pyprof_window {
    pyprof_budget budget;
    pyprof_window_info info;
    pyprof_sample overflow; /* inside, so that it is there whatever else fails */
    pyprof_stack_table stacks;
    pyprof_label_table labels;
    pyprof_vector samples; /* number i + 1 at i */
    pyprof_hash_index sample_index;
};

pyprof_window *pyprof_window_new(size_t max_bytes) {
    pyprof_window *window = calloc(1, sizeof *window);
    if (window == NULL) {
        return NULL;
    }
    window->budget = (pyprof_budget){.used = sizeof *window, .limit = max_bytes};
    window->samples.element_size = sizeof(pyprof_sample);
    pyprof_stack_table_init(&window->stacks);
    pyprof_label_table_init(&window->labels);
    return window;
}

void pyprof_window_free(pyprof_window *window) {
    if (window != NULL) {
        pyprof_stack_table_free(&window->stacks, &window->budget);
        pyprof_label_table_free(&window->labels, &window->budget);
        pyprof_vector_free(&window->samples, &window->budget);
        pyprof_hash_index_free(&window->sample_index, &window->budget);
        free(window);
    }
}

pyprof_window_info *pyprof_window_get_info(pyprof_window *window) { return &window->info; }

static uint32_t hash_sample(pyprof_stack_id stack, uint32_t labels) {
    return pyprof_hash_words((const uint32_t[]){stack, labels}, 2);
}

static pyprof_sample *sample_at(const pyprof_window *window, pyprof_sample_id sample) {
    return sample == PYPROF_OVERFLOW_SAMPLE ? (pyprof_sample *)&window->overflow
                                            : pyprof_vector_at(&window->samples, sample - 1);
}

static pyprof_sample_id find_sample(const pyprof_window *window, pyprof_stack_id stack, uint32_t labels,
                                    uint32_t hash) {
    pyprof_sample_id number;
    pyprof_probe probe = pyprof_hash_index_probe(&window->sample_index, hash);
    while (pyprof_hash_index_next(&window->sample_index, &probe, &number)) {
        const pyprof_sample *sample = sample_at(window, number);
        if (sample->stack == stack && sample->labels == labels) {
            return number;
        }
    }
    return PYPROF_OVERFLOW_SAMPLE;
}

/* Room for one more sample. Without it nothing else that is new is taken either. */
static bool reserve_sample(pyprof_window *window) {
    const bool has_room = pyprof_vector_reserve(&window->samples, &window->budget) &&
                          pyprof_hash_index_reserve(&window->sample_index, &window->budget);
    if (!has_room) {
        window->budget.limit = window->budget.used;
    }
    return has_room;
}

pyprof_sample_id pyprof_window_intern(pyprof_window *window, const pyprof_frame *frames, size_t depth,
                                      bool truncated, pyprof_label_set *labels) {
    const bool has_room = reserve_sample(window);
    const pyprof_stack_id stack =
        pyprof_stack_table_intern(&window->stacks, &window->budget, frames, depth, truncated);
    uint32_t number;
    if (stack == PYPROF_OVERFLOW_STACK ||
        !pyprof_label_table_intern(&window->labels, &window->budget, labels, &number)) {
        return PYPROF_OVERFLOW_SAMPLE;
    }
    const uint32_t hash = hash_sample(stack, number);
    pyprof_sample_id sample = find_sample(window, stack, number, hash);
    if (sample == PYPROF_OVERFLOW_SAMPLE && has_room) {
        *(pyprof_sample *)pyprof_vector_push(&window->samples) =
            (pyprof_sample){.stack = stack, .labels = number};
        sample = window->samples.count;
        pyprof_hash_index_insert(&window->sample_index, hash, sample);
    }
    return sample;
}

void pyprof_window_add(pyprof_window *window, pyprof_sample_id sample, const pyprof_values *values) {
    if (sample > window->samples.count) {
        sample = PYPROF_OVERFLOW_SAMPLE;
    }
    if (sample == PYPROF_OVERFLOW_SAMPLE) {
        window->info.overflowed += (uint64_t)values->column[PYPROF_SAMPLES];
    }
    pyprof_values *sums = &sample_at(window, sample)->values;
    for (int i = 0; i < PYPROF_COLUMNS; i++) {
        sums->column[i] = pyprof_add_saturating(sums->column[i], values->column[i]);
    }
}

size_t pyprof_window_bytes(const pyprof_window *window) { return window->budget.used; }

size_t pyprof_window_stack_count(const pyprof_window *window) {
    return pyprof_stack_table_stack_count(&window->stacks) - 1;
}

uint32_t pyprof_window_sample_count(const pyprof_window *window) { return window->samples.count + 1; }

const pyprof_sample *pyprof_window_get_sample(const pyprof_window *window, pyprof_sample_id sample) {
    return sample_at(window, sample);
}

const pyprof_stack_table *pyprof_window_get_stacks(const pyprof_window *window) { return &window->stacks; }

pyprof_label_table *pyprof_window_get_labels(pyprof_window *window) { return &window->labels; }
