"""Starting pyprof without a line of code in the program.

Three ways lead here, all through `pyprof_autostart.main`, and together they start one profiler: the
`.pth` file that an installation puts beside the package, the `.start` entry point of Python 3.15, and the
`sitecustomize` of this directory, which `pyprof run` and `PYTHONPATH=$(pyprof info --autostart-path)` put
on the path.
"""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pyprof.config import Option

_done = False


def directory() -> "Path":
    """The directory to put on PYTHONPATH."""
    from pathlib import Path

    return Path(__file__).resolve().parent


def start() -> None:
    """Start pyprof as the PYPROF_* variables say, once a process and in the main interpreter only."""
    global _done
    if _done:
        return
    _done = True

    from pyprof import _native

    # `site` runs in every interpreter of the process, and a thread started in another makes its end abort.
    if _native.is_main_interpreter() and _enabled():
        if _is_uwsgi():
            sys.meta_path.insert(0, _AwaitsUwsgi)
        else:
            _start()


def _start() -> None:
    import pyprof

    # Such a program does not know of pyprof, so it cannot stop it before its workers are killed.
    if os.environ.get(_option("flush_on_sigterm").variable, "").strip():
        pyprof.start()
    else:
        pyprof.start(flush_on_sigterm=True)


def _is_uwsgi() -> bool:
    """Whether this is the interpreter within uWSGI, whose own module is not there yet."""
    try:
        return os.path.basename(os.readlink("/proc/self/exe")).startswith("uwsgi")
    except OSError:
        return False


class _AwaitsUwsgi:
    """At the first import after uWSGI has made its module, `pyprof.start()` can tell what it is to do."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> None:
        if hasattr(sys.modules.get("uwsgi"), "masterpid") and cls in sys.meta_path:
            sys.meta_path.remove(cls)
            try:
                _start()
            except Exception as error:  # an import of the application's
                from pyprof import log

                log.warning("not started: %s: %s", type(error).__name__, error)


def _option(name: str) -> "Option":
    from pyprof.config import OPTIONS

    return next(option for option in OPTIONS if option.name == name)


def _enabled() -> bool:
    from pyprof import log

    option = _option("enabled")
    try:
        return bool(option.parse(os.environ.get(option.variable, "")))
    except ValueError as error:
        log.warning("%s: %s; not started", option.variable, error)
        return False
