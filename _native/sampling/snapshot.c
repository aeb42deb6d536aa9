/* See snapshot.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "cpython/callables.h"
#include "cpython/contexts.h"
#include "cpython/gil.h"
#include "cpython/interpreter.h"
#include "cpython/live_stacks.h"
#include "labels/label_reader.h"
#include "sampling/clocks.h"
#include "sampling/growing.h"
#include "sampling/own_threads.h"
#include "sampling/proc.h"
#include "symbols/c_functions.h"
#include "symbols/code_cache.h"

static void forget_threads(pyprof_snapshot *snapshot) {
    for (size_t i = 0; i < snapshot->thread_count; i++) {
        pyprof_label_set_release(snapshot->threads[i].labels);
    }
    snapshot->thread_count = 0;
}

void pyprof_snapshot_begin(const pyprof_snapshot_request *request) {
    pyprof_c_functions_begin_snapshot();
    pyprof_snapshot *snapshot = request->snapshot;
    forget_threads(snapshot);
    snapshot->frame_count = 0;
    snapshot->taken_ns = pyprof_monotonic_ns();
    snapshot->has_starting = snapshot->lacks_others = false;
}

size_t pyprof_snapshot_find(const pyprof_snapshot_request *request, const pyprof_thread_key *key) {
    return pyprof_threads_find(request->known, key, request->snapshot->thread_count);
}

pyprof_thread_view *pyprof_snapshot_add(const pyprof_snapshot_request *request,
                                        const pyprof_thread_key *key) {
    pyprof_snapshot *snapshot = request->snapshot;
    if (!pyprof_reserve((void **)&snapshot->threads, &snapshot->thread_capacity, snapshot->thread_count + 1,
                        sizeof(pyprof_thread_view))) {
        return NULL;
    }
    pyprof_thread_view *view = &snapshot->threads[snapshot->thread_count++];
    *view = (pyprof_thread_view){.key = *key, .clock_ns = -1};
    return view;
}

pyprof_thread_view *pyprof_snapshot_view_of(const pyprof_snapshot_request *request,
                                            const pyprof_thread_key *key) {
    pyprof_snapshot *snapshot = request->snapshot;
    for (size_t i = 0; i < snapshot->thread_count; i++) {
        if (pyprof_is_same_thread(&snapshot->threads[i].key, key)) {
            return &snapshot->threads[i];
        }
    }
    return NULL;
}

bool pyprof_snapshot_needs_walk(const pyprof_snapshot_request *request, size_t place) {
    const pyprof_threads *known = request->known;
    return place >= known->count || (!known->items[place].stack_is_current && known->items[place].weight > 0);
}

bool pyprof_snapshot_add_frames(const pyprof_snapshot_request *request, pyprof_thread_view *view,
                                const pyprof_code_frame *frames, size_t depth,
                                pyprof_symbol *(*symbol_of)(PyCodeObject *)) {
    static pyprof_symbol *c_functions[PYPROF_MAX_DEPTH + PYPROF_SPARE_FRAMES];
    pyprof_snapshot *snapshot = request->snapshot;
    if (!pyprof_reserve((void **)&snapshot->frames, &snapshot->frame_capacity,
                        snapshot->frame_count + 2 * depth, sizeof(pyprof_frame))) {
        return false;
    }
    if (!view->walked) {
        view->walked = true;
        view->first_frame = snapshot->frame_count;
        if (depth > 0 && frames[0].begun) {
            view->instruction = pyprof_instruction_of(frames[0].code, frames[0].lasti);
        }
    }
    pyprof_find_c_functions(frames, depth, c_functions);
    for (size_t i = 0; i < depth; i++) {
        pyprof_symbol *symbol = symbol_of(frames[i].code);
        if (symbol == NULL) {
            return false;
        }
        if (frames[i].begun && c_functions[i] != NULL) {
            snapshot->frames[snapshot->frame_count++] = (pyprof_frame){c_functions[i], 0};
        }
        if (frames[i].begun) {
            snapshot->frames[snapshot->frame_count++] = (pyprof_frame){symbol, frames[i].lasti};
        }
    }
    view->depth = snapshot->frame_count - view->first_frame;
    if (view->depth > request->max_frames) {
        view->depth = request->max_frames;
        view->truncated = true;
    }
    return true;
}

/* What the frames of a thread that stands still call. A thread that serves the snapshot itself calls nothing:
 * a call that it has come back from has left its result where what it called was. */
static void find_callees(pyprof_code_frame *frames, size_t depth, bool serves) {
    for (size_t i = serves ? 1 : 0; i < depth; i++) {
        pyprof_code_frame *frame = &frames[i];
        pyprof_code_shape *shape = frame->enters_c && frame->begun && frame->address != NULL &&
                                           pyprof_code_cache_get(frame->code) != NULL
                                       ? pyprof_code_cache_find_shape(frame->code)
                                       : NULL;
        const char *place = shape == NULL ? NULL
                                          : pyprof_callable_place(frame->address, frame->address, frame->code,
                                                                  shape, frame->lasti);
        if (place != NULL) {
            frame->callee = (pyprof_callee){.object = pyprof_callable_in(place), .place = place};
        }
    }
}

