"""Starting pyprof without a line of code in the program.

Three ways lead here, all through `pyprof_autostart.main`, and together they start one profiler: the `.pth` file
that an installation puts beside the package, the `.start` entry point of Python 3.15, and the `sitecustomize` of
this directory, which `pyprof run` and `PYTHONPATH=$(pyprof info --autostart-path)` put on the path.
"""

from pathlib import Path

_done = False


def directory() -> Path:
    """The directory to put on PYTHONPATH."""
    return Path(__file__).resolve().parent


def start() -> None:
    """Start pyprof as the PYPROF_* variables say, once a process and in the main interpreter only."""
    global _done
    if _done:
        return
    _done = True

    import pyprof
    from pyprof import _native

    # `site` runs in every interpreter of the process, and a thread started in another one makes its end abort.
    if _native.is_main_interpreter() and enabled():
        pyprof.start()
