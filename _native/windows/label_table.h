/* Label table: the label sets of a window's samples, each under a number; 0 stands for none.
 *
 * It holds a reference to each until it is freed. What the sets say is looked up once, when the window is
 * read: labels may be added to a block while the window is filled, and all that is made of one window has the
 * same. As the window: one thread at a time.
 */
#ifndef PYPROF_LABEL_TABLE_H
#define PYPROF_LABEL_TABLE_H

#include "labels/label_set.h"
#include "windows/budget.h"
#include "windows/hash_index.h"
#include "windows/window.h"

typedef struct {
    const uint32_t *labels; /* numbers of labels, by name */
    uint32_t count;
} pyprof_label_run;

struct pyprof_label_table {
    pyprof_vector sets; /* of pyprof_label_set *: number i + 1 at i */
    pyprof_hash_index set_index;

    /* Of the sets that have been resolved; no budget limits it. */
    pyprof_budget unlimited;
    pyprof_vector labels; /* distinct ones, of pyprof_label */
    pyprof_hash_index label_index;
    pyprof_vector runs; /* by set */
    pyprof_arena numbers;
};

void pyprof_label_table_init(pyprof_label_table *table);
void pyprof_label_table_free(pyprof_label_table *table, pyprof_budget *budget);

/* False: it does not fit. */
bool pyprof_label_table_intern(pyprof_label_table *table, pyprof_budget *budget, pyprof_label_set *set,
                               uint32_t *number);

uint32_t pyprof_label_table_set_count(const pyprof_label_table *table); /* 0 among them */

/* Before what follows. False without memory. */
bool pyprof_label_table_resolve(pyprof_label_table *table);

/* Distinct pairs of name and value, from 0; in an order that stays. */
uint32_t pyprof_label_table_label_count(const pyprof_label_table *table);
const pyprof_label *pyprof_label_table_label(const pyprof_label_table *table, uint32_t label);
pyprof_label_run pyprof_label_table_run(const pyprof_label_table *table, uint32_t number);

#endif
