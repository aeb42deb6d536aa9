/* See thread_list.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/thread_list.h"

#include <stdlib.h>
#include <string.h>

#include "cpython/interpreter.h"
#include "cpython/live_interpreters.h"
#include "sampling/growing.h"
#include "sampling/own_threads.h"

typedef pyprof_thread_list thread_list;
typedef pyprof_thread_node node;

enum { MOST_THREADS = 100000 }; /* against a list that was changed into a ring while it was read */

static void free_stacks(node *nodes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        pyprof_live_stack_free(nodes[i].stack);
    }
}

void pyprof_thread_list_free(thread_list *list) {
    free_stacks(list->nodes, list->count);
    free(list->nodes);
    list->nodes = NULL;
    list->count = list->capacity = 0;
}

size_t pyprof_thread_list_bytes(const thread_list *list) {
    size_t bytes = list->capacity * sizeof(node);
    for (size_t i = 0; i < list->count; i++) {
        bytes += pyprof_live_stack_bytes(list->nodes[i].stack);
    }
    return bytes;
}

static bool is_linked(const pyprof_live_thread *thread, const thread_list *list, const char *previous) {
    return thread->interp == list->interp && thread->previous == previous;
}

static void parse(node *one) {
    pyprof_live_parse(&one->thread);
    one->is_own = pyprof_is_own_thread(one->thread.tid); /* another thread may have taken the address */
}

static bool read_thread(node *one, const thread_list *list, const char *previous) {
    pyprof_read reads[PYPROF_LIVE_READS];
    size_t count;
    if (!pyprof_live_reads(&one->thread, NULL, reads, &count) || !pyprof_read_memory(reads, count)) {
        return false;
    }
    parse(one);
    return is_linked(&one->thread, list, previous);
}

static size_t find_known(const thread_list *list, const char *address) {
    size_t i = 0;
    while (i < list->count && list->nodes[i].thread.address != address) {
        i++;
    }
    return i;
}

static bool find_newest(thread_list *list) {
    if (list->is_main) {
        list->newest = pyprof_newest_thread((PyInterpreterState *)list->interp);
        return true;
    }
    return pyprof_live_newest_thread(list->interp, &list->newest);
}

bool pyprof_thread_list_follow(thread_list *list, pyprof_how_far how_far) {
    node *nodes = NULL;
    size_t count = 0, capacity = 0, known = list->count;
    const char *previous = NULL, *address = find_newest(list) ? list->newest : NULL;
    list->has_changed = true;
    while (address != NULL &&
           (how_far == PYPROF_TO_THE_END || (known = find_known(list, address)) == list->count)) {
        if (count == MOST_THREADS || !pyprof_reserve((void **)&nodes, &capacity, count + 1, sizeof(*nodes))) {
            break;
        }
        nodes[count] = (node){.thread = {.address = address}};
        if (!read_thread(&nodes[count], list, previous)) {
            break; /* a thread has ended here, or begun */
        }
        previous = address;
        address = nodes[count++].thread.next;
    }
    const size_t kept = list->count - known;
    const bool whole = (address == NULL || kept > 0) &&
                       pyprof_reserve((void **)&nodes, &capacity, count + kept, sizeof(*nodes));
    free_stacks(list->nodes, whole ? known : list->count);
    if (whole && kept > 0) {
        memcpy(nodes + count, list->nodes + known, kept * sizeof(*nodes));
    }
    free(list->nodes);
    if (!whole) {
        free(nodes);
        nodes = NULL;
        capacity = 0;
    }
    list->nodes = nodes;
    list->capacity = capacity;
    list->count = whole ? count + kept : 0;
    return whole;
}

bool pyprof_thread_list_is_old(const thread_list *list) {
    return list->newest != (list->count == 0 ? NULL : list->nodes[0].thread.address);
}

bool pyprof_thread_list_needs_any(const thread_list *list) {
    for (size_t i = 0; i < list->count; i++) {
        if (list->nodes[i].is_needed) {
            return true;
        }
    }
    return false;
}

static bool is_to_be_read(const thread_list *list, const node *one, bool whole) {
    return one->is_needed || one == list->nodes || whole;
}

bool pyprof_thread_list_read(thread_list *list, bool whole, pyprof_read_room *room) {
    size_t count = 0;
    if (!pyprof_reserve((void **)&room->reads, &room->capacity, list->count * PYPROF_LIVE_READS,
                        sizeof(*room->reads))) {
        return false;
    }
    for (size_t i = 0; i < list->count; i++) {
        node *one = &list->nodes[i];
        size_t added;
        if (one->is_needed && one->stack == NULL && (one->stack = pyprof_live_stack_new()) == NULL) {
            return false;
        }
        one->is_copied = one->is_needed;
        if (is_to_be_read(list, one, whole)) {
            if (!pyprof_live_reads(&one->thread, one->is_copied ? one->stack : NULL, room->reads + count,
                                   &added)) {
                return false;
            }
            count += added;
        }
    }
    if (count > 0 && !pyprof_read_memory(room->reads, count)) {
        return false;
    }
    for (size_t i = 0; i < list->count; i++) {
        node *one = &list->nodes[i];
        if (is_to_be_read(list, one, whole)) {
            const char *next = i + 1 < list->count ? list->nodes[i + 1].thread.address : NULL;
            const uint64_t tid = one->thread.tid;
            parse(one);
            list->has_changed |= tid != one->thread.tid;
            if (!is_linked(&one->thread, list, i == 0 ? NULL : list->nodes[i - 1].thread.address) ||
                one->thread.next != next) {
                return false;
            }
        }
    }
    return true;
}

/* Of threads that run no more; there may be many. */
void pyprof_thread_list_free_idle_stacks(thread_list *list) {
    for (size_t i = 0; i < list->count; i++) {
        if (!list->nodes[i].is_needed && !list->nodes[i].is_stood_for) {
            pyprof_live_stack_free(list->nodes[i].stack);
            list->nodes[i].stack = NULL;
        }
    }
}

#endif
