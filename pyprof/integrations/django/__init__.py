"""Django: labels for every request, and the start of the profiler.

    MIDDLEWARE = ["pyprof.integrations.django.PyprofMiddleware", …]    # first
    PYPROF = {"service_name": "shop", "server_url": "http://pyroscope:4040"}

Where `pyprof.integrations.django` is among INSTALLED_APPS too, management commands are profiled as well.
"""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

from .._shared import RequestLabels, guarded, start_once

__all__ = ["PyprofMiddleware", "start"]


def start() -> None:
    """Start the profiler once, with the setting PYPROF. Raises ValueError for what is wrong in it."""
    start_once("setting PYPROF", getattr(settings, "PYPROF", None))


class PyprofMiddleware:
    """Runs requests, sync and async, with the labels `endpoint`, `method` and `status`."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        # A method of the other kind would cost each request a change of threads.
        self.process_view = self._view_async if self._is_async else self._view
        start()

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._call_async(request)
        labels = request._pyprof = RequestLabels(request.method or "")
        with labels.labels:
            try:
                response = self.get_response(request)
            except Exception:
                labels.fail()
                raise
            finally:
                _finish(request, labels)
            return _labelled(response, labels)

    async def _call_async(self, request: HttpRequest) -> HttpResponseBase:
        labels = request._pyprof = RequestLabels(request.method or "")
        with labels.labels:
            try:
                response = await self.get_response(request)
            except Exception:
                labels.fail()
                raise
            finally:
                _finish(request, labels)
            return _labelled(response, labels)

    def _view(self, request: HttpRequest, *args: object) -> None:
        labels = getattr(request, "_pyprof", None)
        if labels is not None:
            labels.set_endpoint(_route(request))

    async def _view_async(self, request: HttpRequest, *args: object) -> None:
        self._view(request)


def _finish(request: HttpRequest, labels: RequestLabels) -> None:
    if not labels.has_endpoint:  # a middleware behind this one has answered
        labels.set_endpoint(_route(request))
    labels.finish()


def _labelled(response: HttpResponseBase, labels: RequestLabels) -> HttpResponseBase:
    labels.set_status(response.status_code)
    # A file is left to the server, which may send it without reading it.
    if response.streaming and getattr(response, "file_to_stream", None) is None:
        iterate = labels.labels(_iterate_async if response.is_async else _iterate)
        response.streaming_content = iterate(response.streaming_content)
    return response


def _iterate(parts: Iterable[bytes]) -> Iterator[bytes]:
    yield from parts


async def _iterate_async(parts: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    async for part in parts:
        yield part


@guarded
def _route(request: HttpRequest) -> str | None:
    """The URL pattern, as one template: "/users/<int:id>/", "/articles/(?P<year>[0-9]{4})/"."""
    match = request.resolver_match
    if match is None:
        return None
    # Each included regular expression brings its own ^.
    return ("/" + str(match.route).removesuffix("$").removesuffix("\\Z")).replace("/^", "/")
