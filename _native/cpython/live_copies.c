/* Copies of live stacks: what is read of a thread, in one go. See live_private.h. */
#include "cpython/live_private.h"

#include "cpython/contexts.h"

#include <stdlib.h>

#if PYPROF_KNOWN_LAYOUT

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

_Static_assert(2 * (int)MOST_STRAYS + 3 * (int)MOST_HOLDERS + 7 <= (int)PYPROF_LIVE_READS,
               "more reads than were promised");

enum { EXPECTED_FOR = 256 }; /* walks that have not met it */

static bool is_expected(const pyprof_live_stack *stack, const pyprof_expected *one) {
    return one->address != NULL && stack->walks - one->met <= EXPECTED_FOR;
}

static void expect(pyprof_live_stack *stack, pyprof_expected *ones, size_t count, const char *address) {
    pyprof_expected *place = ones;
    for (size_t i = 0; i < count; i++) {
        if (ones[i].address == address) {
            place = &ones[i];
            break;
        }
        if (ones[i].met < place->met) {
            place = &ones[i];
        }
    }
    *place = (pyprof_expected){address, stack->walks};
}

void pyprof_expect_stray(pyprof_live_stack *stack, const char *frame) {
    expect(stack, stack->expected_strays, MOST_STRAYS, frame);
}

static void expect_nothing(pyprof_live_stack *stack) {
    memset(stack->expected_strays, 0, sizeof(stack->expected_strays));
    memset(stack->holders, 0, sizeof(stack->holders));
}

/* How far the data stack has lately reached: not all stacks are as deep as the last. */
static const char *highest_top(const pyprof_live_thread *thread, pyprof_live_stack *stack) {
    const char *highest = stack->highest_top.address;
    if (!is_expected(stack, &stack->highest_top) || highest < thread->top || highest > thread->limit) {
        stack->highest_top = (pyprof_expected){thread->top, stack->walks};
    }
    return stack->highest_top.address;
}

/* Where the end of the data stack is, and room for its copy. False: no memory. */
static bool place_chunk(const pyprof_live_thread *thread, pyprof_live_stack *stack) {
    const size_t used = (size_t)(thread->top - thread->chunk);
    const size_t most = (size_t)(thread->limit - thread->chunk);
    const size_t wanted = (size_t)(highest_top(thread, stack) - thread->chunk) + GROWTH_BYTES;
    const size_t bytes = wanted < most ? wanted : most;
    if (bytes > stack->chunk_capacity) {
        free(stack->chunk);
        stack->chunk_capacity = bytes + bytes / 2;
        stack->chunk = malloc(stack->chunk_capacity);
        if (stack->chunk == NULL) {
            stack->chunk_capacity = 0;
            return false;
        }
    }
    stack->chunk_bytes = bytes;
    stack->top_offset = used > TOP_BYTES ? used - TOP_BYTES : 0;
    stack->top_end = used + GROWTH_BYTES < bytes ? used + GROWTH_BYTES : bytes;
    return true;
}

/* The frames that the expected holders have. */
static size_t reads_of_holders(const pyprof_live_stack *stack, const char **held, pyprof_read *reads) {
    size_t n = 0;
    for (size_t i = 0; i < MOST_HOLDERS; i++) {
        held[i] = NULL;
        if (is_expected(stack, &stack->holders[i])) {
            reads[n++] =
                (pyprof_read){&held[i], stack->holders[i].address + FRAME_IN_HOLDER, sizeof(held[i])};
        }
    }
    return n;
}

/* The variables of the context that the thread is expected to have; NULL: of none. */
static size_t read_of_variables(const char *context, const char **variables, pyprof_read *read) {
    if (context == NULL) {
        return 0;
    }
    *read = (pyprof_read){variables, pyprof_context_variables_place(context), sizeof(*variables)};
    return 1;
}

/* In one go, and the thread state first. A cache line that was read is one that the thread must get back
 * before it can go on to write to it, for 100 to 500 cycles: what is read before the thread state decides at
 * which of its calls and returns the thread is met. After it this helps: what it says of the innermost frames
 * holds a little longer. */
