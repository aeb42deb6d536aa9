/* Label slab: where label sets lie. For label_set.c alone.
 *
 * Memory that has been a set stays one until the process ends, so that whoever has an index may look at it.
 * As many are kept as there were at the same time. `take` takes a lock; `give_back` and `at` do not: the
 * timer thread and the exporter use those.
 */
#ifndef PYPROF_LABEL_SLAB_H
#define PYPROF_LABEL_SLAB_H

#include "labels/label_set.h"

typedef struct pyprof_added_labels pyprof_added_labels;

struct pyprof_label_set {
    uint32_t refs; /* atomic; 0: nobody has it */
    uint32_t index;
    uint64_t id;    /* atomic */
    uint32_t epoch; /* atomic: in which it came to be current last */
    pyprof_label_list *own;
    pyprof_added_labels *added; /* atomic; the latest first */
    pyprof_label_set *parent;
    pyprof_label_set *next_free;
};

/* One without references, whose fields are those of the one before; NULL without memory. */
pyprof_label_set *pyprof_label_slab_take(void);
void pyprof_label_slab_give_back(pyprof_label_set *set);

/* NULL: there has never been one. */
pyprof_label_set *pyprof_label_slab_at(uint32_t index);

#endif
