"""Starlette, FastAPI and Litestar under uvicorn: routes with their prefixes, background tasks, WebSockets.

Seen to fail: see each test.
"""

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pyprof.integrations.asgi import PyprofMiddleware

from .serving import assert_shares, by_label, labels_of, serve, uvicorn

KEYS = ("endpoint", "method", "status")
STARLETTE = """
import asyncio
import pyprof
from pyprof.integrations.asgi import PyprofMiddleware
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute


async def light(request):
    return PlainTextResponse(burn(0.004))


async def middle(request):
    await asyncio.sleep(0.001)
    return PlainTextResponse(burn(0.010))


def heavy(request):
    return PlainTextResponse(burn(0.025))


async def parts():
    for _ in range(4):
        yield burn(0.005)
        await asyncio.sleep(0.001)


async def stream(request):
    return StreamingResponse(parts())


def later():
    burn(0.02)


async def background(request):
    return PlainTextResponse("soon", background=BackgroundTask(later))


async def fail(request):
    burn(0.02)
    raise LookupError("the application's")


async def talk(websocket):
    await websocket.accept()
    while (word := await websocket.receive_text()) != "end":
        await websocket.send_text(spoken(word))
    await websocket.close()


def spoken(word):
    burn(0.02)
    return word


async def foreign(scope, receive, send):
    await PlainTextResponse(burn(0.02))(scope, receive, send)


async def lifespan_begins():
    begun.append(True)


begun = []
pyprof.start()
inner = Starlette(routes=[Route("/light/{id:int}", light), WebSocketRoute("/talk", talk)])
application = Starlette(
    routes=[
        Route("/heavy", heavy),
        Route("/stream", stream),
        Route("/background", background),
        Route("/fail", fail),
        Mount("/tenants/{tenant}", routes=[Mount("/shop", inner), Route("/middle/{name}", middle)]),
        Mount("/foreign", foreign),
    ],
    middleware=[Middleware(PyprofMiddleware)],
)
"""
LIGHT, MIDDLE, HEAVY = "/tenants/{tenant}/shop/light/{id:int}", "/tenants/{tenant}/middle/{name}", "/heavy"


@pytest.fixture(autouse=True)
def _needs(require: Any) -> None:
    require.module("uvicorn", "frameworks")


@pytest.mark.accuracy
def test_cpu_by_route_is_true(tmp_path: Path, require: Any) -> None:
    """Seen to fail: without labels around the application; with the mount's path as it was asked for."""
    require.module("starlette", "frameworks")
    ways = {"/tenants/7/shop/light/7": LIGHT, "/tenants/8/middle/x": MIDDLE, "/heavy": HEAVY}
    with serve(uvicorn(), tmp_path, STARLETTE) as server:
        answers = server.get(random.Random(1).sample(sorted(ways) * 80, k=240))
    truth: Counter[str] = Counter()
    for answer in answers:
        truth[ways[answer.path]] += float(answer.body)
    assert_shares(server.profiles, "endpoint", truth)
    for function, endpoint in (("light", LIGHT), ("middle", MIDDLE), ("heavy", HEAVY)):
        assert labels_of(server.profiles, f"application.{function}", *KEYS) == {(endpoint, "GET", "2xx")}


def test_what_else_a_request_may_be(tmp_path: Path, require: Any) -> None:
    """Seen to fail: with the raw path for what has no route."""
    require.module("starlette", "frameworks")
    client = require.module("websockets.sync.client", "frameworks")
    paths = [f"/{random.getrandbits(64):x}/{number}" for number in range(2_000)]
    wrong = [f"/tenants/{number}/shop/nothing" for number in range(200)]
    asked = ["/stream", "/background", "/fail", "/foreign/a", "/foreign/b", "HEAD /heavy", "POST /heavy"]
    with serve(uvicorn(), tmp_path, STARLETTE) as server:
        answers = server.get(asked + paths + wrong, clients=4)
        with client.connect(f"ws://127.0.0.1:{server.port}/tenants/9/shop/talk") as websocket:
            websocket.send("hello")
            assert websocket.recv(timeout=30) == "hello"
            websocket.send("end")
    assert Counter(answer.status for answer in answers) == {200: 5, 500: 1, 405: 1, 404: 2_200}
    for function, labels in {
        "parts": ("/stream", "GET", "2xx"),
        "later": ("/background", "GET", "2xx"),
        "fail": ("/fail", "GET", "5xx"),
        "foreign": ("/foreign/{path}", "GET", "2xx"),
        "heavy": (HEAVY, "HEAD", "2xx"),
        "spoken": ("/tenants/{tenant}/shop/talk", "WEBSOCKET", "1xx"),
    }.items():
        assert labels_of(server.profiles, f"application.{function}", *KEYS) == {labels}, function
    assert "__unmatched__" in by_label(server.profiles, "endpoint")
    assert set(by_label(server.profiles, "endpoint", "wall")) <= {
        "", "/stream", "/background", "/fail", "/foreign/{path}", HEAVY, "/tenants/{tenant}/shop/talk",
        "__unmatched__",
    }  # fmt: skip


