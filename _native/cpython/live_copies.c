/* Copies of live stacks: what is read of a thread, in one go. See live_private.h. */
#include "cpython/live_private.h"

#include <stdlib.h>

#if PYPROF_KNOWN_LAYOUT

/* What the thread may have pushed since its top was read. */
enum { GROWTH_BYTES = 1024 };

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

pyprof_read pyprof_read_of_stray(pyprof_stray_frame *stray, const char *frame) {
    stray->frame = frame;
    return (pyprof_read){stray->object, frame - BEFORE_GENERATORS_FRAME, sizeof(stray->object)};
}

static bool is_sane_chunk(const pyprof_live_thread *thread) {
    const uintptr_t chunk = (uintptr_t)thread->chunk, top = (uintptr_t)thread->top;
    const uintptr_t limit = (uintptr_t)thread->limit;
    return chunk != 0 && chunk % sizeof(void *) == 0 && top % sizeof(void *) == 0 && top > chunk &&
           top <= limit && limit - chunk <= MOST_CHUNK_BYTES;
}

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
            reads[n++] = pyprof_read_of_stray(&stack->strays[stack->stray_count++], stack->expected[i]);
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

void pyprof_expect_stray(pyprof_live_stack *stack, const char *frame) {
    if (stack->expected_count < MOST_STRAYS) {
        stack->expected[stack->expected_count++] = frame;
    }
}

const pyprof_stray_frame *pyprof_find_stray(const pyprof_live_stack *stack, const char *frame) {
    for (size_t i = 0; i < stack->stray_count; i++) {
        if (stack->strays[i].frame == frame) {
            return &stack->strays[i];
        }
    }
    return NULL;
}

bool pyprof_is_copy_of(pyprof_live_thread *thread, const pyprof_live_stack *stack,
                       pyprof_live_thread *after) {
    *after = *thread;
    pyprof_live_parse_copy(stack->after, after);
#if PYPROF_FRAME_ON_C_STACK
    thread->frame = stack->frame_before;
    after->frame = stack->frame_after;
#endif
    return pyprof_is_same_live_thread(thread, &stack->asked) && thread->chunk == stack->asked.chunk &&
           thread->frame_holder == stack->asked.frame_holder &&
           (thread->chunk == NULL || (stack->chunk_bytes > 0 && thread->top > thread->chunk &&
                                      thread->top <= thread->chunk + stack->chunk_bytes));
}

bool pyprof_live_copy_again(pyprof_live_thread *thread, pyprof_live_stack *stack, bool *is_copied) {
    *is_copied = false;
    pyprof_live_thread now = *thread;
    if (!pyprof_live_read_thread(&now) || !pyprof_is_same_live_thread(&now, thread)) {
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
        return true;
    }
    pyprof_live_parse(thread);
    *is_copied = true;
    return true;
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

#endif
