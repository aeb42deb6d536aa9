/* The walk over a copied stack. See live_stacks.h. */
#include "cpython/live_frames.h"

#include "cpython/callables.h"
#include "cpython/known_calls.h"

#if PYPROF_KNOWN_LAYOUT

typedef pyprof_walk_state walk_state;

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

/* In bytes; outside its code: it is torn. */
static intptr_t lasti_of(const char *frame, const char *code, pyprof_code_shape *shape) {
    const char *bytecode = bytecode_of(frame, code, shape);
    const intptr_t lasti = (intptr_t)((uintptr_t)pointer_at(frame, FRAME_IP) - (uintptr_t)bytecode);
    return bytecode == NULL ? PTRDIFF_MAX : lasti;
}

/* The callable of a frame on the data stack, if it stood there with the same instruction in both copies. The
 * frames further out cannot have moved. */
static const void *callable_on_data_stack(const walk_state *walk, const char *frame, const char *place) {
    const size_t frame_at = (size_t)(frame - walk->chunk_address);
    const size_t at = (size_t)(place - walk->chunk_address);
    const char *end = place + PYPROF_CALLABLE_BYTES;
    if (end > walk->chunk_end) {
        return NULL;
    }
    const void *callable = pyprof_callable_in(walk->chunk + at);
    const char *earlier_frame = earlier_copy_at(walk, frame_at, FRAME_BYTES);
    const char *earlier = earlier_copy_at(walk, at, PYPROF_CALLABLE_BYTES);
    if (walk->depth == 1) {
        const bool stood =
            earlier_frame != NULL && earlier != NULL &&
            pointer_at(earlier_frame, FRAME_IP) == pointer_at(walk->chunk + frame_at, FRAME_IP);
        return stood && pyprof_callable_in(earlier) == callable ? callable : NULL;
    }
    return earlier == NULL || pyprof_callable_in(earlier) == callable ? callable : NULL;
}

/* That of a generator's frame, of which only the fixed part is copied, is read now: with its instruction. */
static const void *callable_of_stray(const char *frame, const char *copy, const char *place) {
    const char *instruction;
    char words[PYPROF_CALLABLE_BYTES];
    const pyprof_read reads[] = {
        {words, place, sizeof(words)},
        {&instruction, frame + FRAME_IP, sizeof(instruction)},
    };
    return pyprof_read_memory(reads, 2) && instruction == pointer_at(copy, FRAME_IP)
               ? pyprof_callable_in(words)
               : NULL;
}

static void find_callee(walk_state *walk, pyprof_code_frame *frame, const char *copy,
                        pyprof_code_shape *shape) {
    const char *place = pyprof_callable_place(frame->address, copy, frame->code, shape, frame->lasti);
    if (place != NULL) {
        frame->callee = (pyprof_callee){
            .object = copy[FRAME_OWNER] == FRAME_OWNED_BY_THREAD
                          ? callable_on_data_stack(walk, frame->address, place)
                          : callable_of_stray(frame->address, copy, place),
            .place = place,
            .instruction_place = frame->address + FRAME_IP,
            .instruction = pointer_at(copy, FRAME_IP),
        };
        if (frame->callee.object == walk->function) {
            frame->callee.object =
                NULL; /* C code has nothing to do with it but to enter the evaluation loop */
        }
    }
}

