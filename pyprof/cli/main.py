"""Dispatch to the command named by the first word.

Exit codes: 0; 1 for an error, which is one line on stderr; 2 for wrong usage; `run` passes on what
the program exits with.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from pyprof._version import __version__
from pyprof.cli.terminal import note

__all__ = ["main"]

COMMANDS = {
    "run": "profile a program and all Python processes that it starts",
    "top": "print the hottest functions of a profile",
    "flame": "write a profile as a flame graph, one HTML page",
    "convert": "write a profile in another format",
    "info": "print versions, engine and configuration",
}


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line (sys.argv if None); the exit code."""
    words = sys.argv[1:] if words is None else words
    parser = _parser()
    if not words:
        parser.print_help(sys.stderr)
        return 2
    # What follows the command is the command's own.
    command = parser.parse_args(words[:1]).command
    run: Callable[[Sequence[str]], int] = import_module(f"pyprof.cli.{command}").main
    if command == "run":
        return run(words[1:])
    return _guard(run, words[1:])


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:{width}}  {text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="pyprof",
        usage="pyprof [--version] [--help] COMMAND ...",
        description="Continuous profiling for Python services.",
        epilog=f"commands:\n{listing}\n\n`pyprof COMMAND --help` explains a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pyprof {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


def _guard(run: Callable[[Sequence[str]], int], words: Sequence[str]) -> int:
    """Run a command that reads profiles: whatever fails is one line, and a reader that left is no failure."""
    from pyprof.pprof.errors import ProfileError, printable

    # A profile is a million objects without a cycle among them: looking for cycles takes half the time.
    gc.disable()
    if sys.stdout is None:  # who has closed it wants nothing of it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        # Names that the terminal's encoding lacks are no reason to fail.
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        code = run(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _abandon_stdout()
        return 0
    except ProfileError as error:
        note(str(error))
    except OSError as error:
        _abandon_stdout()
        where = printable(str(error.filename)) if error.filename else "standard output"
        note(f"{where}: {error.strerror or error}")
    except MemoryError:
        note("not enough memory for this profile")
    except KeyboardInterrupt:
        return 130
    return 1


def _abandon_stdout() -> None:
    """Let the interpreter's last flush go nowhere instead of failing again."""
    try:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        pass
