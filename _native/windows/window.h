/* Window: the stacks of one upload interval and their values.
 *
 * One thread writes a window (the timer thread; in tests whoever made it), without the GIL and
 * without a lock. It becomes immutable when it is handed to the ring; from then on its single owner
 * (the exporter, or whoever took it) reads and frees it. Nothing in here touches a Python object.
 *
 * Memory is bounded by `max_bytes`: everything the window allocates, and the symbols it keeps alive,
 * count. A stack that does not fit any more is charged to the `[overflow]` stack instead: no value
 * is lost, `overflowed` counts the samples that went there.
 */
#ifndef PYPROF_WINDOW_H
#define PYPROF_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

typedef uint32_t pyprof_stack_id; /* index in this window only */
#define PYPROF_OVERFLOW_STACK ((pyprof_stack_id)0)

typedef struct pyprof_window pyprof_window;

/* NULL without memory. A `max_bytes` too small for any stack leaves everything to [overflow]. */
pyprof_window *pyprof_window_new(size_t max_bytes);
void pyprof_window_free(pyprof_window *window); /* NULL: nothing to do */
pyprof_window_info *pyprof_window_get_info(pyprof_window *window);

/* The id of a stack, leaf first; `truncated` adds a visible `[truncated]` root.
 * PYPROF_OVERFLOW_STACK where it does not fit. */
pyprof_stack_id pyprof_window_intern(pyprof_window *window, const pyprof_frame *frames, size_t depth,
                                     bool truncated);
/* Add values, none negative, to a stack's; a sum that does not fit stays at the largest int64. */
void pyprof_window_add(pyprof_window *window, pyprof_stack_id stack, const pyprof_values *values);

size_t pyprof_window_bytes(const pyprof_window *window);
size_t pyprof_window_stack_count(const pyprof_window *window); /* distinct stacks, [overflow] apart */

/* For the encoder: the stacks by number ("windows/stack_table.h"), and the values of each. */
typedef struct pyprof_stack_table pyprof_stack_table;
const pyprof_stack_table *pyprof_window_get_stacks(const pyprof_window *window);
const pyprof_values *pyprof_window_get_values(const pyprof_window *window, pyprof_stack_id stack);

#endif
