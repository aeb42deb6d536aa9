"""Starts pyprof in every Python process that has this directory on PYTHONPATH.

It stands in the way of the `sitecustomize` that the process would have found without it, so it first takes
itself out of the way and runs that one. What that one raises goes on to `site`, which reports it as ever.
Any Python that a profiled program starts may run it, so its syntax is that of Python 2.7.
"""

import os
import sys

import pyprof_autostart

_directory = os.path.dirname(os.path.abspath(__file__))
_self = sys.modules.pop("sitecustomize")
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _directory]
try:
    import sitecustomize  # noqa: F401
except ImportError as _error:
    if getattr(_error, "name", "sitecustomize") != "sitecustomize":
        raise
finally:
    sys.modules.setdefault("sitecustomize", _self)
    pyprof_autostart.main()
