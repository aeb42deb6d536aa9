/* Version numbers as named facts. Only files of this directory include it. */
#ifndef PYPROF_CPYTHON_VERSION_H
#define PYPROF_CPYTHON_VERSION_H

#include <Python.h>

#if PY_VERSION_HEX < 0x030b0000
#error "pyprof needs CPython 3.11 or later"
#endif

/* The internal structures of these minor versions are known to us; later ones get the public C API. Tests
 * define it as 0. */
#ifndef PYPROF_KNOWN_LAYOUT
#define PYPROF_KNOWN_LAYOUT (PY_VERSION_HEX < 0x03100000)
#endif

/* `_PyRuntime` begins with a table of offsets (3.13). Patch releases moved fields: never bake those. */
#define PYPROF_HAS_DEBUG_OFFSETS (PY_VERSION_HEX >= 0x030d0000)

/* `f_executable` is a tagged reference (3.14). */
#define PYPROF_TAGGED_EXECUTABLE (PY_VERSION_HEX >= 0x030e0000)

/* `co_framesize` (3.12); before, the size of a frame is a sum. */
#define PYPROF_CODE_KNOWS_FRAME_SIZE (PY_VERSION_HEX >= 0x030c0000)

/* The innermost frame hangs on a structure of the C stack, not on the thread state (until 3.12). */
#define PYPROF_FRAME_ON_C_STACK (PY_VERSION_HEX < 0x030d0000)

/* Pending calls run on whatever thread evaluates bytecode (3.12; before, only the main thread ran them). */
#define PYPROF_HAS_PENDING_CALLS_ANYWHERE (PY_VERSION_HEX >= 0x030c0000)

/* Adding one tells the evaluation loops (3.13; before, only if a thread adds it that may run it itself). */
#define PYPROF_PENDING_CALLS_SIGNAL (PY_VERSION_HEX >= 0x030d0000)

/* Which thread state is attached is a variable of the process (3.11), one of each thread later. */
#define PYPROF_ATTACHED_THREAD_IS_GLOBAL (PY_VERSION_HEX < 0x030c0000)

/* PyThreadState_GetUnchecked, which was private before (3.13). */
#define PYPROF_HAS_UNCHECKED_GET (PY_VERSION_HEX >= 0x030d0000)

/* tracemalloc's tables are a part of the runtime (3.12), before they were variables of one file. */
#define PYPROF_TRACES_IN_RUNTIME (PY_VERSION_HEX >= 0x030c0000)

/* One function a process is called at every new object (3.13): tracemalloc's, where it is on. */
#define PYPROF_HAS_REFERENCE_TRACER (PY_VERSION_HEX >= 0x030d0000)

/* They are guarded by a mutex (3.14); file names in them are UTF-8 and no objects (3.15). */
#define PYPROF_TRACES_HAVE_MUTEX (PY_VERSION_HEX >= 0x030e0000)
#define PYPROF_TRACES_NAME_FILES_IN_UTF8 (PY_VERSION_HEX >= 0x030f0000)

/* The GIL hangs on each interpreter (3.12), on the runtime before. */
#define PYPROF_GIL_PER_INTERPRETER (PY_VERSION_HEX >= 0x030c0000)

/* A thread state says that its thread wants the GIL (3.15). */
#define PYPROF_STATES_NAME_WAITERS (PY_VERSION_HEX >= 0x030f0000)

/* An interpreter without a thread state gives out its static first one again, which is fatal (until 3.12). */
#define PYPROF_FIRST_THREAD_STATE_ONCE (PY_VERSION_HEX < 0x030d0000)

/* The first thread state that an interpreter is made with runs code for any thread (until 3.12). */
#define PYPROF_FIRST_THREAD_STATE_SHARED (PY_VERSION_HEX < 0x030d0000)

/* Until a new thread runs, its state has its creator's ids (3.11), none later. */
#define PYPROF_NEW_THREAD_HAS_CREATORS_ID (PY_VERSION_HEX < 0x030c0000)

/* The tables of instructions are in a header of their own (3.13). */
#define PYPROF_HAS_OPCODE_METADATA (PY_VERSION_HEX >= 0x030d0000)

/* A frame keeps the top of its value stack while it calls anything (3.14). */
#define PYPROF_FRAME_HAS_STACK_POINTER (PY_VERSION_HEX >= 0x030e0000)

/* Before a callable without `self` stands NULL (until 3.12), after it later. */
#define PYPROF_NULL_BEFORE_CALLABLE (PY_VERSION_HEX < 0x030d0000)

/* What CALL_FUNCTION_EX calls: below the arguments and, if there are some, named ones; with a NULL on it
 * (3.13), and one where there are no named ones (3.14). */
#if PY_VERSION_HEX >= 0x030e0000
#define PYPROF_EX_CALLABLE_BELOW_TOP(argument) 4
#elif PY_VERSION_HEX >= 0x030d0000
#define PYPROF_EX_CALLABLE_BELOW_TOP(argument) (3 + ((argument)&1))
#else
#define PYPROF_EX_CALLABLE_BELOW_TOP(argument) (2 + ((argument)&1))
#endif

/* Frames that stand for C code, the outermost among them (3.12); their `owner` is at least this. Before, a
 * frame says that C code has entered it. */
#define PYPROF_HAS_C_FRAMES (PY_VERSION_HEX >= 0x030c0000)
#define PYPROF_FIRST_NON_PYTHON_OWNER 3

#ifdef Py_GIL_DISABLED
#define PYPROF_FREE_THREADED 1
#if PY_VERSION_HEX < 0x030e0000
#error "free-threaded builds are supported from 3.14 on: 3.13t cannot stop the world from an extension"
#endif
#else
#define PYPROF_FREE_THREADED 0
#endif

#endif
