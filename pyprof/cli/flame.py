"""`pyprof flame`: a profile as a flame graph."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pyprof.cli import source
from pyprof.cli.terminal import Progress, note
from pyprof.pprof import printable, save_flamegraph
from pyprof.pprof.save import format_of

__all__ = ["argument_parser", "main"]


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pyprof flame",
        description="Write a profile as an interactive flame graph: one HTML page that needs no network.",
        allow_abbrev=False,
    )
    source.add_arguments(parser)
    parser.add_argument("-o", metavar="X.html", dest="output", required=True, help="the page to write")
    return parser


def main(words: Sequence[str]) -> int:
    parser = argument_parser()
    arguments = parser.parse_args(words)
    if format_of(arguments.output) not in (None, ".html"):
        shown = printable(arguments.output)
        parser.error(f"-o {shown}: this command writes a page (.html), `pyprof convert` the other formats")
    title = source.title(arguments.source)
    with Progress(f"reading {title}") as progress:
        profile = source.load(arguments, progress)
        progress.doing("drawing")
        save_flamegraph(profile, arguments.output, arguments.type, title)
    note(f"wrote {printable(arguments.output)}")
    return 0