bool pyprof_live_reads(pyprof_live_thread *thread, pyprof_live_stack *stack, pyprof_read *reads,
                       size_t *count) {
    size_t n = 0;
    reads[n++] = (pyprof_read){thread->copy, thread->address, THREAD_BYTES};
    if (stack == NULL) {
        *count = n;
        return true;
    }
    stack->asked = *thread;
    stack->stray_count = 0;
    stack->chunk_bytes = 0;
    stack->earlier_variables = stack->variables = NULL;
    stack->asked.context = stack->reads_context ? thread->context : NULL;
    stack->walks++;
    if (thread->frame_holder != NULL) {
        expect(stack, stack->holders, MOST_HOLDERS, thread->frame_holder);
    }
    n += reads_of_holders(stack, stack->held[0], reads + n);
    n += read_of_variables(stack->asked.context, &stack->earlier_variables, reads + n);
    const bool has_chunk = is_sane_chunk(thread);
    if (has_chunk && !place_chunk(thread, stack)) {
        return false;
    }
    const size_t offset = stack->top_offset;
    const char *top = thread->chunk + offset;
    if (has_chunk) {
        reads[n++] = (pyprof_read){stack->earlier_top, top, stack->top_end - offset};
    }
    for (size_t i = 0; i < MOST_STRAYS; i++) {
        if (is_expected(stack, &stack->expected_strays[i])) {
            pyprof_stray_frame *stray = &stack->earlier_strays[stack->stray_count++];
            reads[n++] = pyprof_read_of_stray(stray, stack->expected_strays[i].address);
        }
    }
#if PYPROF_FRAME_ON_C_STACK
    n += reads_of_holders(stack, stack->held[1], reads + n);
#else
    reads[n++] = (pyprof_read){&stack->frame_later, thread->address + THREAD_FIELD(current_frame),
                               sizeof(stack->frame_later)};
#endif
    for (size_t i = 0; i < stack->stray_count; i++) {
        reads[n++] = pyprof_read_of_stray(&stack->strays[i], stack->earlier_strays[i].frame);
    }
    if (has_chunk) {
        if (offset > 0) {
            reads[n++] = (pyprof_read){stack->chunk, thread->chunk, offset};
        }
        reads[n++] = (pyprof_read){stack->chunk + offset, top, stack->chunk_bytes - offset};
    }
#if PYPROF_FRAME_ON_C_STACK
    n += reads_of_holders(stack, stack->held[2], reads + n);
#endif
    n += read_of_variables(stack->asked.context, &stack->variables, reads + n);
    *count = n;
    return true;
}

size_t pyprof_find_stray(const pyprof_live_stack *stack, const char *frame) {
    size_t i = 0;
    while (i < stack->stray_count && stack->strays[i].frame != frame) {
        i++;
    }
    return i;
}

static bool find_innermost_frame(pyprof_live_thread *thread, pyprof_live_stack *stack) {
#if PYPROF_FRAME_ON_C_STACK
    for (size_t i = 0; i < MOST_HOLDERS; i++) {
        if (stack->holders[i].address == thread->frame_holder && is_expected(stack, &stack->holders[i])) {
            thread->frame = stack->held[0][i];
            const bool changed = stack->held[1][i] != thread->frame;
            stack->frame_later = changed ? stack->held[1][i] : stack->held[2][i];
            return true;
        }
    }
    return false;
#else
    (void)thread, (void)stack;
    return true;
#endif
}

bool pyprof_is_copy_of(pyprof_live_thread *thread, pyprof_live_stack *stack) {
    return find_innermost_frame(thread, stack) && pyprof_is_same_live_thread(thread, &stack->asked) &&
           thread->chunk == stack->asked.chunk &&
           (thread->chunk == NULL || (stack->chunk_bytes > 0 && thread->top > thread->chunk &&
                                      thread->top <= thread->chunk + stack->chunk_bytes));
}

bool pyprof_live_variables(const pyprof_live_thread *thread, const pyprof_live_stack *stack,
                           const pyprof_live_walk *walk, const void **variables) {
    *variables = walk->is_of_later_copy ? stack->variables : stack->earlier_variables;
    return thread->context == stack->asked.context;
}

bool pyprof_live_has_variables(const pyprof_live_thread *thread, const void *variables) {
    const char *now = NULL;
    pyprof_read read;
    return (read_of_variables(thread->context, &now, &read) == 0 || pyprof_read_memory(&read, 1)) &&
           now == variables;
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
        expect_nothing(stack); /* it may be gone */
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

bool pyprof_live_variables(const pyprof_live_thread *thread, const pyprof_live_stack *stack,
                           const pyprof_live_walk *walk, const void **variables) {
    return (void)thread, (void)stack, (void)walk, (void)variables, false;
}

bool pyprof_live_has_variables(const pyprof_live_thread *thread, const void *variables) {
    return (void)thread, (void)variables, false;
}

bool pyprof_live_reads(pyprof_live_thread *thread, pyprof_live_stack *stack, pyprof_read *reads,
                       size_t *count) {
    (void)thread, (void)stack, (void)reads, (void)count;
    return false;
}

#endif
