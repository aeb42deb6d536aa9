/* See window.h. */
#include "windows/window.h"

#include <stdlib.h>

#include "windows/budget.h"
#include "windows/saturating.h"
#include "windows/stack_table.h"

struct pyprof_window {
    pyprof_budget budget;
    pyprof_window_info info;
    pyprof_values overflow; /* inside, so that it is there whatever else fails */
    pyprof_stack_table stacks;
    pyprof_vector values; /* of stack i + 1 at i; a stack may lack its row where memory ran out */
};

static const pyprof_values no_values;

pyprof_window *pyprof_window_new(size_t max_bytes) {
    pyprof_window *window = calloc(1, sizeof *window);
    if (window == NULL) {
        return NULL;
    }
    window->budget = (pyprof_budget){.used = sizeof *window, .limit = max_bytes};
    window->values.element_size = sizeof(pyprof_values);
    pyprof_stack_table_init(&window->stacks);
    return window;
}

void pyprof_window_free(pyprof_window *window) {
    if (window != NULL) {
        pyprof_stack_table_free(&window->stacks, &window->budget);
        pyprof_vector_free(&window->values, &window->budget);
        free(window);
    }
}

pyprof_window_info *pyprof_window_get_info(pyprof_window *window) { return &window->info; }

static bool reserve_values(pyprof_window *window, pyprof_stack_id stack) {
    while (window->values.count < stack) {
        if (!pyprof_vector_reserve(&window->values, &window->budget)) {
            return false;
        }
        *(pyprof_values *)pyprof_vector_push(&window->values) = no_values;
    }
    return true;
}

pyprof_stack_id pyprof_window_intern(pyprof_window *window, const pyprof_frame *frames, size_t depth,
                                     bool truncated) {
    pyprof_stack_id stack =
        pyprof_stack_table_intern(&window->stacks, &window->budget, frames, depth, truncated);
    return reserve_values(window, stack) ? stack : PYPROF_OVERFLOW_STACK;
}

void pyprof_window_add(pyprof_window *window, pyprof_stack_id stack, const pyprof_values *values) {
    pyprof_values *row = &window->overflow;
    if (stack != PYPROF_OVERFLOW_STACK && stack <= window->values.count) {
        row = pyprof_vector_at(&window->values, stack - 1);
    } else {
        window->info.overflowed += (uint64_t)values->column[PYPROF_SAMPLES];
    }
    for (int i = 0; i < PYPROF_COLUMNS; i++) {
        row->column[i] = pyprof_add_saturating(row->column[i], values->column[i]);
    }
}

size_t pyprof_window_bytes(const pyprof_window *window) { return window->budget.used; }

size_t pyprof_window_stack_count(const pyprof_window *window) {
    return window->values.count; /* a stack without its row has its values in the overflow */
}

const pyprof_stack_table *pyprof_window_get_stacks(const pyprof_window *window) { return &window->stacks; }

const pyprof_values *pyprof_window_get_values(const pyprof_window *window, pyprof_stack_id stack) {
    if (stack == PYPROF_OVERFLOW_STACK) {
        return &window->overflow;
    }
    return stack <= window->values.count ? pyprof_vector_at(&window->values, stack - 1) : &no_values;
}
