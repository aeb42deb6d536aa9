"""Windows, the ring and the governor, driven from C where Python cannot reach: see check_*.c.

Seen to fail, check_governor.c: without the debt, with one that has no bound, or that may be a credit; without
the step that a change takes, or with a large one; with costs not smoothed, or by the number of ticks alone;
with a new thread's clock compared with the old one's; with other threads' CPU left out; with periods beyond a
second, below the wanted one, or of no tick at all; with max_overhead=1 taken for a limit.
"""

import shlex
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
NATIVE = HERE.parent.parent / "_native"
NEEDS_PYTHON = {"window_type.c", "arguments.c"}

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GNU ld's --wrap, futexes, fork")


def compile_program(
    name: str, target: Path, require: Any, run_process: Callable[..., Any], *options: str
) -> Path:
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")
    compiler[0] = require.tool(compiler[0], "cc", "gcc", "clang")
    sources = [path for path in sorted((NATIVE / "windows").glob("*.c")) if path.name not in NEEDS_PYTHON]
    sources += [
        NATIVE / name
        for name in (
            "symbols/symbol.c",
            "labels/label_set.c",
            "labels/label_slab.c",
            "cpython/linetable.c",
            "sampling/governor.c",
        )
    ]
    sources.append(HERE / name)
    program = target / name.removesuffix(".c")
    flags = [
        "-std=c11",
        "-O1",
        "-g",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pthread",
        f"-I{NATIVE}",
        f"-I{HERE}",
        *options,
    ]
    result = run_process([*compiler, *flags, "-o", program, *sources], timeout=120)
    assert result.returncode == 0, result.stderr
    return program


def test_windows(tmp_path: Path, require: Any, run_process: Callable[..., Any]) -> None:
    wrap = "-Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=free"
    program = compile_program("check_window.c", tmp_path, require, run_process, wrap)
    result = run_process([program], timeout=120)
    assert result.returncode == 0, result.stderr


def test_ring(tmp_path: Path, require: Any, run_process: Callable[..., Any]) -> None:
    program = compile_program("check_ring.c", tmp_path, require, run_process)
    result = run_process([program], timeout=120)
    assert result.returncode == 0, result.stderr


def test_governor(tmp_path: Path, require: Any, run_process: Callable[..., Any]) -> None:
    program = compile_program("check_governor.c", tmp_path, require, run_process)
    result = run_process([program], timeout=120)
    assert result.returncode == 0, result.stderr