static pyprof_live_result add_frame(walk_state *walk, const char *address, const char *copy) {
    const void *code = code_of(copy);
    pyprof_code_shape *shape = walk->find(code);
    if (shape == NULL) {
        return PYPROF_LIVE_UNKNOWN;
    }
    const intptr_t lasti = lasti_of(copy, code, shape);
    if (lasti < -(intptr_t)sizeof(_Py_CODEUNIT) || lasti >= shape->bytecode_bytes) {
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
    if (walk->depth == 0) {
        walk->instruction = pointer_at(copy, FRAME_IP);
    }
    pyprof_code_frame *frame = &walk->frames[walk->depth++];
    *frame = (pyprof_code_frame){.code = (PyCodeObject *)code,
                                 .lasti = (int32_t)lasti,
                                 .begun = begun,
                                 .enters_c = walk->enters_c,
                                 .address = address};
    if (begun && frame->enters_c && walk->names_callees) {
        find_callee(walk, frame, copy, shape);
    }
    walk->function = object_at(copy, FRAME_FUNCTION);
#if PYPROF_HAS_C_FRAMES
    walk->enters_c = false;
#else
    walk->enters_c = copy[offsetof(_PyInterpreterFrame, is_entry)] != 0;
#endif
    /* What has not begun calls nothing, but for what the collector runs; what never begins is what CPython
     * has between a constructor and who calls it. */
    walk->moved |= walk->depth > 1 && !begun && shape->first_traceable < shape->bytecode_bytes;
    return PYPROF_LIVE_EXACT;
}

/* The outermost frame on the data stack lies at its bottom; that of the first chunk leaves one word free.
 * Where there is none, C code runs a generator; one that nobody runs has just been suspended, or is about to
 * go on. */
static bool ends_at_bottom(const walk_state *walk) {
    if (!walk->end_is_exact) {
        return walk->depth == 0 || walk->at_c_frame || !PYPROF_HAS_C_FRAMES;
    }
    return pointer_at(walk->chunk, offsetof(_PyStackChunk, previous)) == NULL &&
           walk->frame_end == walk->chunk_address + offsetof(_PyStackChunk, data) + sizeof(void *);
}

static void meet_c_frame(walk_state *walk, const char *frame) {
    walk->enters_c = true;
    if (walk->c_frame == NULL) {
        walk->c_frame = frame;
    }
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
            const size_t offset = (size_t)(frame - walk->chunk_address);
            copy = copy_in_chunk(walk, frame);
            walk->moved |=
                pyprof_has_moved(walk, earlier_copy_at(walk, offset, FRAME_BYTES), walk->chunk + offset);
            if (copy[FRAME_OWNER] != FRAME_OWNED_BY_THREAD) {
                return PYPROF_LIVE_TORN;
            }
        } else if ((after_c_frame = pyprof_skip_c_frame(walk, frame)) != NULL) {
            meet_c_frame(walk, frame);
            frame = after_c_frame;
            walk->skipped_c_frame = walk->at_c_frame = walk->enters_c = true;
            continue;
        } else if ((copy = pyprof_copy_of_stray(walk, frame, &space)) == NULL) {
            if (walk->chunk_address == NULL || !pyprof_go_to_previous_chunk(walk) ||
                !is_in_chunk(walk, frame)) {
                return PYPROF_LIVE_TORN;
            }
            continue;
        }
        walk->at_c_frame = copy[FRAME_OWNER] >= PYPROF_FIRST_NON_PYTHON_OWNER;
        if (walk->at_c_frame) {
            meet_c_frame(walk, frame);
        } else {
            pyprof_live_result result = add_frame(walk, frame, copy);
            if (result != PYPROF_LIVE_EXACT) {
                return result;
            }
        }
        frame = pointer_at(copy, FRAME_PREVIOUS);
    }
    return walk->truncated || ends_at_bottom(walk) ? PYPROF_LIVE_EXACT : PYPROF_LIVE_TORN;
}

/* Whether all are known. */
static bool look_up_calls(walk_state *walk) {
    size_t from = walk->depth > 0 ? walk->depth - 1 : 0;
    while (from > 0 && pyprof_is_known_call(&walk->frames[from], &walk->frames[from - 1])) {
        from--;
    }
    walk->known_from = from;
    return from == 0;
}

static void take_over(pyprof_live_walk *walk, const walk_state *state, const pyprof_live_thread *thread) {
    walk->depth = state->depth;
    walk->truncated = state->truncated;
    walk->is_incomplete = false;
    walk->instruction = state->instruction;
    walk->c_stack = PYPROF_FRAME_ON_C_STACK ? thread->frame_holder : state->c_frame;
    walk->is_of_later_copy = state->view == PYPROF_LATER_COPY;
}

enum { MOST_AT_ONCE = 32 };

/* Whether frames of the walk are still what they were, but for how far the innermost has come. */
static bool stand_still(walk_state *walk, size_t begin, size_t end) {
    char copies[MOST_AT_ONCE][FRAME_BYTES];
    pyprof_read reads[MOST_AT_ONCE];
    for (size_t i = begin; i < end; i++) {
        reads[i - begin] = (pyprof_read){copies[i - begin], walk->frames[i].address, FRAME_BYTES};
    }
    if (!pyprof_read_memory(reads, end - begin)) {
        return false;
    }
    for (size_t i = begin; i < end; i++) {
        const char *copy = copies[i - begin];
        const void *code = walk->frames[i].code;
        pyprof_code_shape *shape = code_of(copy) == code ? walk->find(code) : NULL;
        if (shape == NULL || (i > 0 && lasti_of(copy, code, shape) != walk->frames[i].lasti)) {
            return false;
        }
    }
    return true;
}

/* Up to the caller of the last one that was read later. The thread state does not tell: a generator may have
 * ended meanwhile, and another one begun at its address, called from further on in the same frame. */
