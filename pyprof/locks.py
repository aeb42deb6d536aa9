"""The lock that pyprof's own state is guarded by, whatever has patched `threading`."""

from . import _native

if _native.SUPPORTED:
    Lock = _native.Lock
else:  # nothing runs beside the application there
    from _thread import allocate_lock as Lock  # type: ignore[assignment]

__all__ = ["Lock"]
