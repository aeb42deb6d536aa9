"""The one error of the profile model, and how names of unknown origin are shown in it."""

from __future__ import annotations

__all__ = ["ProfileError", "printable"]


class ProfileError(Exception):
    """A profile cannot be read, combined or written.

    The message is a single line that names the source and what to do about it.
    """


def printable(text: str) -> str:
    """`text` with everything that could steer a terminal or break a line written as an escape."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
