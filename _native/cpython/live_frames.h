/* Where a walk finds the frames of a copied stack: in the chunk at hand, in the one before it, or, what does
 * not lie on the data stack, among the copies of generators' and C code's frames.
 *
 * For live_*.c alone; what live_private.h says holds here too.
 */
#ifndef PYPROF_CPYTHON_LIVE_FRAMES_H
#define PYPROF_CPYTHON_LIVE_FRAMES_H

#include "cpython/live_private.h"

#if PYPROF_KNOWN_LAYOUT

/* Which copy of the innermost frames is walked: the one that is nearer to the thread state, or the other. */
typedef enum { PYPROF_EARLIER_COPY, PYPROF_LATER_COPY } pyprof_walk_view;

typedef struct {
    pyprof_walk_view view;
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
    size_t read_later;   /* up to this one there are frames that were not copied with the others, but later */
    bool moved;          /* the two copies of a frame differ, or there is but one of the innermost */
    size_t known_from;   /* the frame from which on outwards all calls are known, once they were looked up */
    bool skipped_c_frame; /* took one as it was the last time */
    bool at_c_frame;      /* the outermost so far */
    bool enters_c;        /* the next frame, if it calls something, has called C code */
    bool names_callees;
    const void *function; /* of the frame before */
    bool learns_calls;
    const char *instruction; /* of the first frame */
    const char *c_frame;     /* the first */
} pyprof_walk_state;

static inline const char *earlier_copy_at(const pyprof_walk_state *walk, size_t offset, size_t size) {
    const pyprof_live_stack *stack = walk->stack;
    return walk->chunk == stack->chunk && offset >= stack->top_offset && offset + size <= stack->top_end
               ? stack->earlier_top + (offset - stack->top_offset)
               : NULL;
}

/* Of a frame that is in the chunk at hand. */
static inline const char *copy_in_chunk(const pyprof_walk_state *walk, const char *frame) {
    const size_t offset = (size_t)(frame - walk->chunk_address);
    const char *earlier =
        walk->view == PYPROF_EARLIER_COPY ? earlier_copy_at(walk, offset, FRAME_BYTES) : NULL;
    return earlier == NULL ? walk->chunk + offset : earlier;
}

/* `frame` may be any word that was read: nothing may be concluded from a comparison that wraps around. */
static inline bool is_in_chunk(const pyprof_walk_state *walk, const char *frame) {
    if (walk->chunk_address == NULL || (uintptr_t)frame % sizeof(void *) != 0) {
        return false;
    }
    const uintptr_t at = (uintptr_t)frame - (uintptr_t)walk->chunk_address;
    const uintptr_t size = (uintptr_t)walk->chunk_end - (uintptr_t)walk->chunk_address;
    return at >= offsetof(_PyStackChunk, data) && at <= size && size - at >= FRAME_BYTES;
}

static inline const void *object_at(const char *copy, uint64_t offset) {
    uintptr_t object = (uintptr_t)pointer_at(copy, offset);
#if PYPROF_TAGGED_EXECUTABLE
    object &= ~(uintptr_t)3;
#endif
    return (const void *)object;
}

static inline const void *code_of(const char *frame) { return object_at(frame, FRAME_EXECUTABLE); }

/* False: the thread has no data stack. */
bool pyprof_go_to_newest_chunk(const pyprof_live_thread *thread, pyprof_walk_state *walk);

/* The thread went on to this chunk when the frames of the one before it left no room. False: it did not. */
bool pyprof_go_to_previous_chunk(pyprof_walk_state *walk);

/* Whether the thread may have moved between the two copies of a frame; `earlier`: NULL, there is but one. */
bool pyprof_has_moved(const pyprof_walk_state *walk, const char *earlier, const char *later);

/* What comes before a frame that was C code's the last time, if it still is; else NULL. */
const char *pyprof_skip_c_frame(pyprof_walk_state *walk, const char *frame);

/* The copy of a frame outside the data stack, made now if there is none yet, in `space`. NULL: it is none. */
const char *pyprof_copy_of_stray(pyprof_walk_state *walk, const char *frame, pyprof_stray_frame *space);

#endif
#endif
