"""What the integrations share: values of labels, the one start, and that no fault of ours gets out."""

from __future__ import annotations  # closures made for each request would make theirs each time

import functools
import logging
from collections.abc import Callable, Mapping
from http import HTTPMethod
from typing import ParamSpec, TypeVar

import pyprof

UNMATCHED = "__unmatched__"  # a request that no route takes: paths are without bound
OTHER = "__other__"
WEBSOCKET = "WEBSOCKET"  # the method of what is none of HTTP's

_METHODS = frozenset(HTTPMethod) | {WEBSOCKET}
_CLASSES = {digit: digit + "xx" for digit in "12345"}
_logger = logging.getLogger("pyprof")
_reported: set[str] = set()
_started = False

P = ParamSpec("P")
R = TypeVar("R")


def guarded(function: Callable[P, R]) -> Callable[P, R | None]:
    """`function`, which looks into objects of the application, with None for an exception, logged once."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            name = f"{function.__module__}.{function.__qualname__}"
            if name not in _reported:
                _reported.add(name)
                _logger.warning("pyprof: labels are missing, %s failed (logged once): %r", name, error)
            return None

    return call


def start_once(where: str, settings: object, **options: object) -> None:
    """Start the profiler, unless it runs, did so before, or is not `enabled`.

    where: the setting that `settings` comes from, for errors.
    settings: options, or None; the environment wins over them.
    options: from code, which wins over both.
    Raises ValueError, which names the setting and the option, for what is wrong.
    """
    global _started
    if _started or pyprof.is_running():
        return
    _started = True
    if settings is None:
        settings = {}
    if not isinstance(settings, Mapping):
        raise ValueError(
            f"{where} must be a dict of options of pyprof.start(), not {type(settings).__name__}"
        )
    try:
        pyprof.start(settings={"enabled": True, **settings}, **options)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


class RequestLabels:
    """The labels of one request: the method at once, the endpoint and the status's class once they are known.

    Both are added to what has been sampled of the request before.
    """

    __slots__ = ("has_endpoint", "has_status", "labels")

    def __init__(self, method: str) -> None:
        self.labels = pyprof.labels(method=method if method in _METHODS else OTHER)
        self.has_endpoint = False
        self.has_status = False

    def set_endpoint(self, template: str | None) -> None:
        """template: of the route; None: not known yet."""
        if template:
            self.has_endpoint = True
            self.labels.add(endpoint=template)

    def set_status(self, status: int | str) -> None:
        """status: 200, or a line that begins with it."""
        self.has_status = True
        self.labels.add(status=_CLASSES.get(str(status)[:1], OTHER))

    def fail(self) -> None:
        """An exception leaves the application: servers answer with 500 unless an answer is under way."""
        if not self.has_status:
            self.set_status(500)

    def finish(self) -> None:
        """Whoever has no endpoint by now has none."""
        if not self.has_endpoint:
            self.set_endpoint(UNMATCHED)
