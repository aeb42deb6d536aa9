"""Programs that drive the sampler directly and answer what it did: how each begins, and how it is run."""

import json
import shlex
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]

# The answer is the last line, as JSON.
PRELUDE = """
import ctypes, gc, json, os, sys, _thread, threading, time
from pyprof import _native
from pyprof.pprof import read

PATIENCE = 60

def start(**options):
    _native.start(**dict(period_ns=1_000_000, window_ns=10**15, max_frames=1000, ring_windows=9,
                         window_bytes=8 << 20, raw_walk=True, max_overhead=1, gil=True,
                         gilfree=os.environ.get("PYPROF_ENGINE") != "current_frames") | options)

def answer(**found):
    print(json.dumps(found))
"""


def asking(run_python: Run, prelude: str) -> Run:
    """What runs a program that begins with `prelude` too, in a process of its own, and returns its answer."""

    def run(program: str, *arguments: str, **keywords: Any) -> Any:
        result = run_python(PRELUDE + prelude + program, *arguments, check=True, timeout=120, **keywords)
        assert result.stderr == "", result.stderr
        return json.loads(result.stdout.splitlines()[-1])

    return run


def compile_library(source: Path, directory: Path, require: Any, run_process: Run) -> Path:
    """A library of C code that may use Python's API, in `directory`."""
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")
    compiler[0] = require.tool(compiler[0], "cc", "gcc", "clang")
    library = directory / f"{source.name}.so"
    headers = [f"-I{sysconfig.get_path(kind)}" for kind in ("include", "platinclude")]
    built = run_process([*compiler, "-shared", "-fPIC", "-O1", *headers, "-o", str(library), str(source)])
    assert built.returncode == 0, built.stderr
    return library
