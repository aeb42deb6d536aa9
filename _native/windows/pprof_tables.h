/* The string, function and location tables of a pprof message while it is put together.
 *
 * Entries are made at their first use and never unused; equal ones are one. Functions and locations
 * are numbered from 0 here and their ids on the wire are one more. Strings are borrowed: they outlive
 * the tables. A failed allocation makes `failed` true and the numbers returned after it meaningless.
 */
#ifndef PYPROF_PPROF_TABLES_H
#define PYPROF_PPROF_TABLES_H

#include "windows/budget.h"
#include "windows/hash_index.h"
#include "windows/pprof_encoder.h"
#include "windows/stack_table.h"
#include "windows/window_files.h"

typedef struct {
    uint32_t name;
    uint32_t filename;
    int32_t start_line;
} pyprof_pprof_function;

typedef struct {
    uint32_t function;
    int32_t line;
} pyprof_pprof_location;

typedef struct {
    const pyprof_stack_table *stacks;
    const pyprof_file *files; /* NULL: names as the symbols have them */
    pyprof_window_files window_files;

    pyprof_budget budget; /* no limit: it only serves the containers */
    pyprof_arena names;   /* joined from module and qualname */
    pyprof_vector strings, functions, locations;
    pyprof_hash_index string_index, function_index, location_index;

    /* From the window's numbers to ids on the wire; 0: not met yet. */
    uint32_t *function_ids;
    uint32_t *location_ids;
    bool failed;
} pyprof_pprof_tables;

void pyprof_pprof_tables_init(pyprof_pprof_tables *tables, const pyprof_window *window);
void pyprof_pprof_tables_free(pyprof_pprof_tables *tables);

uint32_t pyprof_pprof_string(pyprof_pprof_tables *tables, pyprof_text text);
uint32_t pyprof_pprof_add_location(pyprof_pprof_tables *tables, uint32_t location);

/* The id on the wire of a location of the window. */
static inline uint32_t pyprof_pprof_location_id(pyprof_pprof_tables *tables, uint32_t location) {
    uint32_t id = tables->location_ids[location];
    return id != 0 ? id : pyprof_pprof_add_location(tables, location);
}

#endif
