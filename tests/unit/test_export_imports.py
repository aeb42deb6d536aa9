"""What uploads load, when, and beside whom: nothing at start, all of it at once, never gevent's versions.

Seen to fail: `test_imports_give_way_to_a_fork_after_each_step` where `_import` does not look at `_forking`:
the next step takes the lock before the fork has woken up.
"""

import sys
import threading
from pathlib import Path

import pytest

import pyprof
from pyprof.export import imports

ROOT = str(Path(pyprof.__file__).parents[1])

START_IS_LIGHT = """
import sys
from pyprof.config import Config
from pyprof.export.exporter import Exporter
from pyprof.export.files import DirectoryTarget, FileTarget
from pyprof.export.pyroscope import PyroscopeTarget
config = Config.load({"server_url": "http://user:secret@localhost:1"}, {})
targets = [PyroscopeTarget(config), DirectoryTarget(sys.argv[1]), FileTarget(sys.argv[1] + "/x.pb.gz")]
exporter = Exporter(targets, lambda timeout: None, lambda window, combined: [], timeout=1)
assert exporter.prepare() == []
exporter.start()
assert exporter.stop(10)
heavy = {"google", "requests", "urllib3", "wrapt", "greenlet", "gevent", "ssl", "socket", "asyncio", "http",
         "email", "logging", "urllib", "inspect", "json", "pathlib", "concurrent", "subprocess"}
print(sorted(heavy & {name.split(".")[0] for name in sys.modules}))
"""


def test_start_and_prepare_load_nothing_heavy(run_python, tmp_path):
    done = run_python(
        START_IS_LIGHT, str(tmp_path / "out"), env={"PYTHONPATH": ROOT}, options=["-S"], check=True
    )
    loaded = done.stdout.strip()
    assert set(loaded.strip("[]").replace("'", "").split(", ")) <= {"", "inspect"}, loaded


NOTHING_LATER = """
import http.server, os, sys, threading, time
from pyprof import log
import logging
from pyprof.config import Config
from pyprof.export import imports
from pyprof.export.files import DirectoryTarget, FileTarget
from pyprof.export.pyroscope import PyroscopeTarget
from pyprof.export.series import Series

class Handler(http.server.BaseHTTPRequestHandler):
    statuses = [200, 429, 500]
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.statuses.pop(0))
        self.send_header("Retry-After", "Wed, 21 Oct 2099 07:28:00 GMT")
        self.end_headers()
        self.wfile.write(b'{"code":"unknown","message":"m"}')
    def log_message(self, *arguments):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://user:pass@localhost:{server.server_port}"
series = [Series("profile", {"service_name": "s"}, bytes.fromhex(sys.argv[1]), time.time_ns(), 1)]
assert imports.load("http") and imports.load("files")
before = set(sys.modules)
target = PyroscopeTarget(Config.load({"server_url": url}, {}))
print([target.send(series, time.monotonic() + 20).ok for _ in range(3)])
nobody = PyroscopeTarget(Config.load({"server_url": "https://localhost:1"}, {}))
print(nobody.send(series, time.monotonic() + 20).ok)
unknown = PyroscopeTarget(Config.load({"server_url": "http://ü.invalid"}, {}))
print(unknown.send(series, time.monotonic() + 20).ok)
for make, path in ((DirectoryTarget, "out"), (FileTarget, "x.pb.gz"), (FileTarget, "x.pb.gz")):
    print(make(os.path.join(sys.argv[2], path)).send(series, time.monotonic() + 20).ok)
print(sorted(set(sys.modules) - before))
server.shutdown()
"""


def test_all_that_uploads_import_is_imported_at_once(run_python, tmp_path):
    from pyprof import _native

    window = _native.Window()
    window.add([("f", "/f.py", 1, 2)], samples=1, cpu_ns=1)
    data = window.encode(
        [("cpu", "nanoseconds", _native.CPU_NS)], period_type=("cpu", "nanoseconds"), period=1
    )
    done = run_python(NOTHING_LATER, data.hex(), str(tmp_path), env={"PYTHONPATH": ROOT}, check=True)
    assert done.stdout.splitlines() == ["[True, False, False]", "False", "False", *["True"] * 3, "[]"]


@pytest.fixture
def not_loaded(monkeypatch):
    monkeypatch.setattr(imports, "_loaded", set())


def test_a_fork_holds_imports_off_and_does_not_hold_up_the_thread(not_loaded):
    assert imports.hold(10)
    try:
        assert not imports.load("files")
        assert not imports.hold(0.01), "not reentrant: another thread's fork waits for its bound"
    finally:
        imports.release()
    assert imports.load("files")