static bool those_read_later_stand_still(walk_state *walk) {
    const size_t count = walk->read_later < walk->depth ? walk->read_later + 1 : walk->depth;
    bool stand = true;
    for (size_t begin = 0; begin < count && stand; begin += MOST_AT_ONCE) {
        const size_t rest = count - begin;
        stand = stand_still(walk, begin, begin + (rest < MOST_AT_ONCE ? rest : MOST_AT_ONCE));
    }
    return stand;
}

static pyprof_live_result walk_view_of_copy(const pyprof_live_thread *thread, walk_state *walk) {
    pyprof_go_to_newest_chunk(thread, walk);
    pyprof_live_result result = walk_frames(walk, thread->frame);
    if (result != PYPROF_LIVE_EXACT) {
        return result;
    }
    if (walk->read_later > 0) {
        walk->moved = walk->moved || !those_read_later_stand_still(walk);
        pyprof_live_thread last = *thread;
        if (!pyprof_live_read_thread(&last)) {
            return PYPROF_LIVE_TORN;
        }
        walk->moved |= !pyprof_is_at_same_place(&last, thread);
    }
    walk->moved |= walk->stack->frame_later != thread->frame;
    /* That took long, and of a recursion all calls are one: those of two moments, too. */
    if (walk->moved && walk->read_later > MOST_STRAYS) {
        return PYPROF_LIVE_TORN;
    }
    if ((walk->moved || walk->read_later > 0) && !walk->truncated && !walk->end_is_exact) {
        return PYPROF_LIVE_TORN; /* a generator that has been suspended, or is about to go on, has no caller
                                  */
    }
    if (!walk->moved && !walk->skipped_c_frame && !walk->learns_calls) {
        return PYPROF_LIVE_EXACT;
    }
    const bool all_known = look_up_calls(walk);
    if (walk->skipped_c_frame && !all_known) {
        return PYPROF_LIVE_ODD_CALL; /* another one lies there now, called by a generator */
    }
    if (!walk->moved) {
        if (walk->learns_calls && !all_known) {
            pyprof_live_learn_calls(walk->frames, walk->depth, false);
        }
        return PYPROF_LIVE_EXACT;
    }
    return all_known ? PYPROF_LIVE_UNVERIFIED : PYPROF_LIVE_ODD_CALL;
}

/* -- the callers of what moves too fast -- */

typedef struct {
    const char *address, *end;
} standing_frame;

enum { MOST_STANDING = 8 };

/* The innermost of the frames that lie one after the other from the bottom of the chunk at hand on and are
 * the same in both copies. They were there when the thread state was read, which says how far the stack
 * reached.
 */
static size_t find_standing(const walk_state *walk, const char *top, standing_frame *found) {
    const char *at = walk->chunk_address + offsetof(_PyStackChunk, data), *before = NULL;
    size_t count = 0;
    if (pointer_at(walk->chunk, offsetof(_PyStackChunk, previous)) == NULL) {
        at += sizeof(void *);
    }
    while (at < top && is_in_chunk(walk, at)) {
        const size_t offset = (size_t)(at - walk->chunk_address);
        const char *copy = walk->chunk + offset, *previous = pointer_at(copy, FRAME_PREVIOUS);
        const char *earlier = earlier_copy_at(walk, offset, FRAME_BYTES);
        const pyprof_code_shape *shape =
            copy[FRAME_OWNER] == FRAME_OWNED_BY_THREAD ? walk->find(code_of(copy)) : NULL;
        const bool stands =
            earlier == NULL ? offset < walk->stack->top_offset : memcmp(earlier, copy, FRAME_BYTES) == 0;
        if (shape == NULL || !stands || shape->frame_bytes > (size_t)(top - at) ||
            (is_in_chunk(walk, previous) && previous != before)) {
            break;
        }
        found[count++ % MOST_STANDING] = (standing_frame){at, at + shape->frame_bytes};
        before = at;
        at += shape->frame_bytes;
    }
    return count;
}

/* All calls must be known: a frame that was just pushed may be what was left there by another. */
static bool keep_known(walk_state *walk) {
    look_up_calls(walk);
    walk->depth -= walk->known_from;
    memmove(walk->frames, walk->frames + walk->known_from, walk->depth * sizeof(*walk->frames));
    for (size_t i = 0; i < walk->depth; i++) {
        if (walk->frames[i].begun) {
            return true;
        }
    }
    return false;
}

