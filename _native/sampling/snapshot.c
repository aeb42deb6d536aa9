/* See snapshot.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "cpython/gil.h"
#include "cpython/interpreter.h"
#include "cpython/live_stacks.h"
#include "sampling/clocks.h"
#include "sampling/growing.h"
#include "sampling/own_threads.h"
#include "sampling/proc.h"
#include "symbols/code_cache.h"

void pyprof_snapshot_begin(const pyprof_snapshot_request *request) {
    pyprof_snapshot *snapshot = request->snapshot;
    snapshot->thread_count = 0;
    snapshot->frame_count = 0;
    snapshot->taken_ns = pyprof_monotonic_ns();
    snapshot->has_starting = false;
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

bool pyprof_snapshot_needs_walk(const pyprof_snapshot_request *request, size_t place) {
    return place >= request->known->count || !request->known->items[place].stack_is_current;
}

bool pyprof_snapshot_add_frames(const pyprof_snapshot_request *request, pyprof_thread_view *view,
                                const pyprof_code_frame *frames, size_t depth,
                                pyprof_symbol *(*symbol_of)(PyCodeObject *)) {
    pyprof_snapshot *snapshot = request->snapshot;
    if (!pyprof_reserve((void **)&snapshot->frames, &snapshot->frame_capacity, snapshot->frame_count + depth,
                        sizeof(pyprof_frame))) {
        return false;
    }
    view->walked = true;
    view->first_frame = snapshot->frame_count;
    for (size_t i = 0; i < depth; i++) {
        pyprof_symbol *symbol = symbol_of(frames[i].code);
        if (symbol == NULL) {
            return false;
        }
        if (frames[i].begun) {
            snapshot->frames[snapshot->frame_count++] = (pyprof_frame){symbol, frames[i].lasti};
            view->depth++;
        }
    }
    return true;
}

static bool walk(const pyprof_snapshot_request *request, PyThreadState *tstate, pyprof_thread_view *view) {
    /* Static: too large for the stacks of some threads that take snapshots. */
    static pyprof_code_frame frames[PYPROF_MAX_DEPTH + PYPROF_SPARE_FRAMES];
    size_t max = request->max_frames < PYPROF_MAX_DEPTH ? request->max_frames : PYPROF_MAX_DEPTH;
    size_t depth = request->raw_walk ? pyprof_walk_raw(tstate, frames, max, &view->truncated)
                                     : pyprof_walk_public(tstate, frames, max, &view->truncated);
    pyprof_live_learn_calls(frames, depth, true);
    return pyprof_snapshot_add_frames(request, view, frames, depth, pyprof_code_cache_get);
}

/* Whether the thread's C call made a late snapshot late. A pending call runs on the thread that holds the
 * GIL; the timer gets the GIL from who held it. Without a GIL, or if that cannot be told, it may have been
 * any that was on a CPU: the others have been waiting for it. */
static bool made_it_late(const pyprof_snapshot_request *request, const void *tstate) {
    if (pyprof_is_free_threaded()) {
        return true;
    }
    PyThreadState *here = PyThreadState_Get();
    if (!pyprof_is_own_thread(pyprof_native_thread_id(here))) {
        return tstate == here;
    }
    return tstate == request->gil_holder || request->gil_holder == PYPROF_UNKNOWN_HOLDER;
}

/* What a thread that was on a CPU when the clocks were read is doing at a late snapshot. */
static void look_again(const pyprof_snapshot_request *request, pyprof_thread_view *view) {
    view->moved_on = !made_it_late(request, view->key.tstate);
    if (!view->moved_on) {
        view->clock_ns = pyprof_thread_cpu_ns(view->key.tid);
    }
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

bool pyprof_snapshot_take(const pyprof_snapshot_request *request) {
    const pyprof_threads *known = request->known;
    pyprof_snapshot_begin(request);
    bool late = request->snapshot->taken_ns - request->asked_ns > PYPROF_LATE_NS;
    pyprof_code_cache_begin_snapshot();
    for (PyThreadState *tstate = PyInterpreterState_ThreadHead(request->interp); tstate != NULL;
         tstate = PyThreadState_Next(tstate)) {
        const pyprof_thread_key key = {tstate, PyThreadState_GetID(tstate), pyprof_native_thread_id(tstate)};
        if (pyprof_is_own_thread(key.tid)) {
            continue;
        }
        const size_t place = pyprof_snapshot_find(request, &key);
        if (is_starting(tstate, key.tid, place >= known->count)) {
            request->snapshot->has_starting = true;
            continue;
        }
        pyprof_thread_view *view = pyprof_snapshot_add(request, &key);
        if (view == NULL || (pyprof_snapshot_needs_walk(request, place) && !walk(request, tstate, view))) {
            return false;
        }
        if (place >= known->count) {
            /* It serves this snapshot, or had the GIL before, or is in C code without it. */
            view->on_cpu = tstate == PyThreadState_Get() || tstate == request->gil_holder ||
                           pyprof_thread_is_on_cpu(key.tid) || pyprof_thread_is_runnable(key.tid);
        } else if (late && known->items[place].on_cpu) {
            look_again(request, view);
        }
    }
    return true;
}

void pyprof_snapshot_free(pyprof_snapshot *snapshot) {
    free(snapshot->threads);
    free(snapshot->frames);
    memset(snapshot, 0, sizeof(*snapshot));
}

#endif
