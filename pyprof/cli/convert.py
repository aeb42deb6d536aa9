"""`pyprof convert`: a profile in another format, chosen by the name of the output."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pyprof.cli import source
from pyprof.cli.terminal import Progress, note
from pyprof.pprof import printable, save
from pyprof.pprof.save import FORMATS, PPROF, format_of

__all__ = ["argument_parser", "main"]


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pyprof convert",
        description="Write a profile in another format. A directory of profiles becomes one.",
        allow_abbrev=False,
    )
    source.add_arguments(parser)
    parser.add_argument(
        "-o",
        metavar="X",
        dest="output",
        required=True,
        help=f"the file to write; its name ends in {', '.join(FORMATS)}",
    )
    return parser


def main(words: Sequence[str]) -> int:
    parser = argument_parser()
    arguments = parser.parse_args(words)
    suffix = format_of(arguments.output)
    if suffix is None:
        parser.error(f"-o {arguments.output}: the name must end in one of {', '.join(FORMATS)}")
    if arguments.type is not None and suffix in PPROF:
        parser.error(f"-t: {suffix} always holds all sample types")
    title = source.title(arguments.source)
    with Progress(f"reading {title}") as progress:
        profile = source.load(arguments, progress)
        progress.doing("writing")
        save(profile, arguments.output, sample_type=arguments.type, title=title)
    note(f"wrote {printable(arguments.output)}")
    return 0
