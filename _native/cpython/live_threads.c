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
    thread->context = pointer_at(copy, offsetof(PyThreadState, context));
    int tracing;
    memcpy(&tracing, copy + offsetof(PyThreadState, tracing), sizeof(tracing));
    thread->in_trace_function = tracing != 0;
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

bool pyprof_live_stands_still(const pyprof_live_thread *thread, const pyprof_live_walk *walk) {
    pyprof_live_thread now = *thread;
    const char *instruction;
    const pyprof_read reads[] = {
        {now.copy, thread->address, THREAD_BYTES},
#if PYPROF_FRAME_ON_C_STACK
        {&now.frame, thread->frame_holder + FRAME_IN_HOLDER, sizeof(now.frame)},
#endif
        {&instruction, walk->frames[0].address + FRAME_IP, sizeof(instruction)},
    };
    if (!pyprof_read_memory(reads, sizeof(reads) / sizeof(reads[0]))) {
        return false;
    }
    pyprof_live_parse(&now);
    return pyprof_is_at_same_place(&now, thread) && instruction == walk->instruction;
}

#else

bool pyprof_live_stands_still(const pyprof_live_thread *thread, const pyprof_live_walk *walk) {
    return (void)thread, (void)walk, false;
}

void pyprof_live_parse(pyprof_live_thread *thread) { (void)thread; }

#endif
