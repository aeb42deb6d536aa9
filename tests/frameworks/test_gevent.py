"""gunicorn's gevent worker under autostart: no warning, and a greenlet that never yields delays no upload.

Seen to fail: with the exporter on a `threading.Thread` (started after patching it is a greenlet, and nothing
was uploaded until the CPU-bound one ended); with `requests` imported by `start()` (MonkeyPatchWarning).
"""

import gzip
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ..accuracy.reading import Profile, decode, fields

BURN = 6.0
APPLICATION = """
import time
from gevent import monkey

assert monkey.is_module_patched("threading"), "gunicorn patches before it loads the application"


def burn(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(1000):
            pass


def application(environ, start_response):
    begin = time.time()
    if environ["PATH_INFO"] == "/burn":
        burn(float(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{begin} {time.time()}".encode()]
"""


@dataclass
class Sink:
    """A server on the loopback that takes what is pushed."""

    pushes: list[tuple[float, str, bytes]] = field(default_factory=list)
    """(Unix time, path, body) in order of arrival."""
    url: str = ""


@pytest.fixture
def sink() -> Iterator[Sink]:
    result = Sink()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            result.pushes.append((time.time(), self.path, body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    result.url = f"http://127.0.0.1:{server.server_port}"
    yield result
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Bound before gunicorn starts: the first request waits for the worker, nobody has to poll."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def get(listener: socket.socket, path: str, timeout: float) -> list[float]:
    connection = http.client.HTTPConnection(*listener.getsockname(), timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200
        return [float(word) for word in response.read().split()]
    finally:
        connection.close()


def pushed_profile(body: bytes, kind: str) -> Profile:
    """The stacks of one series of a PushRequest."""
    stacks = []
    for _, series in fields(body):
        labels, raw = {}, b""
        for number, value in fields(series):
            content = dict(fields(value))
            if number == 1:
                labels[content[1].decode()] = content[2].decode()
            else:
                raw = content[1]
        if labels["__name__"] == kind:
            stacks += decode(raw)
    return Profile(stacks)


def test_uploads_stay_on_time_beside_a_greenlet_that_never_yields(
    tmp_path: Path, sink: Sink, listener: socket.socket, require: Any
) -> None:
    require.module("gevent")
    require.module("gunicorn")
    (tmp_path / "application.py").write_text(APPLICATION)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYPROF_")}
    server = subprocess.Popen(
        [
            *(sys.executable, "-W", "error", "-m", "gunicorn", "-k", "gevent", "-w", "1"),
            *("-b", f"fd://{listener.fileno()}", "--graceful-timeout", "5", "application"),
        ],
        cwd=tmp_path,
        env={
            **inherited,
            "PYPROF_ENABLED": "1",
            "PYPROF_SERVER_URL": sink.url,
            "PYPROF_UPLOAD_INTERVAL": "1",
            "PYPROF_SERVICE_NAME": "greenlets",
            "PYTHONWARNINGS": "error",
        },
        pass_fds=[listener.fileno()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        get(listener, "/", timeout=30)
        deadline = time.monotonic() + 60
        # What the first upload imports beside the greenlet takes as long as the machine hands the GIL over.
        while not any(b"worker" in body for _, _, body in sink.pushes):  # label `role`: the worker's
            assert time.monotonic() < deadline
            time.sleep(0.1)
        begin, end = get(listener, f"/burn?{BURN}", timeout=BURN + 30)
        get(listener, "/", timeout=10)
        server.send_signal(signal.SIGTERM)
        _, stderr = server.communicate(timeout=30)
    finally:
        if server.poll() is None:
            server.kill()
            server.communicate()
    assert server.returncode == 0, stderr
    # gunicorn makes a second socket object of the listener it is given and drops it.
    warnings = [line for line in stderr.splitlines() if "Warning" in line]
    assert [line for line in warnings if f"laddr={listener.getsockname()}" not in line] == []
    assert "pyprof:" not in stderr
    paths = {path for _, path, _ in sink.pushes}
    assert paths == {"/push.v1.PusherService/Push"}
    burning = [
        (when, profile.cum()["application.burn"] / 1e9)
        for when, _, body in sink.pushes
        if (profile := pushed_profile(body, "process_cpu")).cum().get("application.burn")
    ]
    # Every window of 1 s that ended while it burnt has arrived within that second and another one.
    times = [when for when, _ in burning if when < end]
    assert len(times) >= BURN - 2, (begin, end, burning)
    assert max(after - before for before, after in zip([begin, *times], times, strict=False)) < 2, (
        begin,
        times,
    )
    # What it burnt is there, none of it twice: CPU, on a busy machine, is less than the time it took.
    assert 0.1 * BURN < sum(seconds for _, seconds in burning) < 1.05 * (end - begin)
