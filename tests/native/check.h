/* What the C test programs share: a check that ends the program, and windows with known contents. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "windows/window.h"

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                          \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

/* The same numbers on every machine. */
static inline uint32_t next_random(uint64_t *state) {
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

static inline pyprof_symbol *make_symbol(const char *kind, int number) {
    char name[64];
    int size = snprintf(name, sizeof name, "%s_%d", kind, number);
    pyprof_symbol *symbol = pyprof_symbol_new(name, (size_t)size, "/app/x.py", 9, number + 1, NULL, 0);
    CHECK(symbol != NULL);
    return symbol;
}

static inline int64_t column_total(const pyprof_window *window, pyprof_column column) {
    int64_t total = 0;
    for (pyprof_sample_id i = 0; i < pyprof_window_sample_count(window); i++) {
        total += pyprof_window_get_sample(window, i)->values.column[column];
    }
    return total;
}

#endif
