"""Sockets, TLS and locks of the operating system, whatever has monkeypatched the modules.

gevent and eventlet replace `socket.socket`, `ssl.SSLContext` and `_thread.allocate_lock` by versions that
switch between greenlets of one thread. The exporter is a thread of its own: there they would start an
event loop that nobody runs. Originals fetched one by one are not enough: the original `SSLSocket` finds its
own class by name in the patched module (`super(SSLSocket, self)`) and fails, so where the modules are
patched, private copies of `socket` and `ssl` are loaded from their sources; the C modules below
(`_socket`, `_ssl`) are shared and unpatched.
"""

import _thread
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


def is_patched() -> bool:
    """Whether something has replaced the socket class."""
    import socket  # in here: the profiler's start does not load it

    return socket.socket.__module__ != "socket"


def allocate_lock() -> _thread.LockType:
    """A plain lock of the interpreter, which blocks the thread and never a hub."""
    monkey = sys.modules.get("gevent.monkey")
    allocate: Callable[[], _thread.LockType] = (
        monkey.get_original("_thread", "allocate_lock") if monkey else _thread.allocate_lock
    )
    return allocate()


def socket_module() -> Any:
    """The socket module, or a copy with the original classes."""
    import socket

    return _copy("socket", {}) if is_patched() else socket


def ssl_module() -> Any:
    """The ssl module, or a copy with the original classes on top of `socket_module()`."""
    if is_patched():
        return _copy("ssl", {"socket": socket_module()})
    import ssl

    return ssl


def _copy(name: str, imports: Mapping[str, ModuleType]) -> ModuleType:
    """The module once more under a private name, with `imports` in place of what it would import."""
    private = f"{__name__}.{name}"
    if private in sys.modules:
        return sys.modules[private]
    import builtins
    import importlib.util

    spec = importlib.util.find_spec(name)
    get_code = getattr(spec and spec.loader, "get_code", None)
    code = get_code(name) if get_code else None
    if code is None:
        raise ImportError(f"{name} is monkeypatched, and there is no source of the original")

    def import_(module: str, *arguments: Any, **keywords: Any) -> ModuleType:
        return imports.get(module) or __import__(module, *arguments, **keywords)

    copy = ModuleType(private)
    copy.__dict__["__builtins__"] = {**vars(builtins), "__import__": import_}
    sys.modules[private] = copy  # their enums look themselves up there while they are made
    try:
        exec(code, copy.__dict__)  # noqa: S102
    except BaseException:
        del sys.modules[private]
        raise
    return copy
