/* What the sampler needs to know about the running CPython, and the only place that knows it by version.
 *
 * Unless said otherwise a function here wants an attached thread state: the GIL, or on free-threaded builds
 * a world that the caller has stopped. None of them changes a reference count for longer than the call.
 */
#ifndef PYPROF_CPYTHON_INTERPRETER_H
#define PYPROF_CPYTHON_INTERPRETER_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

/* What a frame calls, if that is certain: an object that it keeps on its value stack meanwhile. */
typedef struct {
    const void *object; /* NULL: nothing; never followed */
    const char *place;  /* where it stands, see callables.h */
    /* Where the frame has its instruction pointer, and what that was. NULL: the thread stands still. */
    const char *instruction_place, *instruction;
} pyprof_callee;

typedef struct {
    PyCodeObject *code;  /* borrowed: valid while the caller keeps the GIL */
    int32_t lasti;       /* byte offset of the instruction that runs, or that called */
    bool begun;          /* false: CPython does not show the frame, its first instructions are not Python's */
    bool enters_c;       /* if it calls something now, that is C code */
    const char *address; /* of the frame; NULL: not known */
    pyprof_callee callee;
} pyprof_code_frame;

/* Walks the interpreter's own frame structures, creating no object. Leaf first; at most `max` frames that
 * have begun, and at most PYPROF_SPARE_FRAMES others; `*truncated` tells whether the stack had more. Allowed
 * only after `pyprof_raw_walk_obstacle` said NULL. */
enum { PYPROF_SPARE_FRAMES = 256 };
size_t pyprof_walk_raw(PyThreadState *tstate, pyprof_code_frame *frames, size_t max, bool *truncated);

/* The same for what shall know no more of a frame than where it is: frames that have begun, at most `max`.
 * The thread is the calling one; inside an allocation, too. */
typedef struct {
    PyCodeObject *code; /* borrowed */
    int32_t lasti;      /* byte offset of the instruction that runs, or that called */
} pyprof_code_position;
size_t pyprof_walk_positions(PyThreadState *tstate, pyprof_code_position *positions, size_t max,
                             bool *truncated);

/* Checks the layout of frames and proves it on the calling thread's own stack. NULL, or why the walk may not
 * be used. */
const char *pyprof_walk_positions_obstacle(void);

/* The calling thread's thread state, if it is attached; NULL: it is not, or cannot tell. From any thread.
 * Where `must_be`, as the contract of who calls says, it always can. */
PyThreadState *pyprof_attached_thread(bool must_be);

/* What tracing, profiling or monitoring calls runs before what the instruction calls: then a frame does not
 * say of the others what they call. */
bool pyprof_is_in_trace_function(PyThreadState *tstate);

/* The same through the public C API, which creates the frame objects, and shows none that has not begun. */
size_t pyprof_walk_public(PyThreadState *tstate, pyprof_code_frame *frames, size_t max, bool *truncated);

/* Checks the layouts and proves them on the calling thread's own stack and GIL. NULL, or why the raw walk may
 * not be used. */
const char *pyprof_raw_walk_obstacle(void);

/* Whether the functions below may read the interpreter's structures, as `pyprof_raw_walk_obstacle` has found;
 * untrusted they use the public C API as far as that goes, and who holds the GIL is unknown. */
void pyprof_trust_layout(bool trusted);
bool pyprof_layout_is_trusted(void);

/* Whether a thread state may only be made while the interpreter has another; and whether it will have one
 * until it ends, which the child of a thread's fork may not. */
bool pyprof_thread_states_need_company(void);
bool pyprof_thread_states_find_company(PyInterpreterState *interp);

/* From a signal handler, attached or not: whether the calling thread, afterwards, keeps nobody from running
 * Python code. `*detached` is what PyEval_RestoreThread takes it back with; NULL: it was not attached. */
bool pyprof_detach_in_handler(PyThreadState **detached);

/* Kernel id of the thread. While it is starting 0, or where the function below says so, that of the thread
 * that makes it, whose own state is older. */
uint64_t pyprof_native_thread_id(PyThreadState *tstate);
bool pyprof_new_thread_has_creators_id(void);

/* For the calling thread, attached: in the child of a fork without Python's hooks, as uWSGI's workers are,
 * its state has the id of the thread that forked. */
void pyprof_correct_native_thread_id(uint64_t own_tid);

/* `pyprof_native_thread_id` from any thread, attached or not; 0 also where the state is gone or cannot be
 * read. */
uint64_t pyprof_live_native_thread_id(const void *tstate);

/* The newest thread state, as an opaque mark that changes when a thread state is made. From any thread,
 * attached or not. */
const void *pyprof_newest_thread(PyInterpreterState *interp);

/* Whether the thread state is attached on a free-threaded build. From any thread; the state may be gone. */
bool pyprof_thread_attached(const void *tstate);

/* Free-threaded builds: park every other thread of the interpreter at a safe point. No-op with a GIL. */
void pyprof_stop_the_world(PyInterpreterState *interp);
void pyprof_start_the_world(PyInterpreterState *interp);
bool pyprof_is_free_threaded(void);

/* In the child of a fork that has no other thread yet: the lock of `object` on free-threaded builds, which a
 * thread that is not here may hold for ever. A thread that waited for it gets it even while the world is
 * stopped for the fork. No-op with a GIL. */
void pyprof_unlock_in_child(PyObject *object);

/* Until `release` no thread state of any interpreter comes or goes. Who has another GIL, or none, makes and
 * ends them in the main interpreter's list, too: to follow that it takes more than the GIL. Attached; what
 * runs meanwhile runs no Python code, and neither waits for the GIL nor lets go of it. False: somebody else
 * has kept them for a millisecond. */
bool pyprof_hold_thread_states(void);
/* Part of the proof that the layout is to be trusted: whether the lock that this takes is where it is
 * expected. */
bool pyprof_finds_lock_of_thread_states(void);
void pyprof_release_thread_states(void);

/* Python's identifier of the main thread, which need not be the one that imported `threading` first. */
unsigned long pyprof_main_thread_id(void);

bool pyprof_is_finalizing(void); /* from any thread, attached or not */

/* Calls `callback` with each code object of any interpreter that is about to be freed, still intact, on the
 * thread that frees it: pure C only, and several threads may be in it at once, also just after `unwatch`. Two
 * callbacks a process. */
void pyprof_watch_code_deaths(void (*callback)(PyCodeObject *));
void pyprof_unwatch_code_deaths(void (*callback)(PyCodeObject *));

#endif
