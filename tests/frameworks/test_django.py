"""Django behind gunicorn and uvicorn: CPU time by route, streaming, exceptions, paths without a route.

Seen to fail: see each test.
"""

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from ..conftest import clean_environment
from .serving import (
    BURN,
    CLIENTS,
    assert_shares,
    by_label,
    free_port,
    gunicorn,
    is_listening,
    labels_of,
    read,
    serve,
    uvicorn,
    wait_for,
)

SITE = """
import asyncio

import django
from django.conf import settings
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import include, path, re_path

import pyprof

settings.configure(
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["pyprof.integrations.django"],
    MIDDLEWARE=["pyprof.integrations.django.PyprofMiddleware"],
    PYPROF={"service_name": "from-settings", "wall": True},
    ROOT_URLCONF=__name__,
    SECRET_KEY="no secret",
)


def light(request, id):
    return HttpResponse(burn(0.004))


def middle(request, year):
    return HttpResponse(burn(0.010))


def heavy(request):
    return HttpResponse(burn(0.025))


def parts():
    for _ in range(5):
        yield burn(0.005)


def stream(request):
    return StreamingHttpResponse(parts())


def fail(request):
    burn(0.02)
    raise LookupError("the application's")


async def asynchronous(request, name):
    burn(0.005)
    await asyncio.sleep(0.005)
    return HttpResponse(await asyncio.to_thread(in_thread))


def in_thread():
    return burn(0.01)


async def async_parts():
    for _ in range(5):
        yield burn(0.005)
        await asyncio.sleep(0.001)


async def async_stream(request):
    return StreamingHttpResponse(async_parts())


urlpatterns = [
    path("light/<int:id>", light),
    path("archive/", include([re_path(r"^(?P<year>[0-9]{4})/$", middle)])),
    path("heavy/", heavy),
    path("stream/", stream),
    path("fail/", fail),
    path("async/<slug:name>", asynchronous),
    path("async-stream/", async_stream),
]
"""
WSGI = SITE + "\nfrom django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"
ASGI = SITE + "\nfrom django.core.asgi import get_asgi_application\napplication = get_asgi_application()\n"
LIGHT, MIDDLE, HEAVY = "/light/<int:id>", "/archive/(?P<year>[0-9]{4})/", "/heavy/"


@pytest.fixture(autouse=True)
def _needs(require: Any) -> None:
    require.module("django", "frameworks")
    require.module("gunicorn")


@pytest.mark.accuracy
@pytest.mark.parametrize("worker", [("-w", "2"), ("-w", "1", "--threads", "20")], ids=["sync", "gthread"])
def test_cpu_by_route_is_true(worker: tuple[str, ...], tmp_path: Path) -> None:
    """No time of one route is on another, none of it on nobody, and nothing after a request on the request.

    Seen to fail: with the endpoint of the request before; with labels that are entered and never left.
    """
    ways = {"/light/7": LIGHT, "/archive/2026/": MIDDLE, "/heavy/": HEAVY}
    with serve(gunicorn(*worker), tmp_path, WSGI) as server:
        answers = server.get(random.Random(1).sample(sorted(ways) * 80, k=240))
    assert len(answers) >= CLIENTS
    truth: Counter[str] = Counter()
    for answer in answers:
        truth[ways[answer.path]] += float(answer.body)
    assert_shares(server.profiles, "endpoint", truth)
    for function, endpoint in (("light", LIGHT), ("middle", MIDDLE), ("heavy", HEAVY)):
        labels = labels_of(server.profiles, f"application.{function}", "endpoint", "method", "status")
        assert labels == {(endpoint, "GET", "2xx")}
    assert labels_of(server.profiles, "__config__.after_request", "endpoint", "method", "status") == {
        (None, None, None)
    }
    assert all(file.name.startswith("from-settings-") for file in server.output.iterdir())


