/* See live_stacks.h. */
#define Py_BUILD_CORE 1 /* _PyInterpreterFrame, generator states and _Py_DebugOffsets are internal */
#include "cpython/version.h"

#if PYPROF_KNOWN_LAYOUT
#include "internal/pycore_frame.h"
#include "internal/pycore_runtime.h"
#if PY_VERSION_HEX >= 0x030e0000
#include "internal/pycore_interpframe_structs.h"
#endif
#if PYPROF_FREE_THREADED
#include "internal/pycore_code.h"
#endif
#endif
#undef Py_BUILD_CORE

#include "cpython/guarded_read.h"
#include "cpython/known_calls.h"
#include "cpython/live_stacks.h"

#include <stdlib.h>
#include <string.h>

#if PYPROF_KNOWN_LAYOUT

/* Where things stand. `_Py_DebugOffsets` knows most of it at run time; what it lacks stands before the fields
 * that patch releases have moved, and is proved on the own thread. */
#if PYPROF_HAS_DEBUG_OFFSETS
#define THREAD_FIELD(name) (_PyRuntime.debug_offsets.thread_state.name)
#define FRAME_FIELD(name, offset) (_PyRuntime.debug_offsets.interpreter_frame.offset)
#define FRAME_EXECUTABLE FRAME_FIELD(, executable)
#define FRAME_IP FRAME_FIELD(, instr_ptr)
#define FRAME_IN_HOLDER 0
#else
#define THREAD_FIELD(name) (offsetof(PyThreadState, name))
#define FRAME_FIELD(name, offset) (offsetof(_PyInterpreterFrame, name))
#define FRAME_EXECUTABLE FRAME_FIELD(f_code, )
#define FRAME_IP FRAME_FIELD(prev_instr, )
#define FRAME_IN_HOLDER (offsetof(_PyCFrame, current_frame))
#endif
#define FRAME_PREVIOUS FRAME_FIELD(previous, previous)
#define FRAME_OWNER FRAME_FIELD(owner, owner)

enum {
    THREAD_BYTES = offsetof(PyThreadState, datastack_limit) + sizeof(void *),
    FRAME_BYTES = offsetof(_PyInterpreterFrame, localsplus),
    BEFORE_GENERATORS_FRAME = offsetof(PyGenObject, gi_iframe),
};

static inline const char *pointer_at(const char *copy, uint64_t offset) {
    const char *value;
    memcpy(&value, copy + offset, sizeof(value));
    return value;
}

/* -- threads -- */

_Static_assert((int)THREAD_BYTES <= (int)PYPROF_LIVE_THREAD_BYTES, "a thread state is larger than its copy");