def test_a_fork_waits_for_imports_within_its_bound(not_loaded, monkeypatch):
    importing, go_on = threading.Event(), threading.Event()
    import importlib

    def slow(name):
        importing.set()
        assert go_on.wait(30)

    monkeypatch.setattr(importlib, "import_module", slow)
    thread = threading.Thread(target=imports.load, args=("files",))
    thread.start()
    assert importing.wait(30)
    assert not imports.hold(0.05)
    go_on.set()
    assert imports.hold(30)
    imports.release()
    thread.join(30)


def test_imports_give_way_to_a_fork_after_each_step(not_loaded, monkeypatch):
    import importlib

    steps, forks, held = [], [], []

    def step(name):
        steps.append(name)
        fork = threading.Thread(target=lambda: held.append(imports.hold(30)))
        fork.start()
        while not imports._forking:
            assert fork.is_alive()
        forks.append(fork)

    monkeypatch.setattr(importlib, "import_module", step)
    group = imports._GROUPS["http"]
    for count in range(1, len(group) + 1):
        assert imports.load("http") == (count == len(group))
        forks[-1].join(30)
        assert held == [True] * count
        assert steps == [*group[:count]]
        imports.release()


def test_the_child_of_a_fork_that_could_not_wait_has_a_new_lock(not_loaded, monkeypatch):
    monkeypatch.setattr(imports, "_lock", imports._lock)
    assert imports.hold(10)
    lock = imports._lock
    imports.after_fork_child()
    assert imports.load("files")
    lock.release()


GEVENT = """
import sys
{before}
import gevent.monkey
gevent.monkey.patch_all()
import gevent, os, socket, ssl, time
from gevent._hub_local import get_hub_if_exists
from pyprof import _native
from pyprof.config import Config
from pyprof.export import imports, unpatched
from pyprof.export.pyroscope import PyroscopeTarget
from pyprof.export.series import Series

series = [Series("process_cpu", {{"service_name": "s"}}, b"", time.time_ns(), 1)]
target = PyroscopeTarget(Config.load({{"server_url": sys.argv[1], "timeout": 5}}, {{}}))
outcomes, hubs = [], []

def upload():
    imports.exporter_thread = __import__("_thread").get_native_id()
    assert imports.load(target.imports)
    for _ in range(2):
        outcomes.append(target.send(series, time.monotonic() + 20))
        hubs.append(get_hub_if_exists())
    target.close()

main_hub = gevent.get_hub()
thread = _native.Thread(upload, "upload")
deadline = time.monotonic() + 60
while not thread.join(0):  # no greenlet runs in between: the upload may not need the main thread's event loop
    assert time.monotonic() < deadline
    unpatched.allocate_lock()
    for _ in range(10000):
        pass
print(*[o.reason for o in outcomes], sep="\\n")
print(hubs, gevent.get_hub() is main_hub)
gevent.sleep(0.001)
"""


@pytest.mark.parametrize(
    "before", ["", "import pyprof.export.imports, pyprof.export.pyroscope", "import requests"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_under_gevent_uploads_use_plain_sockets_and_no_hub(run_python, require, before, scheme):
    """For TLS the server is none, so that the handshake fails: it is on our sockets that it runs."""
    require.module("gevent")
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(
                        b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    )

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        options = ["-W", "ignore::Warning:gevent"] if before == "import requests" else ["-W", "error"]
        code = GEVENT.format(before=before)
        done = run_python(code, url, env={"PYTHONPATH": ROOT}, options=options, check=True)
        thread.join(30)
    first, second, last = done.stdout.splitlines()
    assert first == second
    assert first.startswith("HTTP 418" if scheme == "http" else "SSLError: "), first
    assert last == "[None, None] True"


def test_private_copies_are_made_only_where_something_is_patched():
    from pyprof.export import unpatched

    assert unpatched.socket_module() is sys.modules["socket"]
    assert unpatched.ssl_module() is sys.modules["ssl"]


COLLECTED = """
import gc, sys, time
from pyprof.config import Config
from pyprof.export import imports
from pyprof.export.pyroscope import PyroscopeTarget
from pyprof.export.series import Series
assert imports.load("http")
target = PyroscopeTarget(Config.load({}, {}))
for _ in range(50):
    assert target._encode([Series("a", {"b": "c"}, b"x" * 100, 0, 0)])
    gc.collect()
"""


def test_message_classes_survive_a_collection(run_python):
    """protobuf 4.22 ended the process in a segmentation fault where only the outer class was kept."""
    run_python(COLLECTED, env={"PYTHONPATH": ROOT}, check=True)