def test_what_else_a_request_may_be(tmp_path: Path) -> None:
    """Streams are made under their labels, exceptions are counted, unknown paths and methods are one value.

    Seen to fail: with the raw path for what has no route; with the stream not wrapped.
    """
    paths = [f"/{random.getrandbits(64):x}/{number}" for number in range(10_000)]
    with serve(gunicorn("-w", "1", "--threads", "4"), tmp_path, WSGI) as server:
        answers = server.get(["/stream/", "/fail/", "BREW /heavy/", *paths], clients=4)
    statuses = Counter(answer.status for answer in answers)
    assert statuses == {200: 2, 500: 1, 404: 10_000}
    assert labels_of(server.profiles, "application.parts", "endpoint", "status") == {("/stream/", "2xx")}
    assert labels_of(server.profiles, "application.fail", "endpoint", "status") == {("/fail/", "5xx")}
    assert labels_of(server.profiles, "application.heavy", "endpoint", "method") == {("/heavy/", "__other__")}
    endpoints = by_label(server.profiles, "endpoint")
    assert set(endpoints) == {"", "/stream/", "/fail/", "/heavy/", "__unmatched__"}
    assert endpoints["__unmatched__"] > 0.1e9


def test_async_views_keep_their_labels(tmp_path: Path, require: Any) -> None:
    """In the event loop, in threads, in streams; sync views too, which Django runs in a thread.

    Seen to fail: with the labels around the making of the coroutine, not around its run.
    """
    require.module("uvicorn", "frameworks")
    ways = ["/async/a", "/async/b", "/async-stream/", "/heavy/"]
    with serve(uvicorn(), tmp_path, ASGI) as server:
        answers = server.get(ways * 20)
    assert {answer.status for answer in answers} == {200}
    for function, endpoint in (
        ("asynchronous", "/async/<slug:name>"),
        ("in_thread", "/async/<slug:name>"),
        ("async_parts", "/async-stream/"),
        ("heavy", HEAVY),
    ):
        labels = labels_of(server.profiles, f"application.{function}", "endpoint", "method", "status")
        assert labels == {(endpoint, "GET", "2xx")}, function


MANAGE = """
import sys
import application  # configures Django
from django.core.management import execute_from_command_line
from django.core.management.base import BaseCommand

import django
django.setup()
import pyprof, os
print(pyprof.is_running(), os.environ.get("RUN_MAIN"), flush=True)
"""


@pytest.mark.parametrize(
    ("argv", "env", "running"),
    [
        (["check"], {}, True),
        (["check"], {"PYPROF_ENABLED": "0"}, False),
        (["runserver"], {}, False),
        (["runserver"], {"RUN_MAIN": "true"}, True),
        (["runserver", "--noreload"], {}, True),
    ],
)
def test_commands_are_profiled_but_not_the_reloader(
    argv: list[str], env: dict[str, str], running: bool, tmp_path: Path, run_python: Any
) -> None:
    """Seen to fail: with `ready` that does not look at who it is."""
    (tmp_path / "application.py").write_text(SITE)
    script = tmp_path / "manage.py"
    script.write_text(MANAGE)
    result = run_python(
        script, *argv, env={**env, "PYPROF_EXPORTER": "none"}, cwd=tmp_path, check=True, timeout=60
    )
    assert result.stdout.split()[0] == str(running)
    assert "pyprof" not in result.stderr


def test_runserver_profiles_the_process_that_serves(tmp_path: Path) -> None:
    """The other one waits for changes. Seen to fail: with `ready` that does not look at who it is."""
    (tmp_path / "application.py").write_text(BURN + SITE)
    (tmp_path / "manage.py").write_text(
        "import application\nfrom django.core.management import execute_from_command_line\nimport sys\n"
        "execute_from_command_line(sys.argv)\n"
    )
    output, port = tmp_path / "profiles", free_port()
    process = subprocess.Popen(
        [sys.executable, "manage.py", "runserver", f"127.0.0.1:{port}"],
        cwd=tmp_path,
        env=clean_environment({"PYPROF_OUTPUT": str(output)}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: is_listening(port), "server")
        with urlopen(f"http://127.0.0.1:{port}/heavy/", timeout=30) as response:
            assert response.status == 200
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(30)
    assert labels_of(read(output), "application.heavy", "endpoint") == {("/heavy/",)}
    (name,) = (path.name for path in output.iterdir())
    assert f"-{process.pid}-" not in name


def test_a_wrong_setting_names_itself(tmp_path: Path, run_python: Any) -> None:
    (tmp_path / "application.py").write_text(SITE.replace('"wall": True', '"sample_rate": "fast"'))
    script = tmp_path / "manage.py"
    script.write_text(MANAGE)
    result = run_python(script, "check", env={"PYPROF_EXPORTER": "none"}, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(
        "ValueError: setting PYPROF: sample_rate must be a number"
    )
