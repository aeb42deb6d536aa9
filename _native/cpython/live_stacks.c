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
#include "cpython/live_stacks.h"

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

static void parse_thread(const char *copy, pyprof_live_thread *thread) {
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

bool pyprof_live_thread_read(const void *tstate, pyprof_live_thread *thread) {
    char copy[THREAD_BYTES];
    const pyprof_read whole = {copy, tstate, sizeof(copy)};
    if (!pyprof_read_memory(&whole, 1)) {
        return false;
    }
    memset(thread, 0, sizeof(*thread));
    thread->address = tstate;
    parse_thread(copy, thread);
    return true;
}

static bool is_same_thread(const pyprof_live_thread *a, const pyprof_live_thread *b) {
    return a->unique_id == b->unique_id && a->tid == b->tid && a->interp == b->interp;
}

static bool is_at_same_place(const pyprof_live_thread *a, const pyprof_live_thread *b) {
    return is_same_thread(a, b) && a->frame_holder == b->frame_holder && a->frame == b->frame &&
           a->chunk == b->chunk && a->top == b->top;
}

/* -- one walk -- */

enum {
    /* A chunk is 16 KiB, larger only where one frame does not fit into that. */
    MOST_CHUNK_BYTES = 64 * 1024,
    /* What the thread may push between the look at its top and the copy. */
    GROWTH_BYTES = 1024,
};

/* In the timer thread only. */
static union {
    _PyStackChunk chunk;
    char bytes[MOST_CHUNK_BYTES];
} copied;

/* A frame that does not lie on the data stack: a generator's, inside the generator object, or C code's, on the
 * C stack. */
typedef struct {
    const char *frame;
    char object[BEFORE_GENERATORS_FRAME + FRAME_BYTES]; /* from where a generator would begin */
    const char *previous_again;
} stray_frame;

static size_t reads_of_stray(pyprof_read *reads, stray_frame *stray, const char *frame) {
    stray->frame = frame;
    reads[0] = (pyprof_read){stray->object, frame - BEFORE_GENERATORS_FRAME, sizeof(stray->object)};
    reads[1] =
        (pyprof_read){&stray->previous_again, frame + FRAME_PREVIOUS, sizeof(stray->previous_again)};
    return 2;
}

typedef struct {
    pyprof_find_code find;
    pyprof_code_frame *frames;
    size_t max, depth, begun;
    bool truncated;
    /* The chunk at hand, and where the next frame on it must end: exactly there, or, for the first, not
     * beyond. */
    _PyStackChunk *chunk;
    const char *chunk_address, *chunk_end, *frame_end;
    bool end_is_exact;
    const stray_frame *innermost; /* where that does not lie on the data stack, and is copied already */
    bool left_chunk;              /* frames were read that do not lie there, later than the chunk */
} walk_state;

static bool is_sane_chunk(const char *chunk, const char *top, const char *limit) {
    return chunk != NULL && (uintptr_t)chunk % sizeof(void *) == 0 && (uintptr_t)top % sizeof(void *) == 0 &&
           top > chunk && top <= limit && limit - chunk <= MOST_CHUNK_BYTES;
}

/* The thread's state, its innermost frame if that is `stray->frame`, its chunk, and its state again, in one
 * go. */
static bool copy_thread(pyprof_live_thread *thread, stray_frame *stray, pyprof_live_thread *after) {
    char before_copy[THREAD_BYTES], after_copy[THREAD_BYTES];
    const char *frame_before = NULL, *frame_after = NULL;
    pyprof_read reads[PYPROF_MOST_READS];
    size_t count = 0;
    const pyprof_live_thread asked = *thread;
    *after = asked;
    reads[count++] = (pyprof_read){before_copy, asked.address, THREAD_BYTES};
    if (asked.frame_holder != NULL) {
        reads[count++] = (pyprof_read){&frame_before, asked.frame_holder + FRAME_IN_HOLDER, sizeof(void *)};
    }
    if (stray->frame != NULL) {
        count += reads_of_stray(reads + count, stray, stray->frame);
    }
    if (asked.chunk != NULL) {
        if (!is_sane_chunk(asked.chunk, asked.top, asked.limit)) {
            return false;
        }
        const char *end = asked.limit - asked.top < GROWTH_BYTES ? asked.limit : asked.top + GROWTH_BYTES;
        reads[count++] = (pyprof_read){copied.bytes, asked.chunk, (size_t)(end - asked.chunk)};
    }
    if (asked.frame_holder != NULL) {
        reads[count++] = (pyprof_read){&frame_after, asked.frame_holder + FRAME_IN_HOLDER, sizeof(void *)};
    }
    reads[count++] = (pyprof_read){after_copy, asked.address, THREAD_BYTES};
    if (!pyprof_read_memory(reads, count)) {
        stray->frame = NULL; /* it may be gone */
        return false;
    }
    parse_thread(before_copy, thread);
    parse_thread(after_copy, after);
#if PYPROF_FRAME_ON_C_STACK
    thread->frame = frame_before;
    after->frame = frame_after;
#endif
    return is_same_thread(thread, &asked) && thread->chunk == asked.chunk &&
           thread->frame_holder == asked.frame_holder && thread->top <= asked.top + GROWTH_BYTES;
}

/* The thread went on to this chunk when the frames of the one before it left no room. */
static bool go_to_previous_chunk(walk_state *walk) {
    const char *address = (const char *)walk->chunk->previous;
    if (address == NULL || (walk->end_is_exact && walk->frame_end != walk->chunk_address +
                                                                         offsetof(_PyStackChunk, data))) {
        return false;
    }
    _PyStackChunk header;
    const pyprof_read first = {&header, address, sizeof(header)};
    if (!pyprof_read_memory(&first, 1) || header.size > MOST_CHUNK_BYTES ||
        header.top > header.size / sizeof(void *)) {
        return false;
    }
    size_t size = offsetof(_PyStackChunk, data) + header.top * sizeof(void *);
    const pyprof_read rest = {copied.bytes, address, size};
    if (size > header.size || !pyprof_read_memory(&rest, 1)) {
        return false;
    }
    walk->chunk_address = address;
    walk->chunk_end = walk->frame_end = address + size;
    walk->end_is_exact = true;
    return true;
}

static bool is_in_chunk(const walk_state *walk, const char *frame) {
    return walk->chunk_address != NULL && frame >= walk->chunk_address + offsetof(_PyStackChunk, data) &&
           frame + FRAME_BYTES <= walk->chunk_end;
}

static bool is_executing_generator(const char *object) {
    const char *type = pointer_at(object, offsetof(PyObject, ob_type));
    return (type == (const char *)&PyGen_Type || type == (const char *)&PyCoro_Type ||
            type == (const char *)&PyAsyncGen_Type) &&
           object[offsetof(PyGenObject, gi_frame_state)] == FRAME_EXECUTING;
}

static const char *copy_of_stray(walk_state *walk, const char *frame, stray_frame *space) {
    const stray_frame *stray = walk->innermost;
    if (stray == NULL || stray->frame != frame) {
        pyprof_read reads[2];
        size_t count = reads_of_stray(reads, space, frame);
        if ((uintptr_t)frame % sizeof(void *) != 0 || !pyprof_read_memory(reads, count)) {
            return NULL;
        }
        walk->left_chunk = true;
        stray = space;
    }
    const char *copy = stray->object + BEFORE_GENERATORS_FRAME;
    if (pointer_at(copy, FRAME_PREVIOUS) != stray->previous_again) {
        return NULL;
    }
    char owner = copy[FRAME_OWNER];
    return owner >= PYPROF_FIRST_NON_PYTHON_OWNER ||
                   (owner == FRAME_OWNED_BY_GENERATOR && is_executing_generator(stray->object))
               ? copy
               : NULL;
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
    const pyprof_read entry = {
        &bytecode, copies + offsetof(_PyCodeArray, entries) + (size_t)index * sizeof(char *),
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
    uintptr_t executable = (uintptr_t)pointer_at(copy, FRAME_EXECUTABLE);
#if PYPROF_TAGGED_EXECUTABLE
    executable &= ~(uintptr_t)3;
#endif
    pyprof_code_shape *shape = walk->find((const void *)executable);
    if (shape == NULL) {
        return PYPROF_LIVE_UNKNOWN_CODE;
    }
    const char *bytecode = bytecode_of(copy, (const char *)executable, shape);
    ptrdiff_t lasti = pointer_at(copy, FRAME_IP) - bytecode;
    if (bytecode == NULL || lasti < -(ptrdiff_t)sizeof(_Py_CODEUNIT) || lasti >= shape->bytecode_bytes) {
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
    walk->frames[walk->depth++] =
        (pyprof_code_frame){(PyCodeObject *)executable, (int32_t)lasti, begun};
    return PYPROF_LIVE_EXACT;
}

/* The outermost frame on the data stack lies at its bottom; that of the first chunk leaves one word free. */
static bool ends_at_bottom(const walk_state *walk) {
    return !walk->end_is_exact ||
           (walk->chunk->previous == NULL &&
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
        if (is_in_chunk(walk, frame)) {
            copy = copied.bytes + (frame - walk->chunk_address);
            if (copy[FRAME_OWNER] != FRAME_OWNED_BY_THREAD) {
                return PYPROF_LIVE_TORN;
            }
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

/* `innermost->frame`: where the thread's innermost frame is expected, if not on the data stack; becomes where
 * it was found. */
static pyprof_live_result walk_once(pyprof_live_thread *thread, stray_frame *innermost, walk_state *walk) {
    pyprof_live_thread after;
    if (!copy_thread(thread, innermost, &after)) {
        return PYPROF_LIVE_TORN;
    }
    if (thread->chunk != NULL) {
        walk->chunk = &copied.chunk;
        walk->chunk_address = thread->chunk;
        walk->chunk_end = walk->frame_end = thread->top;
    }
    const bool is_stray = thread->frame != NULL && !is_in_chunk(walk, thread->frame);
    if (is_stray && thread->frame != innermost->frame) {
        /* A generator may yield at once: read later, it would be found asleep more often than its caller is
         * found gone, and lose samples to it. */
        innermost->frame = thread->frame;
        return PYPROF_LIVE_TORN;
    }
    walk->innermost = is_stray ? innermost : NULL;
    pyprof_live_result result = walk_frames(walk, thread->frame);
    if (result != PYPROF_LIVE_EXACT) {
        return result;
    }
    if (walk->left_chunk) {
        pyprof_live_thread last;
        if (!pyprof_live_thread_read(thread->address, &last)) {
            return PYPROF_LIVE_TORN;
        }
        last.frame = last.frame_holder != NULL ? after.frame : last.frame;
        after = is_at_same_place(&last, &after) ? after : last;
    }
    return is_at_same_place(thread, &after) ? PYPROF_LIVE_EXACT : PYPROF_LIVE_UNVERIFIED;
}

enum { MOST_ATTEMPTS = 10, ATTEMPTS_FOR_EXACT = 3 };

pyprof_live_result pyprof_walk_live(pyprof_live_thread *thread, pyprof_find_code find,
                                    pyprof_code_frame *frames, size_t max, size_t *depth, bool *truncated) {
    pyprof_live_result result = PYPROF_LIVE_TORN;
    stray_frame innermost = {.frame = NULL};
    if (thread->frame < thread->chunk || thread->frame >= thread->limit) {
        innermost.frame = thread->frame;
    }
    for (int attempt = 0; attempt < MOST_ATTEMPTS; attempt++) {
        if (attempt > 0) {
            pyprof_live_thread again;
            if (!pyprof_live_thread_read(thread->address, &again) || !is_same_thread(thread, &again)) {
                return PYPROF_LIVE_TORN;
            }
            *thread = again;
        }
        walk_state walk = {.find = find, .frames = frames, .max = max};
        result = walk_once(thread, &innermost, &walk);
        *depth = walk.depth;
        *truncated = walk.truncated;
        if (result == PYPROF_LIVE_EXACT ||
            (result == PYPROF_LIVE_UNVERIFIED && attempt + 1 >= ATTEMPTS_FOR_EXACT)) {
            return result;
        }
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
    return FRAME_PREVIOUS + sizeof(void *) <= FRAME_BYTES && FRAME_EXECUTABLE + sizeof(void *) <= FRAME_BYTES &&
           FRAME_IP + sizeof(void *) <= FRAME_BYTES && FRAME_OWNER < FRAME_BYTES &&
           THREAD_FIELD(native_thread_id) + sizeof(long) <= THREAD_BYTES &&
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
    pyprof_live_thread thread;
    if (!pyprof_live_thread_read(own, &thread) || thread.interp != PyThreadState_GetInterpreter(own) ||
        thread.unique_id != PyThreadState_GetID(own) || thread.tid != pyprof_native_thread_id(own) ||
        thread.next != (const char *)PyThreadState_Next(own)) {
        return wrong_layout;
    }
    static pyprof_code_frame raw[PROOF_DEPTH + PYPROF_SPARE_FRAMES], live[PROOF_DEPTH + PYPROF_SPARE_FRAMES];
    bool raw_truncated, live_truncated;
    size_t live_depth;
    size_t raw_depth = pyprof_walk_raw(own, raw, PROOF_DEPTH, &raw_truncated);
    if (pyprof_walk_live(&thread, shape_of_live_code, live, PROOF_DEPTH, &live_depth, &live_truncated) !=
            PYPROF_LIVE_EXACT ||
        live_depth != raw_depth || live_truncated != raw_truncated) {
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

bool pyprof_live_thread_read(const void *tstate, pyprof_live_thread *thread) {
    (void)tstate;
    (void)thread;
    return false;
}

pyprof_live_result pyprof_walk_live(pyprof_live_thread *thread, pyprof_find_code find,
                                    pyprof_code_frame *frames, size_t max, size_t *depth, bool *truncated) {
    (void)thread, (void)find, (void)frames, (void)max, (void)depth, (void)truncated;
    return PYPROF_LIVE_TORN;
}

const char *pyprof_live_stacks_obstacle(void) {
    return "this version of CPython is not known to this version of pyprof";
}

#endif