FASTAPI = """
import pyprof
from fastapi import APIRouter, BackgroundTasks, FastAPI
from pyprof.integrations.asgi import PyprofMiddleware

pyprof.start()
application = FastAPI()
application.add_middleware(PyprofMiddleware)
router = APIRouter(prefix="/items")
sub = FastAPI()


@application.get("/plain/{name}")
async def plain(name: str):
    return burn(0.02)


@router.get("/{item}")
def item(item: int, tasks: BackgroundTasks):
    tasks.add_task(later)
    return burn(0.02)


def later():
    burn(0.02)


@sub.get("/users/{user}")
async def user(user: int):
    return burn(0.02)


sub.include_router(router)
application.include_router(router, prefix="/api")
application.mount("/sub/{x}", sub)
"""
LITESTAR = """
import pyprof
from litestar import Litestar, Router, get
from pyprof.integrations.asgi import PyprofMiddleware

pyprof.start()


@get("/items/{item:int}")
async def item(item: int) -> str:
    return burn(0.02)


@get("/plain", sync_to_thread=True)
def plain() -> str:
    return burn(0.02)


inside = Litestar([plain, Router("/api", route_handlers=[item])], middleware=[PyprofMiddleware])
outside = PyprofMiddleware(Litestar([plain, Router("/api", route_handlers=[item])]))


async def application(scope, receive, send):
    app = inside if scope.get("query_string") else outside
    await app(scope, receive, send)
"""


@pytest.mark.parametrize(
    ("framework", "application", "ways"),
    [
        (
            "fastapi",
            FASTAPI,
            {
                "/plain/x": ("plain", "/plain/{name}"),
                "/api/items/1": ("item", "/api/items/{item}"),
                "/sub/9/users/1": ("user", "/sub/{x}/users/{user}"),
                "/sub/9/items/1": ("item", "/sub/{x}/items/{item}"),
            },
        ),
        (
            "litestar",
            LITESTAR,
            {
                "/plain": ("plain", "/plain"),
                "/api/items/1": ("item", "/api/items/{item}"),
                "/plain?inside": ("plain", "/plain"),
                "/api/items/1?inside": ("item", "/api/items/{item}"),
            },
        ),
    ],
    ids=["fastapi", "litestar"],
)
def test_the_route_is_told_with_all_its_prefixes(
    framework: str, application: str, ways: dict[str, tuple[str, str]], tmp_path: Path, require: Any
) -> None:
    """Seen to fail: with the route's own path alone."""
    require.module(framework, "frameworks")
    with serve(uvicorn(), tmp_path, application) as server:
        answers = server.get([*ways, "/nothing"] * 3, clients=2)
    assert {answer.path: answer.status for answer in answers} == {**dict.fromkeys(ways, 200), "/nothing": 404}
    told: dict[str, set[tuple[str, str, str]]] = {}
    for function, endpoint in ways.values():
        told.setdefault(function, set()).add((endpoint, "GET", "2xx"))
    for function, labels in told.items():
        assert labels_of(server.profiles, f"application.{function}", *KEYS) == labels
    if framework == "fastapi":
        assert labels_of(server.profiles, "application.later", *KEYS) == told["item"]


def test_what_is_no_request_passes_as_it_is() -> None:
    """Seen to fail: with labels for everything: these have no method."""
    seen: list[Any] = []

    async def application(*arguments: Any) -> None:
        seen.extend(arguments)

    async def nothing(*arguments: Any) -> Any:
        return {}

    for kind in ("lifespan", "other"):
        seen.clear()
        arguments: Any = ({"type": kind}, nothing, nothing)
        asyncio.run(PyprofMiddleware(application)(*arguments))
        assert all(ours is theirs for ours, theirs in zip(seen, arguments, strict=True))


def test_exceptions_pass_through_as_they_are() -> None:
    """Seen to fail: raised anew, `from None`."""
    error = LookupError("the application's")

    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise error

    async def nothing(*arguments: Any) -> Any:
        return {}

    scope = {"type": "http", "method": "GET", "path": "/", "route": "not one that can be read"}
    with pytest.raises(LookupError) as raised:
        asyncio.run(PyprofMiddleware(application)(scope, nothing, nothing))
    assert raised.value is error
    assert error.__cause__ is None
    assert error.__context__ is None
