/* Window: the samples of one upload interval: stacks, with the labels they had, and their values.
 *
 * One thread writes a window (the timer thread; in tests whoever made it), without the GIL and
 * without a lock. It becomes immutable when it is handed to the ring; from then on its single owner
 * (the exporter, or whoever took it) reads and frees it. Nothing in here touches a Python object.
 *
 * Memory is bounded by `max_bytes`: everything the window allocates, and the symbols it keeps alive,
 * count, and what labels hold. What does not fit any more is charged to the `[overflow]` stack instead: no
 * value is lost, `overflowed` counts the samples that went there.
 */
#ifndef PYPROF_WINDOW_H
#define PYPROF_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "labels/label_set.h"
#include "symbols/symbol.h"

typedef struct {
    pyprof_symbol *symbol; /* borrowed by the callee, which retains what it keeps */
    int32_t lasti;         /* byte offset of the instruction; the line where the symbol has no line table */
} pyprof_frame;

/* Order and meaning of the columns that the encoder can select. */
typedef enum {
    PYPROF_SAMPLES,
    PYPROF_CPU_SAMPLES,
    PYPROF_CPU_NS,
    PYPROF_WALL_NS,
    PYPROF_GIL_HELD_NS,
    PYPROF_GIL_WAIT_NS,
    PYPROF_ALLOC_OBJECTS,
    PYPROF_ALLOC_SPACE,
    PYPROF_INUSE_OBJECTS,
    PYPROF_INUSE_SPACE,
    PYPROF_COLUMNS,
} pyprof_column;

typedef struct {
    int64_t column[PYPROF_COLUMNS];
} pyprof_values;

/* Filled in by the sampler, shown in the profile's comment. */
typedef struct {
    int64_t start_ns; /* Unix time */
    int64_t duration_ns;
    int64_t period_ns;        /* mean gap between ticks; */
    int64_t wanted_period_ns; /* what it is where nothing lowers the rate; 0: not known */
    uint64_t ticks;
    uint64_t missed;          /* ticks that found no snapshot; their weight is in the next sample */
    uint64_t overflowed;      /* samples in [overflow]; kept by the window itself */
    uint64_t unplaced_cpu_ns; /* CPU charged to a thread's last moved stack at the window's end */
    uint64_t dropped_windows; /* windows that the ring dropped since the one before this; kept by the ring */
    int64_t memory_period;    /* bytes between samples of memory; 0: there are none in this window */
    bool memory_is_short;     /* it ended early because the process came close to its limit of memory */
} pyprof_window_info;

typedef uint32_t pyprof_sample_id; /* index in this window only */
#define PYPROF_OVERFLOW_SAMPLE ((pyprof_sample_id)0)

typedef struct pyprof_window pyprof_window;

/* NULL without memory. A `max_bytes` too small for any stack leaves everything to [overflow]. */
pyprof_window *pyprof_window_new(size_t max_bytes);
void pyprof_window_free(pyprof_window *window); /* NULL: nothing to do */
pyprof_window_info *pyprof_window_get_info(pyprof_window *window);

/* The id of a stack, leaf first, with its labels (NULL: none; borrowed, and retained where it is kept);
 * `truncated` adds a visible `[truncated]` root. PYPROF_OVERFLOW_SAMPLE where it does not fit. */
pyprof_sample_id pyprof_window_intern(pyprof_window *window, const pyprof_frame *frames, size_t depth,
                                      bool truncated, pyprof_label_set *labels);
/* Add values, none negative, to a sample's; a sum that does not fit stays at the largest int64. */
void pyprof_window_add(pyprof_window *window, pyprof_sample_id sample, const pyprof_values *values);

size_t pyprof_window_bytes(const pyprof_window *window);
size_t pyprof_window_stack_count(const pyprof_window *window); /* distinct stacks, [overflow] apart */

/* For the encoder: the samples by number, below the count; 0 is that of [overflow]. */
typedef struct {
    uint32_t stack;  /* its number, see "windows/stack_table.h" */
    uint32_t labels; /* see "windows/label_table.h" */
    pyprof_values values;
} pyprof_sample;
uint32_t pyprof_window_sample_count(const pyprof_window *window);
const pyprof_sample *pyprof_window_get_sample(const pyprof_window *window, pyprof_sample_id sample);

typedef struct pyprof_stack_table pyprof_stack_table;
typedef struct pyprof_label_table pyprof_label_table;
const pyprof_stack_table *pyprof_window_get_stacks(const pyprof_window *window);
pyprof_label_table *pyprof_window_get_labels(pyprof_window *window);

#endif
