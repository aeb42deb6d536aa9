"""Flask behind gunicorn: CPU time by route, streaming, exceptions, paths without a route, the start.

Seen to fail: see each test.
"""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from .serving import assert_shares, by_label, gunicorn, labels_of, serve

APPLICATION = """
import flask
from flask import Blueprint, Flask, stream_with_context
from pyprof.integrations.flask import Pyprof

application = Flask(__name__)
application.config["PYPROF"] = {"service_name": "from-config", "sample_rate": 1}
blueprint = Blueprint("shop", __name__, url_prefix="/shop")


@application.before_request
def before():
    if flask.request.url_rule is not None:
        burn(0.001)
        time.sleep(0.001)  # others have their turn


@application.get("/light/<int:id>")
def light(id):
    return burn(0.004)


@blueprint.get("/items/<name>")
def middle(name):
    return burn(0.010)


@application.route("/heavy", methods=["GET", "POST"])
def heavy():
    return burn(0.025)


@application.get("/stream")
def stream():
    return stream_with_context(parts())


def parts():
    for _ in range(5):
        yield burn(0.005) + flask.request.path


@application.get("/fail")
def fail():
    burn(0.02)
    raise LookupError("the application's")


@application.get("/async/<name>")
async def asynchronous(name):
    return burn(0.01)


@application.teardown_request
def teardown(error):
    if flask.request.url_rule is not None:
        torn_down()


def torn_down():
    burn(0.002)


application.register_blueprint(blueprint)
extension = Pyprof()
extension.init_app(application)
"""
LIGHT, MIDDLE, HEAVY = "/light/<int:id>", "/shop/items/<name>", "/heavy"
NOTHING = (None, None, None)


@pytest.fixture(autouse=True)
def _needs(require: Any) -> None:
    require.module("flask")
    require.module("gunicorn")


@pytest.mark.accuracy
@pytest.mark.parametrize(
    "worker",
    [("-w", "2"), ("-w", "1", "--threads", "20"), ("-w", "1", "-k", "gevent")],
    ids=["sync", "gthread", "gevent"],
)
def test_cpu_by_route_is_true(worker: tuple[str, ...], tmp_path: Path, require: Any) -> None:
    """Also of what runs before and after the function of a route; nothing after a request is on the request.

    Seen to fail: with labels that are entered and never left.
    """
    if "gevent" in worker:
        require.module("gevent")
    ways = {"/light/7": LIGHT, "/shop/items/tea": MIDDLE, "/heavy": HEAVY}
    with serve(gunicorn(*worker), tmp_path, APPLICATION) as server:
        answers = server.get(random.Random(1).sample(sorted(ways) * 80, k=240))
    truth: Counter[str] = Counter()
    for answer in answers:
        truth[ways[answer.path]] += float(answer.body) + 0.001 + 0.002
    assert_shares(server.profiles, "endpoint", truth)
    for function, endpoint in (("light", LIGHT), ("middle", MIDDLE), ("heavy", HEAVY)):
        labels = labels_of(server.profiles, f"application.{function}", "endpoint", "method", "status")
        assert labels == {(endpoint, "GET", "2xx")}
    every = {(endpoint, "GET", "2xx") for endpoint in ways.values()}
    for function in ("before", "torn_down"):
        assert labels_of(server.profiles, f"application.{function}", "endpoint", "method", "status") == every
    assert labels_of(server.profiles, "__config__.after_request", "endpoint", "method", "status") == {NOTHING}
    assert all(file.name.startswith("from-config-") for file in server.output.iterdir())


def test_what_else_a_request_may_be(tmp_path: Path) -> None:
    """Seen to fail: with the raw path for what has no route; with the body handed on as it is."""
    paths = [f"/{random.getrandbits(64):x}/{number}" for number in range(10_000)]
    asked = ["/stream", "/fail", "/async/x", "POST /heavy", "PATCH /heavy", "OPTIONS /heavy", "HEAD /light/1"]
    with serve(gunicorn("-w", "1", "--threads", "4"), tmp_path, APPLICATION) as server:
        answers = server.get(asked + paths, clients=4)
    assert Counter(answer.status for answer in answers) == {200: 5, 500: 1, 405: 1, 404: 10_000}
    for function, labels in {
        "parts": {("/stream", "GET", "2xx")},
        "fail": {("/fail", "GET", "5xx")},
        "asynchronous": {("/async/<name>", "GET", "2xx")},
        "heavy": {(HEAVY, "POST", "2xx")},
        "light": {(LIGHT, "HEAD", "2xx")},
    }.items():
        assert labels_of(server.profiles, f"application.{function}", "endpoint", "method", "status") == labels
    endpoints = by_label(server.profiles, "endpoint")
    assert set(endpoints) == {"", "/stream", "/fail", "/async/<name>", HEAVY, LIGHT, "__unmatched__"}
    assert endpoints["__unmatched__"] > 10


START = """
import os
import pyprof
from flask import Flask
from pyprof.integrations.flask import Pyprof

app = Flask("app")
app.config["PYPROF"] = {settings}
Pyprof(app, **{options})
running = pyprof.is_running()
app.get("/")(lambda: "fine")
assert app.test_client().get("/").text == "fine"
other = Flask("other")
Pyprof(other)
print(running, pyprof.is_running(), flush=True)
"""


@pytest.mark.parametrize(
    ("settings", "options", "env", "expected"),
    [
        ("None", "{}", {}, "True True"),
        ("{'enabled': False}", "{}", {}, "False False"),
        ("{'enabled': False}", "{}", {"PYPROF_ENABLED": "1"}, "True True"),
        ("{}", "{}", {"PYPROF_ENABLED": "0"}, "False False"),
        ("{'max_frames': 9}", "{'max_frames': 10}", {}, "True True"),
        ("{}", "{}", {"FLASK_RUN_FROM_CLI": "true", "FLASK_DEBUG": "1"}, "False True"),
    ],
)
def test_it_starts_the_profiler_once(
    settings: str, options: str, env: dict[str, str], expected: str, run_python: Any
) -> None:
    """A second application, or a first request, says nothing and changes nothing.

    Seen to fail: without a look at `enabled`, and at whether it runs ("start() while pyprof runs already").
    """
    env = {**env, "PYPROF_EXPORTER": "none"}
    result = run_python(START.format(settings=settings, options=options), env=env, check=True)
    assert (result.stdout.strip(), result.stderr) == (expected, "")


@pytest.mark.parametrize("settings", ["['x']", "{'sample_rate': 'fast'}", "{'sample_rat': 1}"])
def test_a_wrong_setting_names_itself(settings: str, run_python: Any) -> None:
    result = run_python(START.format(settings=settings, options="{}"))
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith('ValueError: app.config["PYPROF"]')
