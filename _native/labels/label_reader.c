/* See label_reader.h. */
#ifndef PYPROF_PORTABLE
#include "labels/label_reader.h"

#include <string.h>

static const PyTypeObject *set_type; /* NULL: not prepared */
static const char *obstacle;

void pyprof_label_reader_prepare(const pyprof_labels_state *state) {
    if (set_type != state->set_type) {
        obstacle = pyprof_contexts_prepare(state->variable);
        set_type = state->set_type;
    }
}

const char *pyprof_label_reader_obstacle(void) { return obstacle; }

pyprof_label_set *pyprof_labels_of_context(const void *context, pyprof_context_state state) {
    if (context == NULL || set_type == NULL || obstacle != NULL || !pyprof_label_sets_any()) {
        return NULL;
    }
    enum { UP_TO_REFERENCE = offsetof(pyprof_label_set_object, reference) + sizeof(pyprof_label_reference) };
    const void *value = pyprof_context_find(context, state);
    pyprof_label_set_object copy;
    if (value == NULL || !pyprof_context_copy(&copy, value, UP_TO_REFERENCE, state) ||
        Py_TYPE((PyObject *)&copy) != set_type || copy.magic != PYPROF_LABEL_SET_MAGIC) {
        return NULL;
    }
    return pyprof_label_set_find(copy.reference);
}

#endif
