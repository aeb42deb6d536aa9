"""What uploads import: once, under a lock that a fork waits for.

A child that is forked while a thread imports inherits that thread's import locks, held for ever: it hangs
when it imports the same module. So all of it is imported here in one go, and the hook before a fork takes
the same lock (`hold`), with a bound: the forking thread may itself be inside an import that ours waits for.

The lock must be one of the interpreter, not of gevent: the hook runs in the hub's thread, where a patched
lock would switch to other greenlets in the middle of a fork. `unpatched.allocate_lock` sees to that if
gevent patched first; if it patches later, this lock is there already. While ours is held by the exporter,
the hub's thread blocks as a whole, which is what a fork needs.
"""

import _thread
import sys

from .unpatched import allocate_lock, is_patched

exporter_thread = 0
"""Native id of the exporter's thread: the one whose event loop, should it get one, is ours to destroy."""

_lock = allocate_lock()
_loaded: set[str] = set()

_PROTOBUF = ("google.protobuf.descriptor_pb2", "google.protobuf.message", "google.protobuf.message_factory")
_GROUPS = {
    "files": ("pyprof.pprof", *_PROTOBUF),
    "http": (
        "pyprof.export.http",
        "pyprof.pprof",
        *_PROTOBUF,
        "encodings.idna",  # socket.getaddrinfo, for every name
        "encodings.punycode",
        "email.utils",
        "netrc",  # requests, where no credentials are configured
        "ssl",
    ),
}


def load(group: str) -> bool:
    """Import what a group of targets needs: `files` or `http`. False where a fork is under way: try again.

    It does not wait for the fork, which may be waiting for this thread to end.
    """
    if group in _loaded:
        return True
    if not _lock.acquire(blocking=False):
        return False
    try:
        import importlib

        hub = "gevent" in sys.modules and "urllib3" not in sys.modules
        for module in _GROUPS[group]:
            importlib.import_module(module)
        if hub:
            _drop_hub()
        _loaded.add(group)
    finally:
        _lock.release()
    return True


def _drop_hub() -> None:
    """urllib3 tries a socket while it is imported; under gevent that leaves this thread an event loop."""
    if is_patched() and _thread.get_native_id() == exporter_thread:
        sys.modules["gevent"].get_hub().destroy(destroy_loop=True)


def hold(timeout: float) -> bool:
    """Before a fork: keep uploads from importing. Whether that was had within `timeout` seconds."""
    return _lock.acquire(timeout=timeout)


def release() -> None:
    """After a fork, in parent and child, if `hold` returned True."""
    _lock.release()


def after_fork_child() -> None:
    """In a child whose parent could not `hold`: a new lock."""
    global _lock
    _lock = allocate_lock()
