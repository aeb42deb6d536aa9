/* Label reader: which labels hold in the context of a thread, also while it runs.
 *
 * Prepared once, attached, in the main interpreter; then from the timer thread, or for a context that stands
 * still (see "cpython/contexts.h"), from any thread, also inside an allocation.
 */
#ifndef PYPROF_LABEL_READER_H
#define PYPROF_LABEL_READER_H

#include <Python.h>

#include "cpython/contexts.h"
#include "labels/label_set.h"
#include "labels/labels_type.h"

void pyprof_label_reader_prepare(const pyprof_labels_state *state);

/* Why no labels can be read; NULL: they can. */
const char *pyprof_label_reader_obstacle(void);

/* With a new reference; NULL: none. In a context, or among the variables that one had. */
pyprof_label_set *pyprof_labels_of_context(const void *context, pyprof_context_state state);
pyprof_label_set *pyprof_labels_among(const void *variables, pyprof_context_state state);

#endif
