/* Stack table: the distinct symbols, locations and stacks of one window, each under a number.
 *
 * A location is a (symbol, line), a stack a sequence of locations, leaf first. The table holds one
 * reference to each of its symbols until it is freed. All of it counts against the window's budget,
 * the symbols too. It knows nothing about values: a window hangs them on the numbers.
 *
 * The first numbers belong to pseudo-frames: what a profile shows in place of something lost.
 */
#ifndef PYPROF_STACK_TABLE_H
#define PYPROF_STACK_TABLE_H

#include "windows/budget.h"
#include "windows/hash_index.h"
#include "windows/window.h"

#define PYPROF_OVERFLOW_LOCATION 0u
#define PYPROF_TRUNCATED_LOCATION 1u
#define PYPROF_PSEUDO_LOCATIONS 2u
#define PYPROF_PSEUDO_SYMBOLS 2u /* the symbol of a pseudo-location has its number */

typedef struct {
    uint32_t symbol;
    int32_t line; /* 0: unknown */
} pyprof_location;

typedef uint32_t pyprof_stack_id; /* index in this table only */
#define PYPROF_OVERFLOW_STACK ((pyprof_stack_id)0)

typedef struct {
    const uint32_t *locations; /* leaf first */
    uint32_t depth;
} pyprof_stack;

typedef struct {
    pyprof_symbol *symbol; /* NULL: free */
    int32_t lasti;
    uint32_t location;
} pyprof_frame_slot;

struct pyprof_stack_table {
    pyprof_vector symbols, locations, stacks; /* of pyprof_symbol *, pyprof_location, pyprof_stack */
    pyprof_hash_index symbol_index, location_index, stack_index;
    pyprof_arena runs; /* the stacks' location numbers */

    /* From (symbol, lasti) to location, so that a frame seen before costs one probe and no walk of a
     * line table. Where it cannot grow it only stops to learn. */
    pyprof_frame_slot *frames;
    uint32_t frames_size, frames_count, frames_shift;

    /* No room for a symbol or location was left once: from then on only stacks of known locations are
     * taken. Else stacks that are refused for one frame would pile up the symbols of their others. */
    bool closed;

    uint32_t *scratch; /* the stack that is being looked up */
    size_t scratch_size;
};

void pyprof_stack_table_init(pyprof_stack_table *table);
void pyprof_stack_table_free(pyprof_stack_table *table, pyprof_budget *budget);

/* As pyprof_window_intern. */
pyprof_stack_id pyprof_stack_table_intern(pyprof_stack_table *table, pyprof_budget *budget,
                                          const pyprof_frame *frames, size_t depth, bool truncated);

/* Numbers run from 0 to below the count; the pseudo ones are among them. */
uint32_t pyprof_stack_table_symbol_count(const pyprof_stack_table *table);
uint32_t pyprof_stack_table_location_count(const pyprof_stack_table *table);
uint32_t pyprof_stack_table_stack_count(const pyprof_stack_table *table);
const pyprof_symbol *pyprof_stack_table_symbol(const pyprof_stack_table *table, uint32_t number);
pyprof_location pyprof_stack_table_location(const pyprof_stack_table *table, uint32_t number);
pyprof_stack pyprof_stack_table_stack(const pyprof_stack_table *table, pyprof_stack_id number);

#endif
