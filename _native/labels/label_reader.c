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

static bool can_read(void) { return set_type != NULL && obstacle == NULL && pyprof_label_sets_any(); }

static pyprof_label_set *set_of(const void *value, pyprof_context_state state) {
    enum { UP_TO_REFERENCE = offsetof(pyprof_label_set_object, reference) + sizeof(pyprof_label_reference) };
    pyprof_label_set_object copy;
    if (value == NULL || !pyprof_context_copy(&copy, value, UP_TO_REFERENCE, state) ||
        Py_TYPE((PyObject *)&copy) != set_type || copy.magic != PYPROF_LABEL_SET_MAGIC) {
        return NULL;
    }
    return pyprof_label_set_find(copy.reference);
}

pyprof_label_set *pyprof_labels_of_context(const void *context, pyprof_context_state state) {
    return context != NULL && can_read() ? set_of(pyprof_context_find(context, state), state) : NULL;
}

pyprof_label_set *pyprof_labels_among(const void *variables, pyprof_context_state state) {
    return variables != NULL && can_read() ? set_of(pyprof_context_find_among(variables, state), state)
                                           : NULL;
}

#endif
