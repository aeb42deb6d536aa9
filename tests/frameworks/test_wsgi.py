"""The WSGI middleware under gunicorn and wsgiref's validator: every way to answer, each as it was.

Seen to fail: see each test.
"""

import io
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

from pyprof.integrations.wsgi import PyprofMiddleware

from .serving import by_label, gunicorn, labels_of, serve

APPLICATION = """
from pyprof.integrations.wsgi import PyprofMiddleware
import pyprof

pyprof.start()


def by_list(environ, start_response):
    start_response("200 OK", [])
    return [burn(0.02).encode()]


def by_generator(environ, start_response):
    start_response("201 Created", [])
    for _ in range(5):
        yield burn(0.005).encode()


def by_write(environ, start_response):
    write = start_response("202 Accepted", [])
    write(burn(0.02).encode())
    return []


class Closing:
    def __iter__(self):
        yield b"x"

    def close(self):
        closing()


def closing():
    burn(0.02)


def by_close(environ, start_response):
    start_response("200 OK", [])
    return Closing()


def by_error(environ, start_response):
    try:
        start_response("200 OK", [])
        burn(0.02)
        raise LookupError
    except LookupError:
        import sys

        start_response("400 Bad Request", [], sys.exc_info())
        return [b"bad"]


def by_file(environ, start_response):
    burn(0.02)
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](open(__file__, "rb"))


ways = (by_list, by_generator, by_write, by_close, by_error, by_file)
ways = {"/" + function.__name__: function for function in ways}


def route(environ):
    return environ["PATH_INFO"] if environ["PATH_INFO"] in ways else None


def application(environ, start_response):
    return ways[environ["PATH_INFO"]](environ, start_response)


application = PyprofMiddleware(application, route=route)
"""


def test_every_way_to_answer(tmp_path: Path, require: Any) -> None:
    """Seen to fail: with the body handed on as it is; with `close` called without labels."""
    require.module("gunicorn")
    ways = {
        "by_list": "2xx", "by_generator": "2xx", "by_write": "2xx", "closing": "2xx", "by_error": "4xx",
        "by_file": "2xx",
    }  # fmt: skip
    with serve(gunicorn("-w", "1", "--threads", "2"), tmp_path, APPLICATION) as server:
        paths = ["/" + name.replace("closing", "by_close") for name in ways]
        answers = server.get([*paths * 3, "/nothing"], clients=2)
    assert {answer.path: answer.status for answer in answers} == {
        "/by_list": 200, "/by_generator": 201, "/by_write": 202, "/by_close": 200, "/by_error": 400,
        "/by_file": 200, "/nothing": 500,
    }  # fmt: skip
    assert {answer.body for answer in answers if answer.path == "/by_file"} == {
        (tmp_path / "application.py").read_bytes()
    }
    for name, status in ways.items():
        endpoint = "/" + name.replace("closing", "by_close")
        assert labels_of(server.profiles, f"application.{name}", "endpoint", "status") == {(endpoint, status)}
    assert set(by_label(server.profiles, "endpoint", "wall")) <= {"", "__unmatched__", *paths}


FLASK = """
import flask

application = flask.Flask(__name__)
route = application.get
RULE = "/users/<int:id>"
"""
BOTTLE = """
import bottle

application = bottle.Bottle()
route = application.get
RULE = "/users/<id:int>"
"""
ROUTED = """
import pyprof
from pyprof.integrations.wsgi import PyprofMiddleware

pyprof.start()


@route(RULE)
def user(id):
    return burn(0.02)


application = PyprofMiddleware(application)
"""


@pytest.mark.parametrize(
    ("framework", "application", "rule"),
    [("flask", FLASK, "/users/<int:id>"), ("bottle", BOTTLE, "/users/<id:int>")],
    ids=["flask", "bottle"],
)
def test_routes_of_frameworks_are_found(
    framework: str, application: str, rule: str, tmp_path: Path, require: Any
) -> None:
    """Seen to fail: without the look into `environ`."""
    require.module("gunicorn")
    require.module(framework, "test" if framework == "flask" else "frameworks")
    with serve(gunicorn("-w", "1", "--preload"), tmp_path, application + ROUTED) as server:
        server.get(["/users/1", "/users/2", "/nothing"] * 3)
    assert labels_of(server.profiles, "application.user", "endpoint", "status") == {(rule, "2xx")}
    assert set(by_label(server.profiles, "endpoint", "wall")) <= {"", rule, "__unmatched__"}


def call(application: Any, **environ: Any) -> tuple[str, bytes]:
    """One request, as a server does it."""
    setup_testing_defaults(environ)
    told: list[str] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], object]:
        told.append(status)
        return lambda data: None

    body = application(environ, start_response)
    try:
        return told[-1] if told else "", b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()


def test_the_protocol_is_kept_on_both_sides() -> None:
    """Seen to fail: with `exc_info` given by its name; with a `close` that does nothing."""
    closed = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"a"
            yield b"b"

        def close(self) -> None:
            closed.append(True)

    def application(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Body()

    checked = validator(PyprofMiddleware(validator(application)))
    environ = {"QUERY_STRING": "", "REQUEST_METHOD": "GET"}
    assert call(checked, **environ) == ("200 OK", b"ab")
    assert closed == [True]


def test_what_is_made_already_is_handed_on_as_it_is() -> None:
    """Servers send one part with its length, and files without reading them. Seen to fail: wrapped always."""
    for body in ([b"x"], (b"x",), FileWrapper(io.BytesIO(b"x"))):
        middleware = PyprofMiddleware(lambda environ, start_response, body=body: body)  # type: ignore[misc]
        environ: dict[str, Any] = {"wsgi.file_wrapper": FileWrapper, "REQUEST_METHOD": "GET"}
        assert middleware(environ, lambda *arguments: lambda data: None) is body


@pytest.mark.parametrize("where", ["application", "body", "close"])
def test_exceptions_pass_through_with_their_traceback(where: str) -> None:
    """Seen to fail: raised anew, `from None`."""
    error = LookupError("the application's")

    def raising(*arguments: Any) -> Any:
        raise error

    class Body:
        def __iter__(self) -> Any:
            return raising() if where == "body" else iter([b""])

        def close(self) -> None:
            if where == "close":
                raising()

    with pytest.raises(LookupError) as raised:
        call(PyprofMiddleware(raising if where == "application" else lambda *arguments: Body()))
    assert raised.value is error
    assert error.__cause__ is None
    assert error.__context__ is None
    assert traceback.extract_tb(error.__traceback__)[-1].name == "raising"


def test_a_route_that_cannot_be_told_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Seen to fail: without `guarded`, the request fails."""

    def application(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return [b"fine"]

    def route(environ: Any) -> str:
        raise RuntimeError("no route")

    middleware = PyprofMiddleware(application, route=route)
    for _ in range(3):
        assert call(middleware)[1] == b"fine"
    (record,) = (record for record in caplog.records if "no route" in record.getMessage())
    assert "logged once" in record.getMessage()
