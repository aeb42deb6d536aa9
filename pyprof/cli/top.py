"""`pyprof top`: the hottest functions of a profile, or values of a label, as a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pyprof.cli import source
from pyprof.cli.terminal import Progress, note
from pyprof.pprof import by_label, format_by_label, format_top, top

__all__ = ["argument_parser", "main"]

_ROWS = 30


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pyprof top",
        description="Print the hottest functions of a profile. Flat is what a function spends itself, "
        "Cum with all it calls; Sum% adds up Flat% from the top.",
        allow_abbrev=False,
    )
    source.add_arguments(parser)
    parser.add_argument(
        "-n",
        metavar="N",
        type=_count,
        default=_ROWS,
        help=f"number of rows, 0 for all (default: {_ROWS})",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--cum", action="store_true", help="sort by Cum instead of Flat")
    what.add_argument(
        "--by",
        metavar="LABEL",
        help="the values of this label instead of functions, such as endpoint: what their samples add up to",
    )
    return parser


def main(words: Sequence[str]) -> int:
    arguments = argument_parser().parse_args(words)
    with Progress(f"reading {source.title(arguments.source)}") as progress:
        profile = source.load(arguments, progress)
        value_type = profile.value_type(arguments.type)
        if arguments.by is None:
            functions = top(profile, arguments.type, by_cum=arguments.cum)
            count, rows = len(functions), "functions"
            text = format_top(functions[: arguments.n or None], value_type.unit)
        else:
            source.check_key(arguments.by, profile, arguments)
            values = by_label(profile, arguments.by, arguments.type)
            count, rows = len(values), "values"
            text = format_by_label(values[: arguments.n or None], arguments.by, value_type.unit)
    sys.stdout.write(text)
    if not count:
        note(f"the profile has no samples of type {value_type.type}")
    elif 0 < arguments.n < count:
        note(f"{arguments.n} of {count} {rows} shown; -n 0 shows all")
    return 0


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


_count.__name__ = "number"  # what argparse calls a wrong value
