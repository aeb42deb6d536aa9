"""Labels for any ASGI application: FastAPI, Starlette, Litestar and others.

    app.add_middleware(PyprofMiddleware)    # FastAPI, Starlette; Litestar(middleware=[PyprofMiddleware])
    app = PyprofMiddleware(app)             # any

The route is what these frameworks leave in the scope, which is read and never changed.
"""

from __future__ import annotations  # closures made for each request would make theirs each time

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from ._shared import WEBSOCKET, RequestLabels, guarded

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class PyprofMiddleware:
    """An ASGI application that runs another one with the labels `endpoint`, `method` and `status`.

    A WebSocket's method is WEBSOCKET, its status 1xx once it is accepted. Background tasks keep the labels.
    """

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        request = RequestLabels(WEBSOCKET if scope["type"] == "websocket" else scope.get("method", ""))

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
    if scope.get("path_template"):
        return str(scope["path_template"])  # Litestar
    route = scope.get("route")  # Starlette's of old tells the endpoint only
    wanted = scope.get("endpoint") if route is None else route
    if wanted is None or getattr(wanted, "routes", None):
        return None  # nothing, or a mount, in which the search goes on
    if route is not None and "app_root_path" not in scope:
        return _path(route, scope)
    # What is mounted adds to root_path the path that was asked for, not its template.
    root_path = scope.get("root_path", "")
    mounted = root_path.removeprefix(scope.get("app_root_path", root_path))
    found = _find(scope["router"].routes, wanted, mounted) if "router" in scope else None
    prefix, route = found or ("", route)
    path = _path(route, scope)
    return path and prefix + path


def _path(route: Any, scope: Scope) -> str | None:
    # FastAPI: the routes of an included router know nothing of its prefix.
    context = scope.get("fastapi", {}).get("effective_route_context")
    if context is not None and context.original_route is route:
        return getattr(context.starlette_route, "path", None) or context.path or None
    # A mount of anything but routes: its path alone would be that of its top.
    return getattr(route, "path_format" if hasattr(route, "routes") else "path", None)


def _find(routes: Iterable[Any], wanted: Any, mounted: str) -> tuple[str, Any] | None:
    """A route and the templates of the mounts around it, joined; None: it is not to be found in `routes`.

    wanted: the route, or what it leads to.
    mounted: the path that the mounts have matched; the same routes may be mounted in several places.
    """
    for route in routes:
        inner: Any = getattr(route, "routes", None)
        is_mount = hasattr(route, "path_regex") and hasattr(route, "routes")
        if route is wanted or getattr(route, "app" if is_mount else "endpoint", None) is wanted:
            if not mounted or is_mount:
                return "", route
        elif inner and is_mount:
            match = route.path_regex.match(mounted + "/")
            found = match and _find(inner, wanted, ("/" + match["path"]).rstrip("/"))
            if found:
                return route.path + found[0], found[1]
        else:  # for a host, or a router that FastAPI has included
            inner = inner or getattr(getattr(route, "original_router", None), "routes", ())
            found = _find(inner, wanted, mounted)
            if found:
                return found
    return None
