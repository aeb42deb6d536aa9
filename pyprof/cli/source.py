"""What the commands that read profiles share: SRC, -t, --label."""

from __future__ import annotations

import argparse

from pyprof.cli.terminal import Progress
from pyprof.pprof import Profile, ProfileError, label_keys, printable, read, with_label

__all__ = ["add_arguments", "check_key", "load", "title"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the source and what is picked from it."""
    parser.add_argument(
        "source",
        metavar="SRC",
        type=_source,
        help="a pprof file; a directory, for the sum of the *.pb.gz and *.pb files in it; or an http(s) URL",
    )
    parser.add_argument(
        "-t",
        "--type",
        metavar="TYPE",
        help="sample type, such as cpu or wall (default: the profile's own choice)",
    )
    parser.add_argument(
        "--label",
        metavar="K=V",
        action="append",
        default=[],
        type=_label,
        help="only samples with this label; given several times, with all of them",
    )


def load(arguments: argparse.Namespace, progress: Progress) -> Profile:
    """The profile, or the part of it that has the labels. Raises ProfileError."""
    profile = read(arguments.source, progress=progress.update)
    try:
        profile.sample_type_index(arguments.type)
        for key, value in arguments.label:
            selected = with_label(profile, key, value)
            if not selected.samples:
                raise _no_label(f"{key}={value}", profile)
            profile = selected
    except ProfileError as error:
        raise ProfileError(f"{title(arguments.source)}: {printable(str(error))}") from None
    return profile


def check_key(key: str, profile: Profile, arguments: argparse.Namespace) -> None:
    """Raise ProfileError if no sample of what `load` has returned has a label of this name."""
    if key not in label_keys(profile):
        error = _no_label(key, profile)
        raise ProfileError(f"{title(arguments.source)}: {printable(str(error))}")


def _no_label(label: str, profile: Profile) -> ProfileError:
    known = ", ".join(label_keys(profile)[:20]) or "none"
    return ProfileError(f"no sample has the label {label}; label keys there are: {known}")


def title(source: str) -> str:
    """The source as it may be shown: no secrets of a URL, nothing that steers a terminal."""
    from pyprof.pprof.read import is_url

    if is_url(source):
        from pyprof.pprof.fetch import shown_url

        return shown_url(source)
    return printable(source)


def _source(text: str) -> str:
    if not text:  # would be the current directory
        raise argparse.ArgumentTypeError("is empty")
    return text


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not K=V")
    return key, value
