"""`pyprof run`: profile a program, and every Python process that it starts, without changing it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pyprof.cli import launch
from pyprof.config import OPTIONS, Option
from pyprof.option_kinds import Boolean

USAGE = "pyprof run [-o OUT] [options] [--] script.py | -m module | command ..."
EPILOG = """\
The first word that is no option is the program: an existing .py file, or a directory or zip file
with a __main__, runs with this Python; anything else is looked up on PATH. -m runs a module.

-o OUT.pb.gz   the merged profile of the whole process tree
-o DIR/        one file for each process
Without -o and without a server the table of the hottest functions is printed at the end.

Every option is also an environment variable, PYPROF_<NAME>; secrets are better given that way,
for a command line can be read by others.
"""
_ROWS = 20


class UsageError(Exception):
    """Wrong arguments; the message says which."""


class CannotRun(Exception):
    """The program cannot be started; `code` is what a shell would exit with."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Target(NamedTuple):
    """An executable and its arguments, the program's name first."""

    path: str
    arguments: list[str]


def main(words: Sequence[str]) -> int:
    """Run with the arguments after `run`; the exit code, unless this process becomes the program or dies like it."""
    parser = argument_parser()
    try:
        options, target_words = split(words)
        arguments = parser.parse_args(options)
        if not target_words:
            raise UsageError("what shall be run? A script, -m module or a command is missing")
        environ = child_environment(os.environ, chosen(arguments))
        target = find_target(target_words)
    except UsageError as error:
        parser.error(str(error))
    except CannotRun as error:
        return _complain(str(error), error.code)
    _stop_profiling_this_process()
    if not sys.platform.startswith("linux"):
        print("pyprof run: profiling works on Linux only; the program runs without it", file=sys.stderr)
        return _become(target, environ)
    return _run(target, environ)


def _run(target: Target, environ: dict[str, str]) -> int:
    output = environ.get("PYPROF_OUTPUT", "").strip()
    if output and is_directory(output):
        directory = os.path.abspath(output)
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError as error:
            return _complain(f"cannot write profiles to {output}: {error.strerror}", 1)
        return _become(target, environ | {"PYPROF_OUTPUT": directory})
    if output:
        problem = unwritable(output)
        if problem:
            return _complain(f"cannot write {output}: {problem}", 1)
    elif has_server(environ):
        return _become(target, environ)
    with _collecting() as directory:
        try:
            status = launch.run(target.path, target.arguments, environ | {"PYPROF_OUTPUT": directory})
        except OSError as error:
            return _cannot_execute(target, error)
        saved = _finish(directory, output)
    return launch.leave(status) or (0 if saved else 1)


def _become(target: Target, environ: Mapping[str, str]) -> int:
    try:
        launch.replace(target.path, target.arguments, environ)
    except OSError as error:
        return _cannot_execute(target, error)


def _cannot_execute(target: Target, error: OSError) -> int:
    return _complain(f"cannot execute {target.path}: {error.strerror}", launch.NOT_EXECUTABLE)


def _complain(message: str, code: int) -> int:
    print(f"pyprof run: {message}", file=sys.stderr)
    return code


def _stop_profiling_this_process() -> None:
    """With PYPROF_ENABLED set already, or under another `pyprof run`, we were started profiled ourselves."""
    import pyprof

    if pyprof.is_running():
        pyprof.stop(flush=False)


# Arguments