static pyprof_live_result walk_callers(const pyprof_live_thread *thread, const walk_state *fresh,
                                       pyprof_live_walk *walk) {
    standing_frame standing[MOST_STANDING];
    walk_state state = *fresh;
    if (!pyprof_go_to_newest_chunk(thread, &state)) {
        return PYPROF_LIVE_TORN;
    }
    const size_t count = find_standing(&state, thread->top, standing);
    for (size_t i = 0; i < count && i < MOST_STANDING; i++) {
        const standing_frame *one = &standing[(count - 1 - i) % MOST_STANDING];
        state = *fresh;
        pyprof_go_to_newest_chunk(thread, &state);
        state.frame_end = one->end;
        state.end_is_exact = true;
        if (walk_frames(&state, one->address) == PYPROF_LIVE_EXACT && keep_known(&state)) {
            take_over(walk, &state, thread);
            walk->is_incomplete = true;
            return PYPROF_LIVE_INCOMPLETE;
        }
    }
    return PYPROF_LIVE_TORN;
}

/* On free-threaded builds nobody else can be asked: to see a stack with the world stopped, everybody would
 * wait until the last thread has come to its next safe point, which a thread in a C call does at its end. */
enum { MOST_ATTEMPTS = 10, MOST_UNKNOWN = 3 };

static walk_state begin_walk(const pyprof_live_thread *thread, pyprof_live_stack *stack,
                             pyprof_find_code find, const pyprof_live_walk *walk) {
    return (walk_state){.find = find,
                        .frames = walk->frames,
                        .max = walk->max,
                        .stack = stack,
                        .names_callees = !thread->in_trace_function};
}

pyprof_live_result pyprof_walk_live(pyprof_live_thread *thread, pyprof_live_stack *stack, bool is_copied,
                                    pyprof_find_code find, pyprof_live_walk *walk) {
    pyprof_live_result result = PYPROF_LIVE_TORN;
    walk->gave_up_whole_copy = walk->stood_still = walk->is_incomplete = false;
    stack->reads_context = walk->reads_context;
    if (is_copied && walk->reads_context && thread->context != stack->asked.context &&
        !pyprof_live_copy_again(thread, stack, &is_copied)) {
        return PYPROF_LIVE_TORN;
    }
    const int most_unknown = walk->is_read_by_nobody_else ? MOST_ATTEMPTS : MOST_UNKNOWN;
    int unknown = 0;
    for (int attempt = 0; attempt < MOST_ATTEMPTS && unknown < most_unknown; attempt++) {
        if ((attempt > 0 || !is_copied) && !pyprof_live_copy_again(thread, stack, &is_copied)) {
            return PYPROF_LIVE_TORN;
        }
        result = PYPROF_LIVE_TORN;
        if (!is_copied || !pyprof_is_copy_of(thread, stack)) {
            continue;
        }
        for (pyprof_walk_view view = PYPROF_EARLIER_COPY; view <= PYPROF_LATER_COPY; view++) {
            walk_state state = begin_walk(thread, stack, find, walk);
            state.view = view;
            state.enters_c = true;
            state.learns_calls = walk->is_read_by_nobody_else;
            state.reads_c_frames = unknown > 0; /* a generator may be between them now */
            result = walk_view_of_copy(thread, &state);
            take_over(walk, &state, thread);
            walk->stood_still = attempt == 0 && result == PYPROF_LIVE_EXACT;
            if (walk->is_exact_only) {
                return walk->stood_still ? result : PYPROF_LIVE_TORN;
            }
            if (result < PYPROF_LIVE_ODD_CALL) {
                return result;
            }
        }
        if (result == PYPROF_LIVE_ODD_CALL && !walk->is_read_by_nobody_else) {
            return result; /* who reads with the GIL learns the call */
        }
        unknown += result != PYPROF_LIVE_TORN;
        walk->gave_up_whole_copy = true;
    }
    if (walk->is_read_by_nobody_else && is_copied && pyprof_is_copy_of(thread, stack)) {
        walk_state state = begin_walk(thread, stack, find, walk);
        state.view = PYPROF_LATER_COPY;
        state.reads_c_frames = true;
        return walk_callers(thread, &state, walk);
    }
    return result;
}

#else

pyprof_live_result pyprof_walk_live(pyprof_live_thread *thread, pyprof_live_stack *stack, bool is_copied,
                                    pyprof_find_code find, pyprof_live_walk *walk) {
    (void)thread, (void)stack, (void)is_copied, (void)find;
    walk->truncated = walk->gave_up_whole_copy = walk->stood_still = false;
    return PYPROF_LIVE_TORN;
}

#endif
