"""`pyprof info`: what a bug report needs: versions, engine, configuration."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata

from pyprof._version import __version__
from pyprof.cli.terminal import note
from pyprof.config import OPTIONS, Config, program_name
from pyprof.pprof import printable

__all__ = ["argument_parser", "main"]

LONGEST_START = 5.0
"""Seconds until the timer thread has had the CPU for the first time."""


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pyprof info",
        description="Print versions, engine and the configuration from the environment, secrets masked.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--autostart-path",
        action="store_true",
        help="print only the directory that on PYTHONPATH starts pyprof in every Python process",
    )
    return parser


def main(words: Sequence[str]) -> int:
    from pyprof import autostart

    arguments = argument_parser().parse_args(words)
    if arguments.autostart_path:
        print(autostart.directory())
        return 0
    config = Config.load({}, os.environ, note)
    directory = str(autostart.directory())
    _print_table({**_installation(), "sampling engine": _engine(config), "autostart path": directory})
    print("\nconfiguration (* from the environment)")
    _print_table(dict(_configuration(config)))
    return 0


def _print_table(facts: Mapping[str, str]) -> None:
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}}  {printable(value)}")


def _installation() -> dict[str, str]:
    return {
        "pyprof": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()}, {_gil()}, JIT {_jit()})",
        "executable": sys.executable or "unknown",
        "platform": f"{platform.platform()} ({sysconfig.get_platform()})",
        "native part": _native_part(),
        "protobuf": _protobuf(),
        **{name: _version(name) for name in ("requests", "wrapt", "greenlet")},
    }


def _gil() -> str:
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "with GIL"
    return "free-threaded, GIL " + ("on" if sys._is_gil_enabled() else "off")  # type: ignore[attr-defined,unused-ignore]


def _jit() -> str:
    jit = getattr(sys, "_jit", None)
    if jit is None or not jit.is_available():
        return "not built"
    return "on" if jit.is_enabled() else "off"


def _native_part() -> str:
    try:
        from pyprof import _native
    except ImportError as error:
        return f"missing ({error})"
    return "present" if _native.SUPPORTED else "present, but it cannot sample on this platform"


def _engine(config: Config) -> str:
    try:
        from pyprof import _native
    except ImportError:
        return "none: the native part is missing"
    if not _native.SUPPORTED:
        return "none: this platform is not supported"
    if config.engine == "current_frames":
        return "current_frames"
    obstacle = _native.gilfree_obstacle()
    chosen = " (auto)" if config.engine == "auto" else ""
    if obstacle is not None:
        return f"current_frames{chosen}: no gilfree, {obstacle}"
    return f"gilfree{chosen}, memory read by {_memory_reads()}"


def _memory_reads() -> str:
    """As the timer thread of a short profile has found out."""
    import pyprof

    deadline = time.monotonic() + LONGEST_START
    try:
        with pyprof.profile():
            while (reads := pyprof.stats().memory_reads) == "none" and time.monotonic() < deadline:
                time.sleep(0.001)
            return reads
    except RuntimeError as error:  # there is no thread to be had
        return f"unknown means: {error}"


def _protobuf() -> str:
    try:
        from pyprof.pprof.proto import implementation

        return implementation()
    except Exception as error:  # an old one raises TypeError under a new Python
        return f"not usable ({type(error).__name__}: {error})"


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "missing"


def _configuration(config: Config) -> Iterator[tuple[str, str]]:
    for option in OPTIONS:
        mark = "*" if os.environ.get(option.variable, "").strip() else " "
        value = option.shown(getattr(config, option.name))
        if option.name == "service_name" and config.service_name == program_name():
            value = "the program's name"
        yield f"{mark} {option.name}", value
