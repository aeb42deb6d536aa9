"""pyprof's log: the logger `pyprof` of the standard library, loaded with the first message and not before.

Where there is no such logger to be had, the message goes to stderr: no message is worth an error in the
application, nor a wait for another thread's import.
"""

import sys

_level = "warning"
_set_by_us = 0
_SEVERITY = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def set_level(level: str) -> None:
    """Messages below this level (debug, info, warning, error, critical) are not made."""
    global _level
    _level = level


def debug(message: str, *args: object) -> None:
    _log("debug", message, args)


def info(message: str, *args: object) -> None:
    _log("info", message, args)


def warning(message: str, *args: object) -> None:
    _log("warning", message, args)


def error(message: str, *args: object) -> None:
    _log("error", message, args)


def _log(severity: str, message: str, args: tuple[object, ...]) -> None:
    global _set_by_us
    if _SEVERITY[severity] < _SEVERITY[_level]:
        return
    text = "pyprof: " + message
    try:
        if getattr(getattr(sys.modules.get("logging"), "__spec__", None), "_initializing", False):
            raise ImportError("logging is being imported")
        import logging

        logger = logging.getLogger("pyprof")
        if logger.level in (logging.NOTSET, _set_by_us):  # the application's own level stays
            _set_by_us = _SEVERITY[_level]
            logger.setLevel(_set_by_us)
        logger.log(_SEVERITY[severity], text, *args)
    except Exception:
        try:
            sys.stderr.write(text % args + "\n")
        except Exception:
            pass  # stderr is closed or replaced: nobody to tell
