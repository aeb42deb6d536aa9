/* Live stacks, between the files that read them: where things stand, thread states, and copies of a stack.
 *
 * For live_*.c alone, and before every other header, since it opens CPython's internal ones. What
 * live_stacks.h says holds here too: the timer thread, or the proof before there is one; attached or not, no
 * lock; what was read is compared and checked, never followed.
 */
#ifndef PYPROF_CPYTHON_LIVE_PRIVATE_H
#define PYPROF_CPYTHON_LIVE_PRIVATE_H

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
#define FRAME_FUNCTION (offsetof(_PyInterpreterFrame, f_funcobj))
#else
#define THREAD_FIELD(name) (offsetof(PyThreadState, name))
#define FRAME_FIELD(name, offset) (offsetof(_PyInterpreterFrame, name))
#define FRAME_EXECUTABLE FRAME_FIELD(f_code, )
#define FRAME_IP FRAME_FIELD(prev_instr, )
#define FRAME_IN_HOLDER (offsetof(_PyCFrame, current_frame))
#if PYPROF_HAS_C_FRAMES
#define FRAME_FUNCTION (offsetof(_PyInterpreterFrame, f_funcobj))
#else
#define FRAME_FUNCTION (offsetof(_PyInterpreterFrame, f_func))
#endif
#endif
#if PYPROF_FREE_THREADED
#define FRAME_BYTECODE_COPY FRAME_FIELD(, tlbc_index)
#else
#define FRAME_BYTECODE_COPY 0
#endif
#define FRAME_PREVIOUS FRAME_FIELD(previous, previous)
#define FRAME_OWNER FRAME_FIELD(owner, owner)
#ifndef FRAME_STATE_SUSPENDED
#define FRAME_STATE_SUSPENDED(state) ((state) == FRAME_SUSPENDED)
#endif

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

/* -- live_threads.c -- */

/* Reads and parses the thread state at `address`. False: there is none any more. */
bool pyprof_live_read_thread(pyprof_live_thread *thread);

bool pyprof_is_same_live_thread(const pyprof_live_thread *a, const pyprof_live_thread *b);
bool pyprof_is_at_same_place(const pyprof_live_thread *a, const pyprof_live_thread *b);

/* -- live_copies.c -- */

enum {
    /* A chunk is 16 KiB, larger only where one frame does not fit into that. */
    MOST_CHUNK_BYTES = 64 * 1024,
    MOST_STRAYS = 16,
    MOST_HOLDERS = 16,
    MOST_LAST_PREVIOUS = 64,
    /* The end of the data stack that is copied twice; and what the thread may have pushed since its top was
     * read. */
    TOP_BYTES = 1024,
    GROWTH_BYTES = 1024,
};

/* A frame that does not lie on the data stack: a generator's, inside the generator object, or C code's, on
 * the C stack. */
typedef struct {
    const char *frame;
    char object[BEFORE_GENERATORS_FRAME + FRAME_BYTES]; /* from where a generator would begin */
} pyprof_stray_frame;

/* What came before a frame when it was last read. */
typedef struct {
    const char *frame, *previous;
} pyprof_last_previous;

/* Something that walks have met, to be copied with the rest while they meet it now and then. */
typedef struct {
    const char *address;
    uint64_t met; /* by the walk of this number */
} pyprof_expected;

struct pyprof_live_stack {
    pyprof_live_thread asked; /* where the copy was looked for */
    char *chunk;
    size_t chunk_capacity, chunk_bytes;
    size_t top_offset, top_end; /* of `earlier_top`, in the chunk */
    char earlier_top[TOP_BYTES + GROWTH_BYTES];
    pyprof_expected highest_top;
    pyprof_stray_frame earlier_strays[MOST_STRAYS], strays[MOST_STRAYS]; /* the same ones */
    size_t stray_count;
    pyprof_expected expected_strays[MOST_STRAYS];
    /* Frame holders: one for each evaluation loop on the C stack, so they alternate with C calls. */
    pyprof_expected holders[MOST_HOLDERS];
    /* The frame that each had: read with the thread state, when the first copy had been made, at the end. */
    const char *held[3][MOST_HOLDERS];
    /* Of the context that the thread had when the copies were asked for; with either, if they are wanted. */
    const char *earlier_variables, *variables;
    bool reads_context;
    const char *frame_later; /* the innermost, after the thread state; another one if it has changed */
    uint64_t walks;
    /* By the frame's address. A frame of C code says nothing else, and is still the same if that lies on the
     * data stack next to the one after it. A generator's frame does not say it any more once suspended. */
    pyprof_last_previous c_frames[MOST_LAST_PREVIOUS], generators[MOST_LAST_PREVIOUS];
};

/* Reads the thread state and the stack again. False: the thread is gone, or there is no memory. `*is_copied`
 * false: part of it could not be read, so that `stack` has nothing that belongs together; another attempt
 * may find it. */
bool pyprof_live_copy_again(pyprof_live_thread *thread, pyprof_live_stack *stack, bool *is_copied);

/* Whether the copy is of the stack that the thread has; completes `thread` from it. */
bool pyprof_is_copy_of(pyprof_live_thread *thread, pyprof_live_stack *stack);

/* The next copies shall have this frame. */
void pyprof_expect_stray(pyprof_live_stack *stack, const char *frame);

/* Its place in both lists of strays; their count: it was not copied with the others. */
size_t pyprof_find_stray(const pyprof_live_stack *stack, const char *frame);

/* What has to be read for it. */
pyprof_read pyprof_read_of_stray(pyprof_stray_frame *stray, const char *frame);

#endif
#endif
