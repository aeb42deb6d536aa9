"""`pyprof top`: the hottest functions of a profile as a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pyprof.cli import source
from pyprof.cli.terminal import Progress, note
from pyprof.pprof import format_top, top

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
        help=f"number of functions, 0 for all (default: {_ROWS})",
    )
    parser.add_argument("--cum", action="store_true", help="sort by Cum instead of Flat")
    return parser


def main(words: Sequence[str]) -> int:
    arguments = argument_parser().parse_args(words)
    with Progress(f"reading {source.title(arguments.source)}") as progress:
        profile = source.load(arguments, progress)
        rows = top(profile, arguments.type, by_cum=arguments.cum)
    shown = rows[: arguments.n or None]
    value_type = profile.value_type(arguments.type)
    sys.stdout.write(format_top(shown, value_type.unit))
    if not rows:
        note(f"the profile has no samples of type {value_type.type}")
    elif len(shown) < len(rows):
        note(f"{len(shown)} of {len(rows)} functions shown; -n 0 shows all")
    return 0


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


_count.__name__ = "number"  # what argparse calls a wrong value
