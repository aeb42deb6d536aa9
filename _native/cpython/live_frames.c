/* See live_frames.h. */
#include "cpython/live_frames.h"

#if PYPROF_KNOWN_LAYOUT

typedef pyprof_walk_state walk_state;

bool pyprof_go_to_newest_chunk(const pyprof_live_thread *thread, walk_state *walk) {
    if (thread->chunk != NULL) {
        walk->chunk = walk->stack->chunk;
        walk->chunk_address = thread->chunk;
        /* Not its top: what is innermost was read an instant later. */
        walk->chunk_end = walk->frame_end = thread->chunk + walk->stack->chunk_bytes;
    }
    return thread->chunk != NULL;
}

/* In the timer thread only. */
static char older_chunk[MOST_CHUNK_BYTES];

bool pyprof_go_to_previous_chunk(walk_state *walk) {
    const char *address = pointer_at(walk->chunk, offsetof(_PyStackChunk, previous));
    if (address == NULL ||
        (walk->end_is_exact && walk->frame_end != walk->chunk_address + offsetof(_PyStackChunk, data))) {
        return false;
    }
    _PyStackChunk header;
    const pyprof_read first = {&header, address, sizeof(header)};
    if (!pyprof_read_memory(&first, 1) || header.size > MOST_CHUNK_BYTES ||
        header.top > header.size / sizeof(void *)) {
        return false;
    }
    size_t size = offsetof(_PyStackChunk, data) + header.top * sizeof(void *);
    const pyprof_read rest = {older_chunk, address, size};
    if (size > header.size || !pyprof_read_memory(&rest, 1)) {
        return false;
    }
    walk->chunk = older_chunk;
    walk->chunk_address = address;
    walk->chunk_end = walk->frame_end = address + size;
    walk->end_is_exact = true;
    return true;
}

/* Frames further out than those that are copied twice are as they were if the ones that they called are: but
 * the innermost may be another call of the same function by then. */
bool pyprof_has_moved(const walk_state *walk, const char *earlier, const char *later) {
    if (earlier == NULL) {
        return walk->depth <= 1;
    }
    return pointer_at(earlier, FRAME_EXECUTABLE) != pointer_at(later, FRAME_EXECUTABLE) ||
           pointer_at(earlier, FRAME_PREVIOUS) != pointer_at(later, FRAME_PREVIOUS) ||
           (walk->depth > 0 && pointer_at(earlier, FRAME_IP) != pointer_at(later, FRAME_IP));
}

static bool is_generator(const char *object) {
    const char *type = pointer_at(object, offsetof(PyObject, ob_type));
    return type == (const char *)&PyGen_Type || type == (const char *)&PyCoro_Type ||
           type == (const char *)&PyAsyncGen_Type;
}

static bool is_executing_generator(const char *object) {
    return is_generator(object) && object[offsetof(PyGenObject, gi_frame_state)] == FRAME_EXECUTING;
}

static bool is_suspended_generator(const char *object) {
    return is_generator(object) &&
           FRAME_STATE_SUSPENDED((signed char)object[offsetof(PyGenObject, gi_frame_state)]);
}

static bool is_what_it_seems(const pyprof_stray_frame *stray) {
    const char owner = stray->object[BEFORE_GENERATORS_FRAME + FRAME_OWNER];
    return owner >= PYPROF_FIRST_NON_PYTHON_OWNER ||
           (owner == FRAME_OWNED_BY_GENERATOR && is_executing_generator(stray->object));
}

static pyprof_last_previous *place_in(pyprof_last_previous *ones, const char *frame) {
    return &ones[(uintptr_t)frame / sizeof(void *) % MOST_LAST_PREVIOUS];
}

/* Whether a frame that lies on the data stack ends where the one after it begins. */
static bool is_next(const walk_state *walk, const char *frame) {
    if (!walk->end_is_exact || !is_in_chunk(walk, frame)) {
        return false;
    }
    const char *copy = copy_in_chunk(walk, frame);
    pyprof_code_shape *shape = walk->find(code_of(copy));
    return shape != NULL && frame + shape->frame_bytes == walk->frame_end;
}

const char *pyprof_skip_c_frame(walk_state *walk, const char *frame) {
    const pyprof_last_previous *known = place_in(walk->stack->c_frames, frame);
    return !walk->reads_c_frames && known->frame == frame && is_next(walk, known->previous) ? known->previous
                                                                                            : NULL;
}

/* A generator that was innermost, and was suspended before it was copied, is part of what the thread state
 * said as any other frame: given up, those that run for microseconds would lose. What came before it is taken
 * to be what it was the last time; whether that calls it is checked as for all that has moved. */
static const char *resume(walk_state *walk, const char *frame, pyprof_stray_frame *stray) {
    const pyprof_last_previous *known = place_in(walk->stack->generators, frame);
    if (!is_suspended_generator(stray->object) || known->frame != frame) {
        return NULL;
    }
    char *copy = stray->object + BEFORE_GENERATORS_FRAME;
    memcpy(copy + FRAME_PREVIOUS, &known->previous, sizeof(known->previous));
    walk->moved = true;
    return copy;
}

const char *pyprof_copy_of_stray(walk_state *walk, const char *frame, pyprof_stray_frame *space) {
    pyprof_live_stack *stack = walk->stack;
    const size_t place = pyprof_find_stray(stack, frame);
    pyprof_stray_frame *stray = space;
    if (place < stack->stray_count) {
        pyprof_stray_frame *earlier = &stack->earlier_strays[place], *later = &stack->strays[place];
        walk->moved |= pyprof_has_moved(walk, earlier->object + BEFORE_GENERATORS_FRAME,
                                        later->object + BEFORE_GENERATORS_FRAME);
        const bool takes_later =
            walk->view == PYPROF_LATER_COPY ? is_what_it_seems(later) : !is_what_it_seems(earlier);
        stray = takes_later ? later : earlier;
    } else {
        const pyprof_read one = pyprof_read_of_stray(space, frame);
        if ((uintptr_t)frame % sizeof(void *) != 0 || !pyprof_read_memory(&one, 1)) {
            return NULL;
        }
        walk->read_later = walk->depth + 1;
    }
    const char *copy = stray->object + BEFORE_GENERATORS_FRAME;
    pyprof_expect_stray(stack, frame);
    if (!is_what_it_seems(stray)) {
        return resume(walk, frame, stray);
    }
    const bool is_c_frame = copy[FRAME_OWNER] >= PYPROF_FIRST_NON_PYTHON_OWNER;
    *place_in(is_c_frame ? stack->c_frames : stack->generators, frame) =
        (pyprof_last_previous){frame, pointer_at(copy, FRAME_PREVIOUS)};
    return copy;
}

#endif
