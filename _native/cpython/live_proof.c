/* The proof that live stacks can be read here, on the own stack. See live_stacks.h. */
#include "cpython/live_private.h"

#include "cpython/callables.h"
#include "cpython/live_interpreters.h"

#if PYPROF_KNOWN_LAYOUT

static pyprof_code_shape shape; /* of the code that was asked for last */

static void forget_shape(void) {
    pyprof_free_call_sites(shape.call_sites);
    shape.call_sites = NULL;
}

static pyprof_code_shape *shape_of_live_code(const void *code) {
    forget_shape();
    shape = pyprof_view_code((PyCodeObject *)code).shape;
    return &shape;
}

static bool is_same_text(const pyprof_text *a, const pyprof_text *b) {
    return a->kind == b->kind && a->length == b->length &&
           memcmp(a->data, b->data, a->length * (size_t)a->kind) == 0;
}

static bool is_copied_right(PyCodeObject *code) {
    const pyprof_code_view seen = pyprof_view_code(code);
    pyprof_code_view copy;
    return pyprof_copy_code(code, &copy) && is_same_text(&copy.qualname, &seen.qualname) &&
           is_same_text(&copy.filename, &seen.filename) && copy.first_line == seen.first_line &&
           copy.linetable_size == seen.linetable_size &&
           memcmp(copy.linetable, seen.linetable, seen.linetable_size) == 0 &&
           copy.shape.frame_bytes == seen.shape.frame_bytes &&
           copy.shape.bytecode_bytes == seen.shape.bytecode_bytes &&
           copy.shape.first_traceable == seen.shape.first_traceable;
}

/* Who asks for the proof has called C code of ours. An object that calls it may stand between, but no other
 * function. */
static bool names_its_call(const pyprof_code_frame *innermost) {
    const char ours[] = "pyprof._native.";
    char name[PYPROF_C_NAME_BYTES];
    const char *own_name;
    size_t own_size;
    pyprof_c_function function = {0};
    const pyprof_callee *callee = &innermost->callee;
    if (callee->object != NULL) {
        pyprof_identify_callees(&callee, 1, &function);
    }
    return function.definition == NULL || function.kind == PYPROF_OBJECT_OF_TYPE ||
           (pyprof_read_c_name(&function, name, &own_name, &own_size) > 0 &&
            memcmp(name, ours, sizeof(ours) - 1) == 0);
}

enum { PROOF_DEPTH = 64 };

static bool offsets_are_in_bounds(void) {
#if PYPROF_HAS_DEBUG_OFFSETS
    return FRAME_PREVIOUS + sizeof(void *) <= FRAME_BYTES &&
           FRAME_EXECUTABLE + sizeof(void *) <= FRAME_BYTES && FRAME_IP + sizeof(void *) <= FRAME_BYTES &&
           FRAME_OWNER < FRAME_BYTES && THREAD_FIELD(native_thread_id) + sizeof(long) <= THREAD_BYTES &&
           THREAD_FIELD(current_frame) + sizeof(void *) <= THREAD_BYTES &&
           THREAD_FIELD(prev) + sizeof(void *) <= THREAD_BYTES &&
           THREAD_FIELD(next) + sizeof(void *) <= THREAD_BYTES &&
           THREAD_FIELD(interp) + sizeof(void *) <= THREAD_BYTES && FRAME_BYTECODE_COPY < FRAME_BYTES;
#else
    return true;
#endif
}

const char *pyprof_evaluation_obstacle(PyInterpreterState *interp) {
    return _PyInterpreterState_GetEvalFrameFunc(interp) == _PyEval_EvalFrameDefault
               ? NULL
               : "frames are evaluated by a function that is not CPython's (PEP 523)";
}

/* Layouts may change until the release candidates. */
static bool is_pre_release(void) {
    enum { LEVEL_SHIFT = 4, LEVEL_MASK = 0xf, CANDIDATE = 0xc };
    return (Py_Version >> LEVEL_SHIFT & LEVEL_MASK) < CANDIDATE;
}

/* Fills `thread`, of the calling thread. */
static bool finds_threads(PyThreadState *own, pyprof_live_thread *thread) {
    PyInterpreterState *interp = PyThreadState_GetInterpreter(own);
    *thread = (pyprof_live_thread){.address = (const char *)own};
    if (!pyprof_hold_thread_states()) {
        return false;
    }
    const bool found =
        pyprof_live_read_thread(thread) && thread->interp == interp &&
        thread->unique_id == PyThreadState_GetID(own) && thread->tid == pyprof_native_thread_id(own) &&
        thread->next == (const char *)PyThreadState_Next(own) && pyprof_finds_interpreters(interp);
    pyprof_release_thread_states();
    return found;
}

const char *pyprof_live_stacks_obstacle(void) {
    static const char *const wrong_layout = "the interpreter's threads are not laid out as expected";
    if (!pyprof_can_read_memory()) {
        return "this process may not read its own memory (process_vm_readv, /proc/self/mem)";
    }
    if (!pyprof_layout_is_trusted() || !offsets_are_in_bounds()) {
        return wrong_layout;
    }
    if (is_pre_release()) {
        return "the interpreter is an alpha or beta release";
    }
    PyThreadState *own = PyThreadState_Get();
    const char *evaluation_obstacle = pyprof_evaluation_obstacle(PyThreadState_GetInterpreter(own));
    if (evaluation_obstacle != NULL) {
        return evaluation_obstacle;
    }
    pyprof_live_thread thread;
    if (!finds_threads(own, &thread)) {
        return wrong_layout;
    }
    static pyprof_code_frame raw[PROOF_DEPTH + PYPROF_SPARE_FRAMES], live[PROOF_DEPTH + PYPROF_SPARE_FRAMES];
    bool raw_truncated;
    pyprof_live_walk walk = {.frames = live, .max = PROOF_DEPTH};
    size_t raw_depth = pyprof_walk_raw(own, raw, PROOF_DEPTH, &raw_truncated);
    pyprof_live_stack *stack = pyprof_live_stack_new();
    pyprof_live_learn_calls(raw, raw_depth, true);
    bool is_exact = stack != NULL &&
                    pyprof_walk_live(&thread, stack, false, shape_of_live_code, &walk) == PYPROF_LIVE_EXACT;
    pyprof_live_stack_free(stack);
    forget_shape();
    if (!is_exact || walk.depth != raw_depth || walk.truncated != raw_truncated) {
        return wrong_layout;
    }
    for (size_t i = 0; i < raw_depth; i++) {
        if (live[i].code != raw[i].code || live[i].lasti != raw[i].lasti || live[i].begun != raw[i].begun) {
            return wrong_layout;
        }
    }
    if (raw_depth > 0 && !names_its_call(&live[0])) {
        return "the interpreter's frames do not keep what they call where it is expected";
    }
    if (raw_depth > 0 && !is_copied_right(raw[0].code)) {
        return "the interpreter's code objects are not laid out as expected";
    }
    return NULL;
}

#else

const char *pyprof_evaluation_obstacle(PyInterpreterState *interp) { return (void)interp, NULL; }

const char *pyprof_live_stacks_obstacle(void) {
    return "this version of CPython is not known to this version of pyprof";
}

#endif
