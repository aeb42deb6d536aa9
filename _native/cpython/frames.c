/* The walk over a thread's frames. See interpreter.h. */
#define Py_BUILD_CORE 1 /* _PyInterpreterFrame and _Py_DebugOffsets are not in the public headers */
#include "cpython/version.h"

#if PYPROF_KNOWN_LAYOUT
#include "internal/pycore_frame.h"
#include "internal/pycore_runtime.h"
#if PYPROF_FREE_THREADED
#include "internal/pycore_code.h"
#endif
#endif
#undef Py_BUILD_CORE

#include "cpython/gil.h"
#include "cpython/interpreter.h"

#include <string.h>

#define CODE_UNIT ((int32_t)sizeof(_Py_CODEUNIT))

#if PYPROF_KNOWN_LAYOUT

/* A frame as the walk needs it, whatever the version. */
typedef struct {
    const char *previous;
    PyCodeObject *code; /* NULL: no Python frame */
    int32_t lasti;
    bool begun;
    bool entered_from_c; /* where there is no frame that says it */
} frame_view;

#if PYPROF_HAS_DEBUG_OFFSETS

static inline const char *load_pointer(const char *base, uint64_t offset) {
    const char *value;
    memcpy(&value, base + offset, sizeof(value));
    return value;
}

static const char *current_frame(PyThreadState *tstate) {
    return load_pointer((const char *)tstate, _PyRuntime.debug_offsets.thread_state.current_frame);
}

static inline const char *bytecode_of(const char *frame, PyCodeObject *code) {
#if PYPROF_FREE_THREADED
    /* Each thread runs its own copy of the bytecode. */
    int32_t index;
    memcpy(&index, frame + _PyRuntime.debug_offsets.interpreter_frame.tlbc_index, sizeof(index));
    const char *entries = load_pointer((const char *)code, _PyRuntime.debug_offsets.code_object.co_tlbc);
    return load_pointer(entries, offsetof(_PyCodeArray, entries) + (uint64_t)index * sizeof(char *));
#else
    (void)frame;
    return (const char *)code + _PyRuntime.debug_offsets.code_object.co_code_adaptive;
#endif
}

static frame_view view_frame(const char *frame) {
    const _Py_DebugOffsets *at = &_PyRuntime.debug_offsets;
    frame_view view = {.previous = load_pointer(frame, at->interpreter_frame.previous)};
    char owner = frame[at->interpreter_frame.owner];
    if (owner >= PYPROF_FIRST_NON_PYTHON_OWNER) {
        return view;
    }
    uintptr_t executable = (uintptr_t)load_pointer(frame, at->interpreter_frame.executable);
#if PYPROF_TAGGED_EXECUTABLE
    executable &= ~(uintptr_t)3;
#endif
    PyCodeObject *code = (PyCodeObject *)executable;
    const char *ip = load_pointer(frame, at->interpreter_frame.instr_ptr);
    ptrdiff_t lasti = ip - bytecode_of(frame, code);
    view.code = code;
    view.lasti = (int32_t)lasti;
    view.begun =
        owner == FRAME_OWNED_BY_GENERATOR || lasti >= (ptrdiff_t)code->_co_firsttraceable * CODE_UNIT;
    return view;
}

static const char *layout_obstacle(void) {
    const _Py_DebugOffsets *at = &_PyRuntime.debug_offsets;
    if (memcmp(at->cookie, "xdebugpy", 8) != 0) {
        return "the interpreter's debug offsets have an unknown cookie";
    }
    if (at->version >> 16 != PY_VERSION_HEX >> 16) {
        return "the interpreter is not of the minor version that pyprof was compiled for";
    }
    if ((at->free_threaded != 0) != PYPROF_FREE_THREADED) {
        return "the interpreter and pyprof disagree on free threading";
    }
    if (at->interpreter_frame.owner >= at->interpreter_frame.size ||
        at->interpreter_frame.instr_ptr >= at->interpreter_frame.size ||
        at->thread_state.current_frame >= at->thread_state.size ||
        at->thread_state.native_thread_id >= at->thread_state.size ||
        at->interpreter_state.threads_head >= at->interpreter_state.size ||
        at->interpreter_state.ceval_gil >= at->interpreter_state.size) {
        return "the interpreter's debug offsets are out of bounds";
    }
    return NULL;
}

#else /* 3.11, 3.12: the structures did not change within a minor version */

static const char *current_frame(PyThreadState *tstate) {
    return (const char *)tstate->cframe->current_frame;
}

static frame_view view_frame(const char *pointer) {
    const _PyInterpreterFrame *frame = (const _PyInterpreterFrame *)pointer;
    frame_view view = {.previous = (const char *)frame->previous};
    if (frame->owner >= PYPROF_FIRST_NON_PYTHON_OWNER) {
        return view;
    }
#if !PYPROF_HAS_C_FRAMES
    view.entered_from_c = frame->is_entry;
#endif
    PyCodeObject *code = frame->f_code;
    ptrdiff_t lasti = (const char *)frame->prev_instr - (const char *)_PyCode_CODE(code);
    view.code = code;
    view.lasti = (int32_t)lasti;
    view.begun =
        frame->owner == FRAME_OWNED_BY_GENERATOR || lasti >= (ptrdiff_t)code->_co_firsttraceable * CODE_UNIT;
    return view;
}

static const char *layout_obstacle(void) {
    return Py_Version >> 16 == PY_VERSION_HEX >> 16
               ? NULL
               : "the interpreter is not of the minor version that pyprof was compiled for";
}

#endif

