"""What goes to stderr: notes, and the progress of long work while someone watches."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType

__all__ = ["Progress", "note"]

_PATIENCE = 0.5
"""Seconds of work that go by without a word."""

_INTERVAL = 0.1
_BAR = 20


def note(message: str) -> None:
    """A line on stderr."""
    if sys.stderr is not None:
        print(f"pyprof: {message}", file=sys.stderr, flush=True)


class Progress:
    """A line on stderr that says what is being done and how far it is; gone when the block ends.

    Only on a terminal, and only for work that takes longer than half a second.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._share: float | None = None
        self._done = threading.Event()
        self._drawn = 0
        self._thread: threading.Thread | None = None

    def update(self, share: float) -> None:
        """The share done of what is being done, 0 to 1."""
        self._share = share

    def doing(self, what: str) -> None:
        """Go over to something else, of which no share is known."""
        self._share = None
        self._doing = what

    def __enter__(self) -> Progress:
        if sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._thread = threading.Thread(target=self._draw, name="pyprof-progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._done.set()
            self._thread.join()

    def _draw(self) -> None:
        started = time.monotonic()
        if self._done.wait(_PATIENCE):
            return
        try:
            while True:
                # What moves comes first: a long file name may not fit.
                self._show(f"pyprof: {self._state(time.monotonic() - started)} {self._doing}")
                if self._done.wait(_INTERVAL):
                    break
            self._show("")
            sys.stderr.write("\r")
            sys.stderr.flush()
        except (OSError, ValueError):
            pass  # the terminal has gone

    def _state(self, seconds: float) -> str:
        share = self._share
        if share is None:
            return f"({seconds:.0f} s)"
        filled = round(share * _BAR)
        return f"{share:4.0%} [{'#' * filled}{'.' * (_BAR - filled)}]"

    def _show(self, text: str) -> None:
        try:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns
        except OSError:
            columns = 0
        text = text[: (columns or 80) - 1]  # some terminals do not tell, and say 0
        sys.stderr.write("\r" + text.ljust(self._drawn))
        sys.stderr.flush()
        self._drawn = len(text)