static bool walk(const pyprof_snapshot_request *request, PyThreadState *tstate, pyprof_thread_view *view) {
    /* Static: too large for the stacks of some threads that take snapshots. */
    static pyprof_code_frame frames[PYPROF_MAX_DEPTH + PYPROF_SPARE_FRAMES];
    size_t max = request->max_frames < PYPROF_MAX_DEPTH ? request->max_frames : PYPROF_MAX_DEPTH;
    size_t depth = request->raw_walk ? pyprof_walk_raw(tstate, frames, max, &view->truncated)
                                     : pyprof_walk_public(tstate, frames, max, &view->truncated);
    pyprof_live_learn_calls(frames, depth, true);
    if (!pyprof_is_in_trace_function(tstate)) {
        find_callees(frames, depth, tstate == PyThreadState_Get());
    }
    view->labels = pyprof_labels_of_context(pyprof_context_of(tstate), PYPROF_STANDS_STILL);
    return pyprof_snapshot_add_frames(request, view, frames, depth, pyprof_code_cache_get);
}

/* Whether the thread's C call made a late snapshot late. A pending call runs on the thread that holds the
 * GIL; the timer gets the GIL from who held it. Without a GIL, or if that cannot be told, it may have been
 * any that was on a CPU: the others have been waiting for it. */
static bool made_it_late(const pyprof_snapshot_request *request, const pyprof_thread *known) {
    if (pyprof_is_free_threaded() || request->gil_holder == PYPROF_UNKNOWN_HOLDER) {
        return known->on_cpu;
    }
    PyThreadState *here = PyThreadState_Get();
    const bool held_gil = known->key.tstate == request->gil_holder;
    return pyprof_is_own_thread(pyprof_native_thread_id(here))
               ? held_gil
               : known->key.tstate == here && (held_gil || known->on_cpu);
}

enum { NEARLY_ALL = 10 };

/* What a thread that had run when the clocks were read is doing at a late snapshot. */
static void look_again(const pyprof_snapshot_request *request, const pyprof_thread *known,
                       pyprof_thread_view *view) {
    if (!made_it_late(request, known)) {
        view->moved_on = known->on_cpu;
        return;
    }
    const int64_t meanwhile = request->snapshot->taken_ns - request->asked_ns;
    view->clock_ns = pyprof_thread_cpu_ns(view->key.tid);
    view->kept_cpu = view->clock_ns - known->clock_ns > meanwhile - meanwhile / NEARLY_ALL;
}

/* No frames and no clock of its own yet. */
static bool is_starting(PyThreadState *tstate, uint64_t tid, bool is_new) {
    if (tid != 0 && is_new && pyprof_new_thread_has_creators_id()) {
        for (PyThreadState *older = PyThreadState_Next(tstate); older != NULL;
             older = PyThreadState_Next(older)) {
            if (pyprof_native_thread_id(older) == tid) {
                return true;
            }
        }
    }
    return tid == 0;
}

static bool take_thread(const pyprof_snapshot_request *request, PyThreadState *tstate, bool late) {
    const pyprof_threads *known = request->known;
    const pyprof_thread_key key = {tstate, PyThreadState_GetID(tstate), pyprof_native_thread_id(tstate)};
    if (pyprof_is_own_thread(key.tid)) {
        return true;
    }
    const size_t place = pyprof_snapshot_find(request, &key);
    if (is_starting(tstate, key.tid, place >= known->count)) {
        request->snapshot->has_starting = true;
        return true;
    }
    pyprof_thread_view *view = pyprof_snapshot_add(request, &key);
    if (view == NULL || (pyprof_snapshot_needs_walk(request, place) && !walk(request, tstate, view))) {
        return false;
    }
    if (late || tstate == PyThreadState_Get()) {
        view->instruction = NULL; /* it serves this snapshot, or stood elsewhere at the tick */
    }
    if (place >= known->count) {
        /* It serves this snapshot, or had the GIL before, or is in C code without it. */
        view->presence = tstate == PyThreadState_Get() || tstate == request->gil_holder ||
                         pyprof_thread_is_on_cpu(key.tid) || pyprof_thread_is_runnable(key.tid) == PYPROF_YES;
    } else if (late && known->items[place].moved) {
        look_again(request, &known->items[place], view);
    }
    return true;
}

bool pyprof_snapshot_take(const pyprof_snapshot_request *request) {
    if (!pyprof_hold_thread_states()) {
        return false;
    }
    pyprof_snapshot_begin(request);
    const bool late = request->snapshot->taken_ns - request->asked_ns > PYPROF_LATE_NS;
    bool taken = true;
    pyprof_code_cache_begin_snapshot();
    for (PyThreadState *tstate = PyInterpreterState_ThreadHead(request->interp); tstate != NULL && taken;
         tstate = PyThreadState_Next(tstate)) {
        taken = take_thread(request, tstate, late);
    }
    pyprof_release_thread_states();
    return taken;
}

void pyprof_snapshot_free(pyprof_snapshot *snapshot) {
    forget_threads(snapshot);
    free(snapshot->threads);
    free(snapshot->frames);
    memset(snapshot, 0, sizeof(*snapshot));
}

#endif
