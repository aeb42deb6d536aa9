"""Labels for any ASGI application: FastAPI, Starlette, Litestar and others.

    app.add_middleware(PyprofMiddleware)    # FastAPI, Starlette; Litestar(middleware=[PyprofMiddleware])
    app = PyprofMiddleware(app)             # any

The route is what these frameworks leave in the scope, which is read and never changed.
"""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import pyprof

from ._shared import WEBSOCKET, RequestLabels, guarded

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


_FLUSH_TIMEOUT = 2.0  # seconds that the end of a server may take longer where the profiling server is down


class PyprofMiddleware:
    """An ASGI application that runs another one with the labels `endpoint`, `method` and `status`.

    A WebSocket's method is WEBSOCKET, its status 1xx once it is accepted. Background tasks keep the labels.
    """

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, flush_at_shutdown(send) if scope["type"] == "lifespan" else send)
            return
        request = RequestLabels(WEBSOCKET if scope["type"] == "websocket" else scope["method"])

        def look_for_route() -> None:
            if not request.has_endpoint:
                request.set_endpoint(template(scope))

        async def labelled_receive() -> Message:
            look_for_route()
            return await receive()

        async def labelled_send(message: Message) -> None:
            look_for_route()
            status = status_of(message)
            if status is not None and not request.has_status:
                request.set_status(status)
            await send(message)

        with request.labels:
            look_for_route()  # known already where a framework runs middleware after its router
            try:
                await self.app(scope, labelled_receive, labelled_send)
            except Exception:
                request.fail()
                raise
            finally:
                look_for_route()
                request.finish()


def flush_at_shutdown(send: Send) -> Send:
    """Deliver the last profile when the application is done: uvicorn ends by the signal that it was sent."""

    async def flushing_send(message: Message) -> None:
        if message["type"].startswith("lifespan.shutdown."):
            guarded(pyprof.flush)(timeout=_FLUSH_TIMEOUT)
        await send(message)

    return flushing_send


@guarded
def status_of(message: Message) -> int | None:
    """The status that a message tells, if it is one that does."""
    kind = message["type"]
    if kind in ("http.response.start", "websocket.http.response.start"):
        return int(message["status"])
    return {"websocket.accept": 101, "websocket.close": 403}.get(kind)


@guarded
def template(scope: Scope) -> str | None:
    """The template of the route that takes a request, or None as long as none is known to."""
    route = scope.get("route")
    if route is None:
        return scope.get("path_template") or None  # Litestar
    if getattr(route, "routes", None):
        return None  # a mount, in which the search goes on
    path = _path(route, scope)
    if path is None or "app_root_path" not in scope:
        return path
    # What is mounted adds to root_path the path that was asked for, not its template.
    mounted = scope["root_path"].removeprefix(scope["app_root_path"])
    return (_prefix(scope["router"].routes, route, mounted) or "") + path


def _path(route: Any, scope: Scope) -> str | None:
    # FastAPI: the routes of an included router know nothing of its prefix.
    context = scope.get("fastapi", {}).get("effective_route_context")
    if context is not None and context.original_route is route:
        return getattr(context.starlette_route, "path", None) or context.path or None
    # A mount of anything but routes: its path alone would be that of its top.
    return getattr(route, "path_format" if hasattr(route, "routes") else "path", None)


def _prefix(routes: Iterable[Any], wanted: Any, mounted: str) -> str | None:
    """The templates of the mounts around a route, joined; None: it is not to be found in `routes`.

    mounted: the path that they have matched. The same routes may be mounted in several places.
    """
    for route in routes:
        if route is wanted and (not mounted or hasattr(route, "routes")):
            return ""
        inner: Any = getattr(route, "routes", None)
        if inner and hasattr(route, "path_regex"):
            match = route.path_regex.match(mounted + "/")
            found = match and _prefix(inner, wanted, ("/" + match["path"]).rstrip("/"))
            if found is not None:
                return str(route.path) + found
        else:  # for a host, or a router that FastAPI has included
            inner = inner or getattr(getattr(route, "original_router", None), "routes", ())
            found = _prefix(inner, wanted, mounted)
            if found is not None:
                return found
    return None
