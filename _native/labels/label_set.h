/* Label sets: the labels of a block of code, with those of the block around it.
 *
 * A set has the labels of its own block, and a parent. Both are immutable, but for what is added to a block
 * later (`pyprof_label_set_add`), which holds for all of it. Reference counted, atomically: objects of the
 * application hold sets, windows those that samples have met; the last release frees, on whatever thread,
 * with or without the GIL. Nothing in here touches a Python object.
 *
 * The timer thread finds sets in memory that the application may be changing or have freed. So it reads a
 * reference by value, index and id, and asks for it: sets lie in memory that stays theirs, and one that is
 * gone, or is another one by now, is not given out. Taking a new set takes a lock, for a few instructions,
 * that no thread of pyprof's own ever takes.
 */
#ifndef PYPROF_LABEL_SET_H
#define PYPROF_LABEL_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PYPROF_MOST_LABELS = 32, PYPROF_LONGEST_LABEL_NAME = 255, PYPROF_LONGEST_LABEL_VALUE = 2048 };

/* UTF-8, not terminated. A value of size 0 takes an outer label of that name away. */
typedef struct {
    const char *name, *value;
    uint32_t name_size, value_size;
} pyprof_label;

bool pyprof_is_same_label(const pyprof_label *a, const pyprof_label *b);
/* Whether its values are as many as there are requests: `span_id`, `trace_id`. */
bool pyprof_label_is_of_span(const pyprof_label *label);

/* Some labels of distinct names, in one block of memory; immutable. */
typedef struct {
    uint32_t refs; /* atomic */
    uint32_t count;
    size_t bytes;
    pyprof_label labels[];
} pyprof_label_list;

/* Copies everything, with one reference; NULL without memory. */
pyprof_label_list *pyprof_label_list_new(const pyprof_label *labels, uint32_t count);
/* Those of `inner`, and of `outer` what has no name of theirs; at most PYPROF_MOST_LABELS. Either may be
 * NULL. */
pyprof_label_list *pyprof_label_list_join(const pyprof_label_list *inner, const pyprof_label_list *outer);
pyprof_label_list *pyprof_label_list_retain(pyprof_label_list *list);
void pyprof_label_list_release(pyprof_label_list *list); /* NULL: nothing to do */

typedef struct pyprof_label_set pyprof_label_set;

/* What stands for a set in the application's memory. */
typedef struct {
    uint64_t id; /* which of the sets that have been at that place; 0: none */
    uint32_t index;
} pyprof_label_reference;

/* With one reference; it takes its own to the list and the parent (NULL: none). NULL without memory. */
pyprof_label_set *pyprof_label_set_new(pyprof_label_list *labels, pyprof_label_set *parent);
pyprof_label_set *pyprof_label_set_retain(pyprof_label_set *set);
void pyprof_label_set_release(pyprof_label_set *set); /* NULL: nothing to do */
pyprof_label_reference pyprof_label_set_reference(const pyprof_label_set *set);

/* Its own labels, without those that were added. */
const pyprof_label_list *pyprof_label_set_own(const pyprof_label_set *set);

/* The set with a new reference; NULL: it is gone. Any reference, even one made up, is harmless. */
pyprof_label_set *pyprof_label_set_find(pyprof_label_reference reference);

/* Memory of what is no longer a thread's is soon used again, by the same kind of objects: who reads a
 * thread's labels a moment after its stack may find those of its next block. So reading begins an epoch,
 * before the stack is copied, and labels that came to be a thread's in it are not what it had then. The timer
 * thread begins epochs; the application marks what it makes current. */
uint32_t pyprof_label_epoch_begin(void);
void pyprof_label_set_mark_current(pyprof_label_set *set);
bool pyprof_label_set_is_older(const pyprof_label_set *set, uint32_t epoch);

/* Labels that win over its own; for everything that holds the set. False without memory. Any thread. */
bool pyprof_label_set_add(pyprof_label_set *set, pyprof_label_list *labels);

/* All that hold, by name, inner ones before outer ones of the same name; `labels` has room for
 * PYPROF_MOST_LABELS. They live as long as the set is held. */
uint32_t pyprof_label_set_resolve(const pyprof_label_set *set, pyprof_label *labels);

/* Whether there has ever been one. */
bool pyprof_label_sets_any(void);

/* What a set holds of its own; the same as long as it lives. */
size_t pyprof_label_set_bytes(const pyprof_label_set *set);

/* Memory of all sets, without their texts. */
size_t pyprof_label_sets_bytes(void);

#endif
