/* The walk over a copied stack. See live_stacks.h. */
#include "cpython/live_private.h"

#include "cpython/known_calls.h"

#if PYPROF_KNOWN_LAYOUT

/* Which copy of the innermost frames is walked: the one that is nearer to the thread state, or the other. */
typedef enum { EARLIER_COPY, LATER_COPY } walk_view;

typedef struct {
    walk_view view;
    pyprof_find_code find;
    pyprof_code_frame *frames;
    size_t max, depth, begun;
    bool truncated;
    pyprof_live_stack *stack;
    /* The chunk at hand, and where the next frame on it must end: exactly there, or, for the first, not
     * beyond. */
    const char *chunk, *chunk_address, *chunk_end, *frame_end;
    bool end_is_exact;
    bool reads_c_frames; /* takes none of them as it was the last time */
    bool read_more;      /* frames that were not copied with the others, but later */
    bool moved;          /* the two copies of a frame differ, or there is but one of the innermost */
    bool unknown_call;
} walk_state;

/* In the timer thread only. */
static char older_chunk[MOST_CHUNK_BYTES];

/* The thread went on to this chunk when the frames of the one before it left no room. */
static bool go_to_previous_chunk(walk_state *walk) {
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

static const char *earlier_copy_at(const walk_state *walk, size_t offset) {
    const pyprof_live_stack *stack = walk->stack;
    return walk->chunk == stack->chunk && offset >= stack->top_offset &&
                   offset + FRAME_BYTES <= stack->top_end
               ? stack->earlier_top + (offset - stack->top_offset)
               : NULL;
}

/* Of a frame that is in the chunk at hand. */
static const char *copy_in_chunk(const walk_state *walk, const char *frame) {
    const size_t offset = (size_t)(frame - walk->chunk_address);
    const char *earlier = walk->view == EARLIER_COPY ? earlier_copy_at(walk, offset) : NULL;
    return earlier == NULL ? walk->chunk + offset : earlier;
}

/* Frames further out than those that are copied twice are as they were if the ones that they called are. */
static bool has_moved(const walk_state *walk, const char *earlier, const char *copy) {
    if (earlier == NULL) {
        return walk->depth == 0;
    }
    return pointer_at(earlier, FRAME_EXECUTABLE) != pointer_at(copy, FRAME_EXECUTABLE) ||
           pointer_at(earlier, FRAME_PREVIOUS) != pointer_at(copy, FRAME_PREVIOUS) ||
           (walk->depth > 0 && pointer_at(earlier, FRAME_IP) != pointer_at(copy, FRAME_IP));
}

/* `frame` may be any word that was read: nothing may be concluded from a comparison that wraps around. */
static bool is_in_chunk(const walk_state *walk, const char *frame) {
    if (walk->chunk_address == NULL || (uintptr_t)frame % sizeof(void *) != 0) {
        return false;
    }
    const uintptr_t at = (uintptr_t)frame - (uintptr_t)walk->chunk_address;
    const uintptr_t size = (uintptr_t)walk->chunk_end - (uintptr_t)walk->chunk_address;
    return at >= offsetof(_PyStackChunk, data) && at <= size && size - at >= FRAME_BYTES;
}

static const void *code_of(const char *frame) {
    uintptr_t executable = (uintptr_t)pointer_at(frame, FRAME_EXECUTABLE);
#if PYPROF_TAGGED_EXECUTABLE
    executable &= ~(uintptr_t)3;
#endif
    return (const void *)executable;
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

/* What comes before a frame that was C code's the last time, if it still is; else NULL. */
static const char *skip_c_frame(walk_state *walk, const char *frame) {
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

static const char *copy_of_stray(walk_state *walk, const char *frame, pyprof_stray_frame *space) {
    pyprof_live_stack *stack = walk->stack;
    const size_t place = pyprof_find_stray(stack, frame);
    pyprof_stray_frame *stray = space;
    if (place < stack->stray_count) {
        pyprof_stray_frame *earlier = &stack->earlier_strays[place], *later = &stack->strays[place];
        walk->moved |= has_moved(walk, earlier->object + BEFORE_GENERATORS_FRAME,
                                 later->object + BEFORE_GENERATORS_FRAME);
        const bool takes_later =
            walk->view == LATER_COPY ? is_what_it_seems(later) : !is_what_it_seems(earlier);
        stray = takes_later ? later : earlier;
    } else {
        const pyprof_read one = pyprof_read_of_stray(space, frame);
        if ((uintptr_t)frame % sizeof(void *) != 0 || !pyprof_read_memory(&one, 1)) {
            return NULL;
        }
        walk->read_more = true;
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

static const char *bytecode_of(const char *frame, const char *code, pyprof_code_shape *shape) {
#if PYPROF_FREE_THREADED
    /* Each thread runs its own copy of the bytecode. A copy stays where it is, or goes for good. */
    const _Py_DebugOffsets *at = &_PyRuntime.debug_offsets;
    int32_t index;
    memcpy(&index, frame + FRAME_BYTECODE_COPY, sizeof(index));
    const char *ip = pointer_at(frame, FRAME_IP);
    if (shape->bytecode != NULL && shape->bytecode_copy == index && ip >= shape->bytecode &&
        ip < shape->bytecode + shape->bytecode_bytes) {
        return shape->bytecode;
    }
    const char *copies;
    _PyCodeArray header;
    const pyprof_read table = {&copies, code + at->code_object.co_tlbc, sizeof(copies)};
    if (!pyprof_read_memory(&table, 1)) {
        return NULL;
    }
    const pyprof_read size = {&header, copies, sizeof(header)};
    if (!pyprof_read_memory(&size, 1) || index < 0 || index >= header.size) {
        return NULL;
    }
    const char *bytecode;
    const pyprof_read entry = {&bytecode,
                               copies + offsetof(_PyCodeArray, entries) + (size_t)index * sizeof(char *),
                               sizeof(bytecode)};
    if (!pyprof_read_memory(&entry, 1)) {
        return NULL;
    }
    shape->bytecode_copy = index;
    shape->bytecode = bytecode;
    return bytecode;
#else
    (void)frame;
    (void)code;
    return shape->bytecode;
#endif
}

static pyprof_live_result add_frame(walk_state *walk, const char *address, const char *copy) {
    const void *code = code_of(copy);
    pyprof_code_shape *shape = walk->find(code);
    if (shape == NULL) {
        return PYPROF_LIVE_UNKNOWN;
    }
    const char *bytecode = bytecode_of(copy, code, shape);
    const intptr_t lasti = (intptr_t)((uintptr_t)pointer_at(copy, FRAME_IP) - (uintptr_t)bytecode);
    if (bytecode == NULL || lasti < -(intptr_t)sizeof(_Py_CODEUNIT) || lasti >= shape->bytecode_bytes) {
        return PYPROF_LIVE_TORN;
    }
    bool on_data_stack = copy[FRAME_OWNER] == FRAME_OWNED_BY_THREAD;
    if (on_data_stack) {
        const char *end = address + shape->frame_bytes;
        if (walk->end_is_exact ? end != walk->frame_end : end > walk->frame_end) {
            return PYPROF_LIVE_TORN;
        }
        walk->frame_end = address;
        walk->end_is_exact = true;
    }
    bool begun = !on_data_stack || lasti >= shape->first_traceable;
    if ((begun && walk->begun == walk->max) || walk->depth == walk->max + PYPROF_SPARE_FRAMES) {
        walk->truncated = true;
        return PYPROF_LIVE_EXACT;
    }
    walk->begun += begun;
    pyprof_code_frame *frame = &walk->frames[walk->depth++];
    *frame = (pyprof_code_frame){(PyCodeObject *)code, (int32_t)lasti, begun};
    walk->unknown_call |= walk->depth > 1 && !pyprof_is_known_call(frame, frame - 1);
    /* What has not begun calls nothing, but for what the collector runs. */
    walk->moved |= walk->depth > 1 && !begun;
    return PYPROF_LIVE_EXACT;
}

/* The outermost frame on the data stack lies at its bottom; that of the first chunk leaves one word free. */
static bool ends_at_bottom(const walk_state *walk) {
    return !walk->end_is_exact ||
           (pointer_at(walk->chunk, offsetof(_PyStackChunk, previous)) == NULL &&
            walk->frame_end == walk->chunk_address + offsetof(_PyStackChunk, data) + sizeof(void *));
}

static pyprof_live_result walk_frames(walk_state *walk, const char *frame) {
    const size_t most_frames = 4 * (walk->max + PYPROF_SPARE_FRAMES);
    for (size_t i = 0; frame != NULL && !walk->truncated; i++) {
        pyprof_stray_frame space;
        const char *copy;
        if (i == most_frames) {
            return PYPROF_LIVE_TORN;
        }
        const char *after_c_frame = NULL;
        if (is_in_chunk(walk, frame)) {
            copy = copy_in_chunk(walk, frame);
            walk->moved |=
                has_moved(walk, earlier_copy_at(walk, (size_t)(frame - walk->chunk_address)), copy);
            if (copy[FRAME_OWNER] != FRAME_OWNED_BY_THREAD) {
                return PYPROF_LIVE_TORN;
            }
        } else if ((after_c_frame = skip_c_frame(walk, frame)) != NULL) {
            frame = after_c_frame;
            continue;
        } else if ((copy = copy_of_stray(walk, frame, &space)) == NULL) {
            if (walk->chunk_address == NULL || !go_to_previous_chunk(walk) || !is_in_chunk(walk, frame)) {
                return PYPROF_LIVE_TORN;
            }
            continue;
        }
        if (copy[FRAME_OWNER] < PYPROF_FIRST_NON_PYTHON_OWNER) {
            pyprof_live_result result = add_frame(walk, frame, copy);
            if (result != PYPROF_LIVE_EXACT) {
                return result;
            }
        }
        frame = pointer_at(copy, FRAME_PREVIOUS);
    }
    return walk->truncated || ends_at_bottom(walk) ? PYPROF_LIVE_EXACT : PYPROF_LIVE_TORN;
}

static pyprof_live_result walk_view_of_copy(const pyprof_live_thread *thread, walk_state *walk) {
    if (thread->chunk != NULL) {
        walk->chunk = walk->stack->chunk;
        walk->chunk_address = thread->chunk;
        /* Not its top: what is innermost was read an instant later. */
        walk->chunk_end = walk->frame_end = thread->chunk + walk->stack->chunk_bytes;
    }
    pyprof_live_result result = walk_frames(walk, thread->frame);
    if (result != PYPROF_LIVE_EXACT) {
        return result;
    }
    if (walk->read_more) {
        pyprof_live_thread last = *thread;
        if (!pyprof_live_read_thread(&last)) {
            return PYPROF_LIVE_TORN;
        }
        walk->moved |= !pyprof_is_at_same_place(&last, thread);
    }
    walk->moved |= walk->stack->frame_later != thread->frame;
    if (!walk->moved) {
#if PYPROF_FREE_THREADED
        if (walk->unknown_call) { /* with a GIL it is learned with that */
            pyprof_live_learn_calls(walk->frames, walk->depth, false);
        }
#endif
        return PYPROF_LIVE_EXACT;
    }
    return walk->unknown_call ? PYPROF_LIVE_ODD_CALL : PYPROF_LIVE_UNVERIFIED;
}

enum { MOST_ATTEMPTS = 10, MOST_UNKNOWN = 3 };

pyprof_live_result pyprof_walk_live(pyprof_live_thread *thread, pyprof_live_stack *stack, bool is_copied,
                                    pyprof_find_code find, pyprof_live_walk *walk) {
    pyprof_live_result result = PYPROF_LIVE_TORN;
    walk->gave_up_whole_copy = false;
    int unknown = 0;
    for (int attempt = 0; attempt < MOST_ATTEMPTS && unknown < MOST_UNKNOWN; attempt++) {
        if ((attempt > 0 || !is_copied) && !pyprof_live_copy_again(thread, stack, &is_copied)) {
            return PYPROF_LIVE_TORN;
        }
        result = PYPROF_LIVE_TORN;
        if (!is_copied || !pyprof_is_copy_of(thread, stack)) {
            continue;
        }
        for (walk_view view = EARLIER_COPY; view <= LATER_COPY; view++) {
            walk_state state = {
                .view = view, .find = find, .frames = walk->frames, .max = walk->max, .stack = stack};
            state.reads_c_frames = unknown > 0; /* a generator may be between them now */
            result = walk_view_of_copy(thread, &state);
            walk->depth = state.depth;
            walk->truncated = state.truncated;
            if (result < PYPROF_LIVE_ODD_CALL) {
                return result;
            }
        }
        if (result == PYPROF_LIVE_ODD_CALL && !PYPROF_FREE_THREADED) {
            return result; /* who reads with the GIL learns the call */
        }
        unknown += result != PYPROF_LIVE_TORN;
        walk->gave_up_whole_copy = true;
    }
    return result;
}

#else

pyprof_live_result pyprof_walk_live(pyprof_live_thread *thread, pyprof_live_stack *stack, bool is_copied,
                                    pyprof_find_code find, pyprof_live_walk *walk) {
    (void)thread, (void)stack, (void)is_copied, (void)find;
    walk->truncated = walk->gave_up_whole_copy = false;
    return PYPROF_LIVE_TORN;
}

#endif
