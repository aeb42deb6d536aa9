"""Labels for any WSGI application.

    application = PyprofMiddleware(application)

WSGI has no word for routes: Flask's and Bottle's are found in `environ`, for others `route` tells them.
"""

from __future__ import annotations  # closures made for each request would make theirs each time

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ._shared import RequestLabels, guarded

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

KEY = "pyprof.request"  # of `environ`: the RequestLabels, for frameworks that know the route early


class PyprofMiddleware:
    """A WSGI application that runs another one with the labels `endpoint`, `method` and `status`.

    route: called with `environ` when a response begins, and later on as long as it does not know: returns the
    template of the route that took the request, such as "/users/<id>", or None.
    """

    def __init__(
        self, app: WSGIApplication, *, route: Callable[[WSGIEnvironment], str | None] | None = None
    ) -> None:
        self.app = app
        self._route = guarded(route or _route)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = RequestLabels(environ.get("REQUEST_METHOD", ""))
        environ[KEY] = request

        def labelled_start_response(status: str, headers: Any, *exc_info: Any) -> Callable[[bytes], object]:
            request.set_status(status)
            self._look_for_route(request, environ)  # Flask takes its request away when it is done
            return start_response(status, headers, *exc_info)

        with request.labels:
            try:
                body = self.app(environ, labelled_start_response)
            except Exception:
                request.fail()
                self._finish(request, environ)
                raise
            if _is_made(body, environ):
                # As it is: servers look at the length of a list, and send files without reading them.
                self._finish(request, environ)
                return body
        return _Body(body, request, lambda: self._finish(request, environ))

    def _finish(self, request: RequestLabels, environ: WSGIEnvironment) -> None:
        self._look_for_route(request, environ)
        request.finish()

    def _look_for_route(self, request: RequestLabels, environ: WSGIEnvironment) -> None:
        if not request.has_endpoint:
            request.set_endpoint(self._route(environ))


class _Body:
    """The body of a response, each part of which is made under the labels of its request."""

    def __init__(self, body: Iterable[bytes], request: RequestLabels, finish: Callable[[], None]) -> None:
        self._body, self._request, self._finish = body, request, finish
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._request.labels:
            if self._iterator is None:
                self._iterator = iter(self._body)
            return next(self._iterator)

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                with self._request.labels:
                    close()
        finally:
            self._finish()


def _is_made(body: object, environ: WSGIEnvironment) -> bool:
    """Whether nothing of the application runs while the body is sent."""
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(body, (list, tuple)) or (isinstance(wrapper, type) and isinstance(body, wrapper))


def _route(environ: WSGIEnvironment) -> str | None:
    """The rule that Flask's request, or Bottle, has left there."""
    request = environ.get("werkzeug.request")
    rule = getattr(request, "url_rule", None) or environ.get("bottle.route")
    return getattr(rule, "rule", None)
