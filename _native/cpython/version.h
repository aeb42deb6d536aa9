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

/* The GIL hangs on each interpreter (3.12), on the runtime before. */
#define PYPROF_GIL_PER_INTERPRETER (PY_VERSION_HEX >= 0x030c0000)

/* An interpreter without a thread state gives out its static first one again, which is fatal (until 3.12). */
#define PYPROF_FIRST_THREAD_STATE_ONCE (PY_VERSION_HEX < 0x030d0000)

/* Until a new thread runs, its state has its creator's ids (3.11), none later. */
#define PYPROF_NEW_THREAD_HAS_CREATORS_ID (PY_VERSION_HEX < 0x030c0000)

#define PYPROF_HAS_CODE_WATCHERS (PY_VERSION_HEX >= 0x030c0000)

/* Frames that stand for C code in between (3.12); their `owner` is at least this. */
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
