"""`pyprof run`: profile a program, and every Python process that it starts, without changing it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pyprof.cli import launch
from pyprof.cli.terminal import note
from pyprof.config import OPTIONS, Option
from pyprof.option_kinds import Boolean

if TYPE_CHECKING:
    from pyprof.cli.gather import Gathered

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
_OUTER = "PYPROF__RUN"
"""Where the innermost `pyprof run` collects; a run within it leaves copies there."""


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
    """Run with the arguments after `run`; the exit code, unless this process becomes the program."""
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
        note("profiling works on Linux only; the program runs without it")
        return _become(target, environ)
    return _run(target, environ)


def _run(target: Target, environ: dict[str, str]) -> int:
    output = environ.get("PYPROF_OUTPUT", "").strip()
    outer = environ.get(_OUTER, "")
    if output and output == outer:
        return _become(target, environ)  # within another run, which does what is to be done at the end
    if not output and has_server(environ):
        return _become(target, environ)

    from pyprof.cli import gather

    if output and (problem := gather.unwritable(output)):
        return _complain(f"cannot write {output}: {problem}", 1)
    one_file = not output or gather.is_file(output)
    with gather.temporary_directory() if one_file else nullcontext(os.path.abspath(output)) as directory:
        gathered = gather.Gathered(directory)
        variables = {"PYPROF_OUTPUT": directory, _OUTER: directory}
        try:
            status = launch.run(target.path, target.arguments, environ | variables)
        except OSError as error:
            return _cannot_execute(target, error)
        if outer:
            gather.copy(gathered.files(), outer)
        if one_file:
            fine = _finish(gathered, output)
        else:
            fine = True
            gathered.keep_one_a_process()
    return launch.leave(status) or (0 if fine else 1)


def _finish(gathered: Gathered, output: str) -> bool:
    """Save or show the sum; False where it could not be written."""
    from pyprof import pprof

    profile = gathered.merge()
    if profile is None:
        return True  # nobody's fault, so the program's exit code stands
    if output:
        return gathered.save(profile, output)
    rows = pprof.top(profile, limit=_ROWS)
    if rows:
        sys.stderr.write(pprof.format_top(rows, profile.value_type().unit))
    else:
        note("the program used no CPU time that a sample saw: it was too short, or the rate too low")
    return True


def _become(target: Target, environ: Mapping[str, str]) -> int:
    try:
        launch.replace(target.path, target.arguments, environ)
    except OSError as error:
        return _cannot_execute(target, error)


def _cannot_execute(target: Target, error: OSError) -> int:
    return _complain(f"cannot execute {target.path}: {error.strerror}", launch.NOT_EXECUTABLE)


def _complain(message: str, code: int) -> int:
    note(message)
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
        help_text = option.help.replace("%", "%%")
        if isinstance(option.kind, Boolean):
            parser.add_argument(
                option.flag, action=argparse.BooleanOptionalAction, default=None, help=help_text
            )
        elif option.name == "output":
            parser.add_argument("-o", option.flag, metavar="OUT", help="where profiles are written")
        else:
            parser.add_argument(option.flag, metavar="VALUE", help=help_text)
    return parser


def _options() -> Iterator[Option]:
    return (option for option in OPTIONS if option.name != "enabled")


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our options, and the program: from the first word that is neither an option nor the value of one."""
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


def has_server(environ: Mapping[str, str]) -> bool:
    """Whether the environment says where profiles are pushed."""
    exporter = environ.get("PYPROF_EXPORTER", "").strip().lower()
    return exporter != "none" and bool(exporter or environ.get("PYPROF_SERVER_URL", "").strip())