static void parse(const char *copy, pyprof_live_thread *thread) {
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

void pyprof_live_parse(pyprof_live_thread *thread) { parse(thread->copy, thread); }

static bool read_thread(pyprof_live_thread *thread) {
    const pyprof_read whole = {thread->copy, thread->address, THREAD_BYTES};
    if (!pyprof_read_memory(&whole, 1)) {
        return false;
    }
    pyprof_live_parse(thread);
    return true;
}

static bool is_same_thread(const pyprof_live_thread *a, const pyprof_live_thread *b) {
    return a->unique_id == b->unique_id && a->tid == b->tid && a->interp == b->interp;
}

static bool is_at_same_place(const pyprof_live_thread *a, const pyprof_live_thread *b) {
    return is_same_thread(a, b) && a->frame_holder == b->frame_holder && a->frame == b->frame &&
           a->chunk == b->chunk && a->top == b->top;
}

/* -- copies of a stack -- */

enum {
    /* A chunk is 16 KiB, larger only where one frame does not fit into that. */
    MOST_CHUNK_BYTES = 64 * 1024,
    /* What the thread may have pushed since its top was read. */
    GROWTH_BYTES = 1024,
    MOST_STRAYS = 8,
    MOST_C_FRAMES = 64,
};

/* A frame that does not lie on the data stack: a generator's, inside the generator object, or C code's, on
 * the C stack. */
typedef struct {
    const char *frame;
    char object[BEFORE_GENERATORS_FRAME + FRAME_BYTES]; /* from where a generator would begin */
} stray_frame;

/* A frame of C code, which says nothing but where the one before it is: still the same, if that lies on the
 * data stack next to the one after it. */
typedef struct {
    const char *frame, *previous;
} c_frame;

struct pyprof_live_stack {
    pyprof_live_thread asked; /* where the copy was looked for */
    char after[THREAD_BYTES]; /* the thread state once more, after the frames */
    const char *frame_before, *frame_after;
    char *chunk;
    size_t chunk_capacity, chunk_bytes;
    stray_frame strays[MOST_STRAYS]; /* copied */
    size_t stray_count;
    const char *expected[MOST_STRAYS]; /* to be copied the next time */
    size_t expected_count;
    c_frame c_frames[MOST_C_FRAMES]; /* by address, as they were last read */
};

pyprof_live_stack *pyprof_live_stack_new(void) { return calloc(1, sizeof(pyprof_live_stack)); }

void pyprof_live_stack_free(pyprof_live_stack *stack) {
    if (stack != NULL) {
        free(stack->chunk);
        free(stack);
    }
}

size_t pyprof_live_stack_bytes(const pyprof_live_stack *stack) {
    return stack == NULL ? 0 : sizeof(*stack) + stack->chunk_capacity;
}

static pyprof_read read_of_stray(stray_frame *stray, const char *frame) {
    stray->frame = frame;
    return (pyprof_read){stray->object, frame - BEFORE_GENERATORS_FRAME, sizeof(stray->object)};
}

static bool is_sane_chunk(const pyprof_live_thread *thread) {
    const uintptr_t chunk = (uintptr_t)thread->chunk, top = (uintptr_t)thread->top;
    const uintptr_t limit = (uintptr_t)thread->limit;
    return chunk != 0 && chunk % sizeof(void *) == 0 && top % sizeof(void *) == 0 && top > chunk &&
           top <= limit && limit - chunk <= MOST_CHUNK_BYTES;
}

bool pyprof_live_stack_moves(void) { return PYPROF_FRAME_ON_C_STACK; }

_Static_assert((int)MOST_STRAYS + 5 <= (int)PYPROF_LIVE_READS, "more reads than were promised");

/* The thread's state, its frames, and its state again, in one go. */
bool pyprof_live_reads(pyprof_live_thread *thread, pyprof_live_stack *stack, pyprof_read *reads,
                       size_t *count) {
    size_t n = 0;
    reads[n++] = (pyprof_read){thread->copy, thread->address, THREAD_BYTES};
    if (stack != NULL) {
        const char *holder = thread->frame_holder;
        stack->asked = *thread;
        stack->frame_before = stack->frame_after = NULL;
        stack->stray_count = 0;
        stack->chunk_bytes = 0;
        if (holder != NULL) {
            reads[n++] = (pyprof_read){&stack->frame_before, holder + FRAME_IN_HOLDER, sizeof(void *)};
        }
        for (size_t i = 0; i < stack->expected_count; i++) {
            reads[n++] = read_of_stray(&stack->strays[stack->stray_count++], stack->expected[i]);
        }
        if (is_sane_chunk(thread)) {
            size_t room = (size_t)(thread->limit - thread->top);
            size_t bytes =
                (size_t)(thread->top - thread->chunk) + (room < GROWTH_BYTES ? room : GROWTH_BYTES);
            if (bytes > stack->chunk_capacity) {
                const size_t wanted = bytes + bytes / 2;
                free(stack->chunk);
                stack->chunk = malloc(wanted);
                stack->chunk_capacity = stack->chunk == NULL ? 0 : wanted;
                if (stack->chunk == NULL) {
                    return false;
                }
            }
            stack->chunk_bytes = bytes;
            reads[n++] = (pyprof_read){stack->chunk, thread->chunk, bytes};
        }
        if (holder != NULL) {
            reads[n++] = (pyprof_read){&stack->frame_after, holder + FRAME_IN_HOLDER, sizeof(void *)};
        }
        reads[n++] = (pyprof_read){stack->after, thread->address, THREAD_BYTES};
    }
    *count = n;
    return true;
}

static void expect_stray(pyprof_live_stack *stack, const char *frame) {
    if (stack->expected_count < MOST_STRAYS) {
        stack->expected[stack->expected_count++] = frame;
    }
}

static const stray_frame *find_stray(const pyprof_live_stack *stack, const char *frame) {
    for (size_t i = 0; i < stack->stray_count; i++) {
        if (stack->strays[i].frame == frame) {
            return &stack->strays[i];
        }
    }
    return NULL;
}

/* Whether the copy is of the stack that the thread has. `*after`: the thread after it was copied. */
static bool is_copy_of(pyprof_live_thread *thread, const pyprof_live_stack *stack,
                       pyprof_live_thread *after) {
    *after = *thread;
    parse(stack->after, after);
#if PYPROF_FRAME_ON_C_STACK
    thread->frame = stack->frame_before;
    after->frame = stack->frame_after;
#endif
    return is_same_thread(thread, &stack->asked) && thread->chunk == stack->asked.chunk &&
           thread->frame_holder == stack->asked.frame_holder &&
           (thread->chunk == NULL || (stack->chunk_bytes > 0 && thread->top > thread->chunk &&
                                      thread->top <= thread->chunk + stack->chunk_bytes));
}

/* -- one walk -- */

typedef struct {
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
    bool new_call;       /* never seen with the GIL */
    bool unknown_call;   /* nor by the last copy */
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

static bool is_executing_generator(const char *object) {
    const char *type = pointer_at(object, offsetof(PyObject, ob_type));
    return (type == (const char *)&PyGen_Type || type == (const char *)&PyCoro_Type ||
            type == (const char *)&PyAsyncGen_Type) &&
           object[offsetof(PyGenObject, gi_frame_state)] == FRAME_EXECUTING;
}

static c_frame *place_of_c_frame(walk_state *walk, const char *frame) {
    return &walk->stack->c_frames[(uintptr_t)frame / sizeof(void *) % MOST_C_FRAMES];
}

/* Whether a frame that lies on the data stack ends where the one after it begins. */
static bool is_next(const walk_state *walk, const char *frame) {
    if (!walk->end_is_exact || !is_in_chunk(walk, frame)) {
        return false;
    }
    const char *copy = walk->chunk + (frame - walk->chunk_address);
    pyprof_code_shape *shape = walk->find(code_of(copy));
    return shape != NULL && frame + shape->frame_bytes == walk->frame_end;
}

/* What comes before a frame that was C code's the last time, if it still is; else NULL. */
static const char *skip_c_frame(walk_state *walk, const char *frame) {
    const c_frame *known = place_of_c_frame(walk, frame);
    return !walk->reads_c_frames && known->frame == frame && is_next(walk, known->previous) ? known->previous
                                                                                            : NULL;
}

static const char *copy_of_stray(walk_state *walk, const char *frame, stray_frame *space) {
    const stray_frame *stray = find_stray(walk->stack, frame);
    if (stray == NULL) {
        const pyprof_read one = read_of_stray(space, frame);
        if ((uintptr_t)frame % sizeof(void *) != 0 || !pyprof_read_memory(&one, 1)) {
            return NULL;
        }
        walk->read_more = true;
        stray = space;
    }
    const char *copy = stray->object + BEFORE_GENERATORS_FRAME;
    char owner = copy[FRAME_OWNER];
    if (owner >= PYPROF_FIRST_NON_PYTHON_OWNER) {
        *place_of_c_frame(walk, frame) = (c_frame){frame, pointer_at(copy, FRAME_PREVIOUS)};
        return copy;
    }
    if (owner != FRAME_OWNED_BY_GENERATOR || !is_executing_generator(stray->object)) {
        return NULL;
    }
    expect_stray(walk->stack, frame);
    return copy;
}

static const char *bytecode_of(const char *frame, const char *code, pyprof_code_shape *shape) {
#if PYPROF_FREE_THREADED
    /* Each thread runs its own copy of the bytecode. A copy stays where it is, or goes for good. */
    const _Py_DebugOffsets *at = &_PyRuntime.debug_offsets;
    int32_t index;
    memcpy(&index, frame + at->interpreter_frame.tlbc_index, sizeof(index));
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
    if (walk->depth > 1) {
        pyprof_call_kind call = pyprof_look_up_call(frame, frame - 1, address);
        walk->new_call |= call != PYPROF_CALL_KNOWN;
        walk->unknown_call |= call == PYPROF_CALL_UNKNOWN;
    }
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
        stray_frame space;
        const char *copy;
        if (i == most_frames) {
            return PYPROF_LIVE_TORN;
        }
        const char *after_c_frame = NULL;
        if (is_in_chunk(walk, frame)) {
            copy = walk->chunk + (frame - walk->chunk_address);
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

static pyprof_live_result walk_copy(pyprof_live_thread *thread, walk_state *walk) {
    pyprof_live_stack *stack = walk->stack;
    pyprof_live_thread after;
    if (!is_copy_of(thread, stack, &after)) {
        return PYPROF_LIVE_TORN;
    }
    if (thread->chunk != NULL) {
        walk->chunk = stack->chunk;
        walk->chunk_address = thread->chunk;
        walk->chunk_end = walk->frame_end = thread->top;
    }
    stack->expected_count = 0;
    if (thread->frame != NULL && !is_in_chunk(walk, thread->frame) &&
        find_stray(stack, thread->frame) == NULL) {
        /* A generator may yield at once: read later, it would be found asleep more often than its caller is
         * found gone, and lose samples to it. */
        expect_stray(stack, thread->frame);
        return PYPROF_LIVE_TORN;
    }
    pyprof_live_result result = walk_frames(walk, thread->frame);
    if (result != PYPROF_LIVE_EXACT) {
        return result;
    }
    if (walk->unknown_call) {
        return PYPROF_LIVE_UNKNOWN;
    }
    if (walk->read_more) {
        pyprof_live_thread last = *thread;
        if (!read_thread(&last)) {
            return PYPROF_LIVE_TORN;
        }
        after = is_at_same_place(&last, thread) ? after : last;
    }
    return walk->new_call                     ? PYPROF_LIVE_NEW_CALL
           : is_at_same_place(thread, &after) ? PYPROF_LIVE_EXACT
                                              : PYPROF_LIVE_UNVERIFIED;
}

static bool copy_again(pyprof_live_thread *thread, pyprof_live_stack *stack) {
    pyprof_live_thread now = *thread;
    if (!read_thread(&now) || !is_same_thread(&now, thread)) {
        return false;
    }
    pyprof_read reads[PYPROF_LIVE_READS];
    size_t count;
    *thread = now;
    if (!pyprof_live_reads(thread, stack, reads, &count)) {
        return false;
    }
    if (!pyprof_read_memory(reads, count)) {
        stack->expected_count = 0; /* what was expected may be gone */
        stack->chunk_bytes = 0;
        return true;
    }
    pyprof_live_parse(thread);
    return true;
}

enum { MOST_ATTEMPTS = 10, MOST_UNKNOWN = 3 };

pyprof_live_result pyprof_walk_live(pyprof_live_thread *thread, pyprof_live_stack *stack, bool is_copied,
                                    pyprof_find_code find, pyprof_code_frame *frames, size_t max,
                                    size_t *depth, bool *truncated) {
    pyprof_live_result result = PYPROF_LIVE_TORN;
    int unknown = 0;
    pyprof_known_calls_begin_walk();
    for (int attempt = 0; attempt < MOST_ATTEMPTS && unknown < MOST_UNKNOWN; attempt++) {
        if ((attempt > 0 || !is_copied) && !copy_again(thread, stack)) {
            return PYPROF_LIVE_TORN;
        }
        walk_state walk = {.find = find, .frames = frames, .max = max, .stack = stack};
        walk.reads_c_frames = unknown > 0; /* a generator may be between them now */
        result = walk_copy(thread, &walk);
        *depth = walk.depth;
        *truncated = walk.truncated;
        if (result != PYPROF_LIVE_TORN && result != PYPROF_LIVE_UNKNOWN) {
            return result;
        }
        unknown += result == PYPROF_LIVE_UNKNOWN;
    }
    return result;
}

/* -- proof -- */

static pyprof_code_shape *shape_of_live_code(const void *code) {
    static pyprof_code_shape shape;
    shape = pyprof_code_shape_of((PyCodeObject *)code);
    return &shape;
}

enum { PROOF_DEPTH = 64 };

static bool offsets_are_in_bounds(void) {
#if PYPROF_HAS_DEBUG_OFFSETS
    return FRAME_PREVIOUS + sizeof(void *) <= FRAME_BYTES &&
           FRAME_EXECUTABLE + sizeof(void *) <= FRAME_BYTES && FRAME_IP + sizeof(void *) <= FRAME_BYTES &&
           FRAME_OWNER < FRAME_BYTES && THREAD_FIELD(native_thread_id) + sizeof(long) <= THREAD_BYTES &&
           THREAD_FIELD(current_frame) + sizeof(void *) <= THREAD_BYTES;
#else
    return true;
#endif
}

const char *pyprof_live_stacks_obstacle(void) {
    static const char *const wrong_layout = "the interpreter's threads are not laid out as expected";
    if (!pyprof_can_read_memory()) {
        return "this process may not read its own memory through the kernel (process_vm_readv)";
    }
    if (!pyprof_layout_is_trusted() || !offsets_are_in_bounds()) {
        return wrong_layout;
    }
    PyThreadState *own = PyThreadState_Get();
    pyprof_live_thread thread = {.address = (const char *)own};
    if (!read_thread(&thread) || thread.interp != PyThreadState_GetInterpreter(own) ||
        thread.unique_id != PyThreadState_GetID(own) || thread.tid != pyprof_native_thread_id(own) ||
        thread.next != (const char *)PyThreadState_Next(own)) {
        return wrong_layout;
    }
    static pyprof_code_frame raw[PROOF_DEPTH + PYPROF_SPARE_FRAMES], live[PROOF_DEPTH + PYPROF_SPARE_FRAMES];
    bool raw_truncated, live_truncated = false;
    size_t live_depth = 0;
    size_t raw_depth = pyprof_walk_raw(own, raw, PROOF_DEPTH, &raw_truncated);
    pyprof_live_stack *stack = pyprof_live_stack_new();
    pyprof_live_learn_calls(raw, raw_depth);
    bool is_exact =
        stack != NULL && pyprof_walk_live(&thread, stack, false, shape_of_live_code, live, PROOF_DEPTH,
                                          &live_depth, &live_truncated) == PYPROF_LIVE_EXACT;
    pyprof_live_stack_free(stack);
    if (!is_exact || live_depth != raw_depth || live_truncated != raw_truncated) {
        return wrong_layout;
    }
    for (size_t i = 0; i < raw_depth; i++) {
        if (live[i].code != raw[i].code || live[i].lasti != raw[i].lasti || live[i].begun != raw[i].begun) {
            return wrong_layout;
        }
    }
    return NULL;
}

#else

pyprof_live_stack *pyprof_live_stack_new(void) { return NULL; }

void pyprof_live_stack_free(pyprof_live_stack *stack) { (void)stack; }

size_t pyprof_live_stack_bytes(const pyprof_live_stack *stack) { return (void)stack, 0; }

bool pyprof_live_reads(pyprof_live_thread *thread, pyprof_live_stack *stack, pyprof_read *reads,
                       size_t *count) {
    (void)thread, (void)stack, (void)reads, (void)count;
    return false;
}

bool pyprof_live_stack_moves(void) { return false; }

void pyprof_live_parse(pyprof_live_thread *thread) { (void)thread; }

pyprof_live_result pyprof_walk_live(pyprof_live_thread *thread, pyprof_live_stack *stack, bool is_copied,
                                    pyprof_find_code find, pyprof_code_frame *frames, size_t max,
                                    size_t *depth, bool *truncated) {
    (void)thread, (void)stack, (void)is_copied, (void)find, (void)frames, (void)max, (void)depth;
    *truncated = false;
    return PYPROF_LIVE_TORN;
}

const char *pyprof_live_stacks_obstacle(void) {
    return "this version of CPython is not known to this version of pyprof";
}

#endif
