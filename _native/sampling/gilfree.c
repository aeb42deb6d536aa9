/* See gilfree.h. */
#ifndef PYPROF_PORTABLE
#include "sampling/gilfree.h"

#include "cpython/live_stacks.h"
#include "sampling/clocks.h"
#include "sampling/own_threads.h"
#include "symbols/code_cache.h"

static pyprof_symbol *symbol_of(PyCodeObject *code) { return pyprof_code_cache_find(code); }

static bool walk(const pyprof_snapshot_request *request, pyprof_live_thread *thread, pyprof_thread_view *view,
                 pyprof_gilfree_losses *losses) {
    static pyprof_code_frame frames[PYPROF_MAX_DEPTH + PYPROF_SPARE_FRAMES]; /* too large for the stack */
    size_t max = request->max_frames < PYPROF_MAX_DEPTH ? request->max_frames : PYPROF_MAX_DEPTH;
    size_t depth;
    switch (pyprof_walk_live(thread, pyprof_code_cache_find_shape, frames, max, &depth, &view->truncated)) {
    case PYPROF_LIVE_UNVERIFIED:
        losses->unverified++;
        break;
    case PYPROF_LIVE_EXACT:
        break;
    case PYPROF_LIVE_TORN:
        losses->torn++;
        return false;
    case PYPROF_LIVE_UNKNOWN_CODE:
        return false;
    }
    return pyprof_snapshot_add_frames(request, view, frames, depth, symbol_of);
}

/* A thread that nobody has seen before. */
static bool is_on_cpu(const pyprof_snapshot_request *request, const pyprof_thread_key *key) {
    int64_t clock = pyprof_thread_cpu_ns(key->tid);
    return key->tstate == request->gil_holder || pyprof_thread_cpu_ns(key->tid) > clock ||
           pyprof_thread_attached(key->tstate);
}

enum { MOST_THREADS = 100000 }; /* against a list that was changed into a ring while it was read */

bool pyprof_gilfree_take(const pyprof_snapshot_request *request, pyprof_gilfree_losses *losses) {
    if (pyprof_code_cache_needs_snapshot()) {
        return false;
    }
    pyprof_snapshot_begin(request);
    const char *previous = NULL, *address = pyprof_newest_thread(request->interp);
    for (size_t n = 0; address != NULL; n++) {
        pyprof_live_thread thread;
        if (n == MOST_THREADS || !pyprof_live_thread_read(address, &thread) ||
            thread.interp != request->interp || thread.previous != previous) {
            losses->torn++;
            return false; /* a thread has ended here, or begun */
        }
        previous = address;
        address = thread.next;
        const pyprof_thread_key key = {thread.address, thread.unique_id, thread.tid};
        if (key.tid == 0 || pyprof_is_own_thread(key.tid)) {
            continue;
        }
        size_t place;
        pyprof_thread_view *view = pyprof_snapshot_add(request, &key, &place);
        if (view == NULL) {
            return false;
        }
        if (place >= request->known->count) {
            view->on_cpu = is_on_cpu(request, &key);
        }
        if (pyprof_snapshot_needs_walk(request, place) && !walk(request, &thread, view, losses)) {
            return false;
        }
    }
    return true;
}

#endif
