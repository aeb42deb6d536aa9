"""What uploads import: once, in small steps, each under a lock that a fork waits for.

A child that is forked while a thread imports inherits that thread's import locks, held for ever: it hangs
when it imports the same module. So all of it is imported here, and the hook before a fork takes the same
lock (`hold`), which it gets after the step under way. It waits with a bound: the forking thread may itself be
inside an import that ours waits for, and beside busy threads imports take their time. A child forked in the
middle of a step, or of an import of the host's, undoes it.

Many modules ask for a logger while they are imported, and `logging` holds its lock during a fork, from its
own hook on. So ours has to run before that one: `on_logging` is called as soon as `logging` is there, and
hooks that are registered later run earlier.

The lock must be one of the interpreter, not of gevent: the hook runs in the hub's thread, where a patched
lock would switch to other greenlets in the middle of a fork. `unpatched.allocate_lock` sees to that if
gevent patched first; if it patches later, this lock is there already. While ours is held by the exporter,
the hub's thread blocks as a whole, which is what a fork needs.
"""

import _thread
import sys
from collections.abc import Callable

from .. import _native
from .main_thread import import_threading
from .unpatched import allocate_lock, is_patched

exporter_thread = 0
"""Native id of the exporter's thread: the one whose event loop, should it get one, is ours to destroy."""

on_logging: Callable[[], object] | None = None
"""Called once `logging` has registered its hooks for forks, before anything else is imported."""

_lock = allocate_lock()
_loaded: set[str] = set()  # modules
_forking: set[int] = set()  # threads that wait for the lock; it is not taken from under their noses
_importing_thread = 0

_PROTOBUF = (
    "google.protobuf.descriptor",
    "google.protobuf.descriptor_pool",
    "google.protobuf.descriptor_pb2",
    "google.protobuf.message",
    "google.protobuf.message_factory",
)
_GROUPS = {
    "log": ("logging",),  # registers hooks for forks, which must not come in the middle of one
    "files": ("pyprof.pprof", *_PROTOBUF),
    "http": (  # what others are made of comes first, so that none takes long
        "encodings.idna",  # socket.getaddrinfo, for every name
        "encodings.punycode",
        "urllib.parse",
        "socket",
        "ssl",
        "email.utils",
        "email.message",
        "email.parser",
        "http.client",
        "json",
        "tempfile",
        "zipfile",
        "urllib.request",
        "http.cookiejar",
        "netrc",  # requests, where no credentials are configured
        "urllib3",
        "requests",
        "pyprof.export.http",
        "pyprof.pprof",
        *_PROTOBUF,
    ),
}


def load(group: str) -> bool:
    """Import what the log or a group of targets needs: `log`, `files`, `http`. False while a process forks.

    Then try again, which goes on where it was: it does not wait for the fork, which may be waiting for this
    thread to end.
    """
    return all(_import(module) for module in _GROUPS[group])


def _import(module: str) -> bool:
    """One step. False if a fork comes first."""
    global _importing_thread
    if module in _loaded:
        return True
    if _forking or not _lock.acquire(blocking=False):
        return False
    try:
        _importing_thread = _thread.get_ident()
        import importlib

        import_threading()
        hub = "gevent" in sys.modules and "urllib3" not in sys.modules
        importlib.import_module(module)
        if hub and "urllib3" in sys.modules:
            _drop_hub()
        if module == "logging" and on_logging is not None:
            on_logging()
        _loaded.add(module)
    finally:
        _importing_thread = 0
        _lock.release()
    return True


def is_loading() -> bool:
    """Whether some thread is in `load`, or in a fork."""
    return _lock.locked()


def _drop_hub() -> None:
    """urllib3 tries a socket while it is imported; under gevent that leaves this thread an event loop."""
    if is_patched() and _thread.get_native_id() == exporter_thread:
        sys.modules["gevent"].get_hub().destroy(destroy_loop=True)


def hold(timeout: float) -> bool:
    """Before a fork: keep uploads from importing. Whether that was had within `timeout` seconds."""
    thread = _thread.get_ident()
    _forking.add(thread)
    try:
        return _lock.acquire(timeout=timeout)
    finally:
        _forking.discard(thread)


def release() -> None:
    """After a fork, in the parent, if `hold` returned True."""
    _lock.release()


def after_fork_child() -> None:
    """In a child: a new lock, and every import undone that a thread of the parent was in the middle of.

    Ours because the parent could not `hold`, or one of the host's. Nobody goes on with it here: the modules
    would stay half made, and locked for whoever imports them, which may be the exporter.
    """
    global _lock, _importing_thread
    _lock = allocate_lock()
    _forking.clear()
    import _frozen_importlib

    locks = getattr(_frozen_importlib, "_module_locks", {})
    _native.unlock_in_child(locks)
    for name, reference in list(locks.items()):
        if not _is_gone(getattr(reference(), "owner", None)):
            continue
        locks.pop(name, None)
        if _is_half_made(sys.modules.get(name)):
            # With its submodules: a package made anew would not have those as attributes.
            for module in [name, *(other for other in sys.modules if other.startswith(f"{name}."))]:
                sys.modules.pop(module, None)
    _importing_thread = 0


def _is_gone(owner: int | None) -> bool:
    """In a child: whether the owner of an import lock was another thread of the parent."""
    if owner is None or owner == _thread.get_ident():
        return False
    # Patched by gevent, it tells greenlets apart, and those of the thread that forked are here.
    return owner == _importing_thread or _thread.get_ident.__module__ == "_thread"


def join_fork_of_logging() -> None:
    """Last before a fork: what `logging` would have done by now, had it been there when the fork began.

    Its hook for the time afterwards runs in any case, and complains on stderr of a lock that nobody holds.
    """
    logging = sys.modules.get("logging")
    lock = getattr(logging, "_lock", None)
    if lock is not None and not _is_half_made(logging) and not lock._is_owned():
        lock.acquire()


def _is_half_made(module: object) -> bool:
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))