size_t pyprof_walk_raw(PyThreadState *tstate, pyprof_code_frame *frames, size_t max, bool *truncated) {
    size_t depth = 0, begun = 0;
    bool enters_c = true;
    *truncated = false;
    for (const char *frame = current_frame(tstate); frame != NULL;) {
        frame_view view = view_frame(frame);
        enters_c |= view.code == NULL;
        if (view.code != NULL) {
            if ((view.begun && begun == max) || depth == max + PYPROF_SPARE_FRAMES) {
                *truncated = true;
                break;
            }
            begun += view.begun;
            frames[depth++] = (pyprof_code_frame){.code = view.code,
                                                  .lasti = view.lasti,
                                                  .begun = view.begun,
                                                  .enters_c = enters_c,
                                                  .address = frame};
            enters_c = view.entered_from_c;
        }
        frame = view.previous;
    }
    return depth;
}

size_t pyprof_walk_positions(PyThreadState *tstate, pyprof_code_position *positions, size_t max,
                             bool *truncated) {
    size_t depth = 0;
    *truncated = false;
    for (const char *frame = current_frame(tstate); frame != NULL;) {
        const frame_view view = view_frame(frame);
        if (view.code != NULL && view.begun) {
            if (depth == max) {
                *truncated = true;
                break;
            }
            positions[depth++] = (pyprof_code_position){view.code, view.lasti};
        }
        frame = view.previous;
    }
    return depth;
}

#else

/* The public API makes frame objects, which is forbidden here. */
size_t pyprof_walk_positions(PyThreadState *Py_UNUSED(tstate), pyprof_code_position *Py_UNUSED(positions),
                             size_t Py_UNUSED(max), bool *truncated) {
    *truncated = false;
    return 0;
}

size_t pyprof_walk_raw(PyThreadState *tstate, pyprof_code_frame *frames, size_t max, bool *truncated) {
    return pyprof_walk_public(tstate, frames, max, truncated);
}

static const char *layout_obstacle(void) {
    return "this version of CPython is not known to this version of pyprof";
}

#endif

size_t pyprof_walk_public(PyThreadState *tstate, pyprof_code_frame *frames, size_t max, bool *truncated) {
    size_t depth = 0;
    *truncated = false;
    /* It creates objects, and 3.11 collects garbage right away: finalizers would run here. */
    int collects = PyGC_Disable();
    PyFrameObject *frame = PyThreadState_GetFrame(tstate);
    while (frame != NULL) {
        if (depth == max) {
            *truncated = true;
            Py_DECREF(frame);
            break;
        }
        PyCodeObject *code = PyFrame_GetCode(frame);
        frames[depth++] = (pyprof_code_frame){.code = code, .lasti = PyFrame_GetLasti(frame), .begun = true};
        Py_DECREF(code); /* the frame holds it, and the thread the frame */
        PyFrameObject *back = PyFrame_GetBack(frame);
        Py_DECREF(frame);
        frame = back;
    }
    if (collects) {
        PyGC_Enable();
    }
    return depth;
}

bool pyprof_is_in_trace_function(PyThreadState *tstate) { return tstate->tracing != 0; }

enum { PROOF_DEPTH = 64 };

static size_t next_begun(const pyprof_code_frame *frames, size_t depth, size_t i) {
    while (i < depth && !frames[i].begun) {
        i++;
    }
    return i;
}

/* Threads of other interpreters come to this one, and leave it, at any time. */
static bool finds_state(PyInterpreterState *interp, const PyThreadState *own) {
    if (!pyprof_finds_lock_of_thread_states() || !pyprof_hold_thread_states()) {
        return false;
    }
    const bool found = pyprof_newest_thread(interp) == PyInterpreterState_ThreadHead(interp);
    pyprof_release_thread_states();
    return found && (pyprof_is_free_threaded() || pyprof_gil_holder(interp) == own);
}

static const char *frames_obstacle(void) {
    pyprof_code_frame raw[PROOF_DEPTH + PYPROF_SPARE_FRAMES], public[PROOF_DEPTH];
    bool raw_truncated, public_truncated;
    PyThreadState *own = PyThreadState_Get();
    size_t raw_depth = pyprof_walk_raw(own, raw, PROOF_DEPTH, &raw_truncated);
    size_t public_depth = pyprof_walk_public(own, public, PROOF_DEPTH, &public_truncated);
    bool equal = raw_truncated == public_truncated;
    size_t at = next_begun(raw, raw_depth, 0);
    for (size_t i = 0; equal && i < public_depth; i++, at = next_begun(raw, raw_depth, at + 1)) {
        equal = at < raw_depth && raw[at].code == public[i].code && raw[at].lasti == public[i].lasti;
    }
    equal = equal && at == raw_depth;
    return equal ? NULL : "the interpreter's frames are not laid out as expected";
}

static const char *proof_obstacle(void) {
    const char *obstacle = frames_obstacle();
    if (obstacle != NULL) {
        return obstacle;
    }
    PyThreadState *own = PyThreadState_Get();
    return finds_state(PyThreadState_GetInterpreter(own), own)
               ? NULL
               : "the interpreter's state is not laid out as expected";
}

const char *pyprof_walk_positions_obstacle(void) {
    const char *obstacle = layout_obstacle();
    return obstacle != NULL ? obstacle : frames_obstacle();
}

const char *pyprof_raw_walk_obstacle(void) {
    const char *obstacle = layout_obstacle();
    if (obstacle == NULL) {
        pyprof_trust_layout(true);
        obstacle = proof_obstacle();
    }
    pyprof_trust_layout(obstacle == NULL);
    return obstacle;
}
