"""What the `.pth` line, the `.start` entry point and the `sitecustomize` of this directory call.

Installed a second time, beside the `.pth` file, as a module of its own: it can say no without importing
pyprof. Any Python that a profiled program starts may run it, so its syntax is that of Python 2.7.
"""

import os
import sys


def main():  # type: () -> None
    """Start pyprof if PYPROF_ENABLED asks for it; no error gets out."""
    value = os.environ.get("PYPROF_ENABLED", "")
    if value.strip().lower() in ("", "0", "false", "no", "off") or sys.version_info < (3, 11):
        return
    try:
        try:
            from pyprof import autostart
        except ImportError as error:
            # A virtual environment without pyprof, started by a profiled program: not worth a word there.
            if error.name in ("pyprof", "pyprof.autostart"):
                return
            raise
        autostart.start()
    except Exception as error:
        report(error)


def report(error):  # type: (Exception) -> None
    lines = str(error).splitlines()
    text = "pyprof: not started: %s: %s\n" % (type(error).__name__, lines[0] if lines else "")  # noqa: UP031
    try:
        sys.stderr.write(text)
    except Exception:
        pass  # stderr is closed or replaced: nobody to tell