def argument_parser() -> argparse.ArgumentParser:
    """The parser of what stands before the program."""
    parser = argparse.ArgumentParser(
        prog="pyprof run",
        usage=USAGE,
        description="Profile a program and all Python processes it starts.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for option in _options():
        flags = [option.flag, "-o"] if option.name == "output" else [option.flag]
        action = argparse.BooleanOptionalAction if isinstance(option.kind, Boolean) else "store"
        metavar = None if isinstance(option.kind, Boolean) else "OUT" if option.name == "output" else "VALUE"
        help_text = (option.help if option.name != "output" else "where profiles are written").replace("%", "%%")
        parser.add_argument(*flags, dest=option.name, action=action, metavar=metavar, default=None, help=help_text)
    return parser


def _options() -> Iterator[Option]:
    return (option for option in OPTIONS if option.name != "enabled")


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our options, and the program with its arguments: the first word that is neither an option nor its value."""
    with_value = {option.flag for option in _options() if not isinstance(option.kind, Boolean)} | {"-o"}
    position = 0
    while position < len(words):
        word = words[position]
        if word == "--":
            return list(words[:position]), list(words[position + 1 :])
        if word.startswith("-m"):
            module = [word[2:]] if len(word) > 2 else []
            return list(words[:position]), ["-m", *module, *words[position + 1 :]]
        if not word.startswith("-") or word == "-":
            return list(words[:position]), list(words[position:])
        position += 2 if word in with_value else 1
    return list(words), []


def chosen(arguments: argparse.Namespace) -> dict[str, str]:
    """The PYPROF_* variables that the flags stand for; UsageError for a bad value."""
    variables = {}
    for option in _options():
        value = getattr(arguments, option.name)
        if isinstance(value, bool):
            value = "1" if value else "0"
        if value is None:
            continue
        try:
            option.parse(value)
        except ValueError as error:
            raise UsageError(f"{option.flag}: {error}") from None
        variables[option.variable] = value
    return variables


def child_environment(environ: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """The environment in which every Python process starts pyprof with these variables."""
    from pyprof import autostart

    directory = str(autostart.directory())
    given = environ.get("PYTHONPATH")
    paths = [path for path in given.split(os.pathsep) if path != directory] if given else []
    return {
        **environ,
        **variables,
        "PYPROF_ENABLED": "1",
        "PYTHONPATH": os.pathsep.join([directory, *paths]),
    }


# The program


def find_target(words: Sequence[str]) -> Target:
    """What to execute; CannotRun where there is no such program."""
    first, rest = words[0], list(words[1:])
    if first == "-m":
        if not rest:
            raise UsageError("-m needs the name of a module")
        return Target(sys.executable, [sys.executable, "-m", *rest])
    if runs_with_python(first):
        return Target(sys.executable, [sys.executable, first, *rest])
    path = shutil.which(first)
    if path is None:
        raise _why_not(first)
    return Target(path, [first, *rest])


def runs_with_python(word: str) -> bool:
    """Whether the word is an existing .py file, or a directory or zip file with a __main__."""
    path = Path(word)
    if path.is_dir():
        return (path / "__main__.py").is_file() or (path / "__main__.pyc").is_file()
    if not path.is_file():
        return False
    if path.suffix == ".py":
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return not {"__main__.py", "__main__.pyc"}.isdisjoint(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _why_not(word: str) -> CannotRun:
    directories = [""] if os.path.dirname(word) else os.get_exec_path()
    for directory in directories:
        path = os.path.join(directory, word)
        if os.path.isfile(path):
            return CannotRun(f"{path} is not executable", launch.NOT_EXECUTABLE)
        if os.path.isdir(path) and os.path.dirname(word):
            return CannotRun(f"{path} is a directory without a __main__.py", launch.NOT_EXECUTABLE)
    if word.endswith(".py") or os.path.dirname(word):
        return CannotRun(f"no such file: {word}", launch.NOT_FOUND)
    return CannotRun(f"no such command: {word}", launch.NOT_FOUND)


# The profiles


def is_directory(output: str) -> bool:
    """Whether an output stands for a directory, to which each process writes for itself."""
    return output.endswith(os.sep) or os.path.isdir(output)


def unwritable(path: str) -> str | None:
    """Why a file could not be written; better known before the program has run for an hour."""
    parent = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(parent):
        return f"there is no directory {parent}"
    existing = path if os.path.exists(path) else parent
    return None if os.access(existing, os.W_OK) else f"{existing} is not writable"


def has_server(environ: Mapping[str, str]) -> bool:
    """Whether the environment says where profiles are pushed."""
    exporter = environ.get("PYPROF_EXPORTER", "").strip().lower()
    return exporter != "none" and bool(exporter or environ.get("PYPROF_SERVER_URL", "").strip())


@contextmanager
def _collecting() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="pyprof-run-", ignore_cleanup_errors=True) as directory:
        yield directory


def _finish(directory: str, output: str) -> bool:
    """Merge what the processes have written and save or show it; whether there was something, and no error."""
    from pyprof import pprof

    files = sorted(Path(directory).rglob("*.pb.gz"))
    profiles = []
    for number, file in enumerate(files, 1):
        if sys.stderr.isatty() and len(files) > 10:
            print(f"\rpyprof run: reading {number}/{len(files)}", end="", file=sys.stderr, flush=True)
        try:
            profiles.append(pprof.read(file))
        except pprof.ProfileError as error:
            print(f"pyprof run: {error}", file=sys.stderr)  # of a process that was killed while it wrote
    if sys.stderr.isatty() and len(files) > 10:
        print("\r\033[K", end="", file=sys.stderr)
    if not profiles:
        print(
            "pyprof run: no process wrote a profile. Was one of them Python, with pyprof installed, "
            "and did it end other than by a signal?",
            file=sys.stderr,
        )
        return not output
    profile = pprof.merge(profiles)
    if not output:
        rows = pprof.top(profile, limit=_ROWS)
        unit = profile.sample_types[profile.sample_type_index()].unit
        print(pprof.format_top(rows, unit), end="", file=sys.stderr)
        return True
    try:
        pprof.save(profile, output)
    except OSError as error:
        kept = tempfile.mkdtemp(prefix="pyprof-run-kept-")
        for file in files:
            shutil.move(file, kept)
        print(f"pyprof run: cannot write {output}: {error.strerror}; the profiles are in {kept}", file=sys.stderr)
        return False
    processes = f" of {len(profiles)} profiles" if len(profiles) > 1 else ""
    print(f"pyprof run: wrote {output}{processes}", file=sys.stderr)
    return True
