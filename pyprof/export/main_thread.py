"""Before 3.13, `threading` takes whoever imports it first for the main thread.

In a program that never imports it, that is the exporter. `threading` would then wait for the exporter at the
program's end, and tell the program's main thread that it is not the main one.
"""

import sys


def import_threading() -> None:
    """Import `threading` from a thread of ours, and leave it as if the main thread had done so."""
    if "threading" in sys.modules:
        return
    import _thread
    import threading

    if sys.version_info >= (3, 13):
        return
    from .. import _native

    # The attributes are those of 3.11 and 3.12, which get security fixes only.
    main: object = threading.main_thread()
    state = vars(threading)
    with state["_active_limbo_lock"], state["_shutdown_locks_lock"]:
        ident = _native.main_thread_id()
        state["_active"].pop(vars(main)["_ident"], None)
        state["_shutdown_locks"].discard(vars(main)["_tstate_lock"])
        lock = _thread.allocate_lock()
        lock.acquire()  # the main thread releases it when it ends
        vars(main).update(_ident=ident, _native_id=_process_id(), _tstate_lock=lock)
        state["_active"][ident] = main
        state["_shutdown_locks"].add(lock)


def _process_id() -> int:
    import os

    return os.getpid()
