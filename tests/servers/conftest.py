"""Servers to push to: the contract peer (built with Go), a real Pyroscope if there is one, a faulty one."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pyprof import _native
from pyprof.config import Config
from pyprof.export.series import Series

PEER_SOURCES = Path(__file__).parent / "peer"
PYROSCOPE = os.environ.get("PYROSCOPE_BIN") or shutil.which("pyroscope")


def _cache_directory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyprof-tests"


@pytest.fixture(scope="session")
def peer_binary(require: Any) -> Path:
    """The peer, built from its module into a cache outside the tree, once for each state of its sources."""
    go = require.tool("go")
    digest = hashlib.sha256()
    for source in sorted(PEER_SOURCES.iterdir()):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    binary = _cache_directory() / f"peer-{digest.hexdigest()[:16]}"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        unfinished = binary.with_name(f"{binary.name}.{os.getpid()}")
        done = subprocess.run(
            [go, "build", "-o", unfinished, "."],
            cwd=PEER_SOURCES,
            capture_output=True,
            text=True,
            timeout=600,
        )
        require.that(done.returncode == 0, f"the contract peer cannot be built: {done.stderr.strip()[-500:]}")
        unfinished.rename(binary)
    return binary


class Peer:
    """A running contract peer."""

    def __init__(self, url: str, ca: Path | None) -> None:
        self.url, self.ca = url, ca

    def pushes(self) -> list[dict[str, Any]]:
        import ssl

        context = ssl.create_default_context(cafile=self.ca) if self.ca else None
        with urllib.request.urlopen(f"{self.url}/peer/pushes", timeout=30, context=context) as answer:
            content: list[dict[str, Any]] = json.load(answer)
            return content


@contextmanager
def _process(command: list[str | Path], **keywords: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, text=True, **keywords)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@pytest.fixture
def peer(peer_binary: Path, tmp_path: Path) -> Iterator[Callable[..., Peer]]:
    """Starts peers: `peer()`, `peer("-token", "secret")`, `peer(tls=True)`."""
    with ExitStack() as stack:

        def start(*arguments: str, tls: bool = False) -> Peer:
            ca = tmp_path / "ca.pem" if tls else None
            command: list[str | Path] = [peer_binary, *arguments, *(["-tls-ca", ca] if ca else [])]
            process = stack.enter_context(_process(command, stdout=subprocess.PIPE))
            assert process.stdout is not None
            stack.callback(process.stdout.close)
            line = process.stdout.readline()
            assert line.startswith("listening on "), line
            return Peer(line.split()[2], ca)

        yield start


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextmanager
def _pyroscope(directory: Path) -> Iterator[str]:
    assert PYROSCOPE
    http, grpc, raft, gossip = _free_ports(4)
    here = "127.0.0.1"
    flags = {
        "architecture.storage": "v2", "storage.backend": "filesystem",
        "storage.filesystem.dir": directory / "shared",
        "metastore.data-dir": directory / "ms", "metastore.raft.dir": directory / "raft",
        "metastore.raft.snapshots-dir": directory / "raft", "metastore.raft.bind-address": f"{here}:{raft}",
        "metastore.raft.advertise-address": f"{here}:{raft}",
        "self-profiling.disable-push": "true", "usage-stats.enabled": "false",
        "segment-writer.min-ready-duration": "0", "metastore.min-ready-duration": "0",
        "server.http-listen-address": here, "server.http-listen-port": http,
        "server.grpc-listen-address": here, "server.grpc-listen-port": grpc,
        "metastore.address": f"{here}:{grpc}", "query-backend.address": f"{here}:{grpc}",
        "memberlist.bind-addr": here, "memberlist.bind-port": gossip, "memberlist.advertise-addr": here,
        "segment-writer.lifecycler.addr": here, "distributor.ring.instance-addr": here,
        "query-frontend.instance-addr": here, "overrides-exporter.ring.instance-addr": here,
        "query-scheduler.ring.instance-addr": here,
    }  # fmt: skip
    command: list[str | Path] = [PYROSCOPE, *(f"-{name}={value}" for name, value in flags.items())]
    with open(directory / "log", "w") as log, _process(command, stdout=log, stderr=log) as process:
        url = f"http://{here}:{http}"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with urllib.request.urlopen(f"{url}/ready", timeout=5):
                    break
            except OSError:
                time.sleep(0.2)
        else:
            pytest.fail(f"Pyroscope did not start:\n{(directory / 'log').read_text()[-3000:]}")
        yield url


@pytest.fixture(scope="session")
def _real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with _pyroscope(tmp_path_factory.mktemp("pyroscope")) as url:
        yield url


@pytest.fixture(params=["peer", *(["pyroscope"] if PYROSCOPE else [])])
def server_url(request: pytest.FixtureRequest) -> str:
    """A server that speaks both the push and the query API: the peer, and a real one where there is one."""
    if request.param == "pyroscope":
        return str(request.getfixturevalue("_real_server"))
    return str(request.getfixturevalue("peer")().url)


@pytest.fixture
def query() -> Callable[[str, str, dict[str, Any]], Any]:
    """Ask a server's query API: query(url, method, message) → the answer's JSON."""

    def ask(url: str, method: str, message: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{url}/querier.v1.QuerierService/{method}",
            data=json.dumps(message).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    return ask


MakeSeries = Callable[..., Series]


@pytest.fixture
def make_series() -> MakeSeries:
    """A profile as the collectors make them: one stack `app.work` ← `app.main`, CPU time in nanoseconds."""

    def make(cpu_ns: int = 30_000_000, name: str = "process_cpu", **labels: str) -> Series:
        window = _native.Window()
        stack = [("work", "/srv/app.py", 10, 12), ("main", "/srv/app.py", 20, 22)]
        window.add(stack, samples=3, cpu_samples=3, cpu_ns=cpu_ns, wall_ns=cpu_ns)
        pprof = window.encode(
            [("samples", "count", _native.CPU_SAMPLES), ("cpu", "nanoseconds", _native.CPU_NS)],
            period_type=("cpu", "nanoseconds"),
            period=10_000_000,
            files=[("/srv/app.py", "app")],
            labels={"pid": os.getpid()},
            comments=["a comment"],
            mapping="/usr/bin/python3",
        )
        now = time.time_ns()
        return Series(name, {"service_name": "shop", "role": "main", **labels}, pprof, now, 10_000_000_000)

    return make


@pytest.fixture
def config() -> Callable[..., Config]:
    """A configuration from options alone."""

    def make(**options: object) -> Config:
        return Config.load({"service_name": "shop", **options}, {})

    return make


Behaviour = Callable[[socket.socket, "FaultyServer"], None]


class FaultyServer:
    """A TCP server that does to each connection what a function says, in a thread of its own."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self.released = threading.Event()
        self.connected = threading.Event()
        self.received = threading.Event()
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self.connected.set()
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._behaviour(connection, self)
            except OSError:
                pass  # the client has gone, as it should

    def read_request(self, connection: socket.socket) -> bytes:
        """One request; b"" where the client is done."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                return b""
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        while len(body) < length:
            piece = connection.recv(65536)
            if not piece:
                return b""
            body += piece
        self.received.set()
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        self.released.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in [self._accepting, *self._threads]:
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def faulty_server() -> Iterator[Callable[[Behaviour], FaultyServer]]:
    """Starts servers that misbehave: faulty_server(lambda connection, server: …)."""
    with ExitStack() as stack:

        def start(behaviour: Behaviour) -> FaultyServer:
            server = FaultyServer(behaviour)
            stack.callback(server.close)
            return server

        yield start
