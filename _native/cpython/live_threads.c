/* Thread states of live stacks: read, parsed, compared. See live_private.h. */
#include "cpython/live_private.h"

#if PYPROF_KNOWN_LAYOUT

_Static_assert((int)THREAD_BYTES <= (int)PYPROF_LIVE_THREAD_BYTES, "a thread state is larger than its copy");

void pyprof_live_parse(pyprof_live_thread *thread) {
    const char *copy = thread->copy;
    unsigned long tid;
    memcpy(&tid, copy + THREAD_FIELD(native_thread_id), sizeof(tid));
    memcpy(&thread->unique_id, copy + offsetof(PyThreadState, id), sizeof(thread->unique_id));
    thread->tid = tid;
    thread->previous = pointer_at(copy, THREAD_FIELD(prev));
    thread->next = pointer_at(copy, THREAD_FIELD(next));
    thread->interp = pointer_at(copy, THREAD_FIELD(interp));
#if PYPROF_FRAME_ON_C_STACK
    thread->frame_holder = pointer_at(copy, offsetof(PyThreadState, cframe));
#else
    thread->frame = pointer_at(copy, THREAD_FIELD(current_frame));
#endif
    thread->chunk = pointer_at(copy, offsetof(PyThreadState, datastack_chunk));
    thread->top = pointer_at(copy, offsetof(PyThreadState, datastack_top));
    thread->limit = pointer_at(copy, offsetof(PyThreadState, datastack_limit));
}

bool pyprof_live_read_thread(pyprof_live_thread *thread) {
    const pyprof_read whole = {thread->copy, thread->address, THREAD_BYTES};
    if (!pyprof_read_memory(&whole, 1)) {
        return false;
    }
    pyprof_live_parse(thread);
    return true;
}

bool pyprof_is_same_live_thread(const pyprof_live_thread *a, const pyprof_live_thread *b) {
    return a->unique_id == b->unique_id && a->tid == b->tid && a->interp == b->interp;
}

bool pyprof_is_at_same_place(const pyprof_live_thread *a, const pyprof_live_thread *b) {
    return pyprof_is_same_live_thread(a, b) && a->frame_holder == b->frame_holder && a->frame == b->frame &&
           a->chunk == b->chunk && a->top == b->top;
}

#else

void pyprof_live_parse(pyprof_live_thread *thread) { (void)thread; }

#endif
