"""Pushes to a Pyroscope server: what arrives, who is let in, what refusals are called."""

import base64
import os
import time

import pytest

from pyprof import _native
from pyprof.export.exporter import Exporter
from pyprof.export.pyroscope import PyroscopeTarget
from pyprof.export.rate import Pace
from pyprof.export.series import Series

pytestmark = pytest.mark.server

CPU = "process_cpu:cpu:nanoseconds:cpu:nanoseconds"
WALL = "wall:wall:nanoseconds:wall:nanoseconds"
WALL_COLUMN = ("wall", "nanoseconds", _native.WALL_NS)
SECRET = "s3cr3t-value"


def soon() -> float:
    return time.monotonic() + 20


def send(target, *series):
    try:
        return target.send(series, soon())
    finally:
        target.close()


def deliver(target, *series):
    """One window on its way from the ring to the target, whatever number of pushes that takes."""
    windows = [series]
    exporter = Exporter(
        [target],
        lambda timeout: windows.pop() if windows else None,
        lambda window, combined: window,
        timeout=60,
    )
    exporter.stop(60)
    return exporter.counters


@pytest.fixture
def service(server_url, config, make_series):
    """A name of a service of its own; the server takes pushes by now."""
    service = f"shop-{os.getpid()}-{time.time_ns()}"
    target = PyroscopeTarget(config(server_url=server_url))
    deadline = time.monotonic() + 30
    while True:
        outcome = target.send([make_series(service_name=f"before-{service}")], soon())
        if outcome.ok or time.monotonic() > deadline:
            break  # a real server's writer comes up after /ready says so
        assert outcome.retriable
        time.sleep(0.5)
    target.close()
    assert outcome.ok, outcome.reason
    return service


@pytest.fixture
def read_back(server_url, query):
    """Total and profile that the server has of a service: asked until it is the total that is expected."""

    def ask(profile_type, service, expected):
        message = {
            "profileTypeID": profile_type,
            "labelSelector": f'{{service_name="{service}", role="main"}}',
            "start": int(time.time() - 3000) * 1000,
            "end": int(time.time() + 300) * 1000,
        }
        deadline = time.monotonic() + 30
        while True:
            profile = query(server_url, "SelectMergeProfile", message)
            total = sum(int(value) for sample in profile.get("sample", ()) for value in sample["value"])
            if total == expected or time.monotonic() > deadline:
                return total, profile
            time.sleep(0.5)

    return ask


def test_a_pushed_profile_can_be_queried(server_url, config, make_series, query, service, read_back):
    target = PyroscopeTarget(config(server_url=server_url))
    outcome = send(target, make_series(service_name=service), make_series(service_name=service))
    assert outcome.ok, outcome.reason
    total, profile = read_back(CPU, service, 60_000_000)
    names = {profile["stringTable"][int(function["name"])] for function in profile["function"]}
    assert (total, names) == (60_000_000, {"app.work", "app.main"})
    now = int(time.time())
    types = query(server_url, "ProfileTypes", {"start": (now - 3000) * 1000, "end": (now + 300) * 1000})
    assert CPU in [entry["ID"] for entry in types["profileTypes"]]


def test_series_and_labels_as_the_server_gets_them(peer, config, make_series):
    server = peer()
    target = PyroscopeTarget(config(server_url=server.url))
    outcome = send(target, make_series(region="eu"), make_series(name="wall", long="é" * 3000, empty=""))
    assert outcome.ok
    [push] = server.pushes()
    cpu, wall = push["series"]
    assert cpu["labels"] == {
        "__name__": "process_cpu",
        "service_name": "shop",
        "role": "main",
        "region": "eu",
        "pyroscope_spy": "pyspy",
    }
    assert wall["labels"]["__name__"] == "wall"
    assert wall["labels"]["long"] == "é" * 1024
    assert "empty" not in wall["labels"]
    assert cpu["sample_types"] == ["samples/count", "cpu/nanoseconds"]
    assert cpu["totals"] == [3, 30_000_000]
    assert cpu["functions"] == ["app.work", "app.main"]
    assert cpu["compressed"]
    assert push["proto"] == "connect"
    assert push["header"]["Content-Type"] == ["application/proto"]
    assert push["header"]["User-Agent"][0].startswith("pyprof/")
    assert outcome.bytes == int(push["header"]["Content-Length"][0]) > 0


def test_one_connection_is_kept(peer, config, make_series):
    server = peer()
    target = PyroscopeTarget(config(server_url=server.url))
    assert all(target.send([make_series()], soon()).ok for _ in range(3))
    target.after_fork_child()  # as a forked child, which must not write on its parent's connection
    assert target.send([make_series()], soon()).ok
    target.close()
    assert [push["connection"] for push in server.pushes()] == ["1", "1", "1", "2"]


def test_nothing_is_sent_for_an_interval_without_profiles(peer, config):
    server = peer()
    assert send(PyroscopeTarget(config(server_url=server.url))).ok
    assert server.pushes() == []


def with_credentials(url: str, credentials: str) -> str:
    return url.replace("://", f"://{credentials}@")


def test_bearer_token(peer, config, make_series):
    server = peer("-token", SECRET)
    assert send(PyroscopeTarget(config(server_url=server.url, auth_token=SECRET)), make_series()).ok
    refused = send(PyroscopeTarget(config(server_url=server.url, auth_token="wrong")), make_series())
    assert (refused.ok, refused.retriable, refused.cut) == (False, False, False)
    assert refused.reason.startswith("HTTP 401")
    assert "auth_token" in refused.reason
    assert not send(PyroscopeTarget(config(server_url=server.url)), make_series()).ok
    assert len(server.pushes()) == 1


@pytest.mark.parametrize(("user", "password"), [("shop", SECRET), ("üser", "pä:ss@/wörd")])
def test_basic_authentication(peer, config, make_series, user, password):
    from urllib.parse import quote

    server = peer("-user", user, "-password", password)
    options = {"basic_auth_user": user, "basic_auth_password": password}
    assert send(PyroscopeTarget(config(server_url=server.url, **options)), make_series()).ok
    url = with_credentials(server.url, f"{quote(user, safe='')}:{quote(password, safe='')}")
    target = PyroscopeTarget(config(server_url=url))
    assert send(target, make_series()).ok
    assert quote(password, safe="") not in target.name
    refused = send(PyroscopeTarget(config(server_url=server.url, basic_auth_user=user)), make_series())
    assert refused.reason.startswith("HTTP 401")


def test_a_netrc_entry_does_not_replace_the_token(peer, config, make_series, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server = peer("-token", SECRET)
    assert send(PyroscopeTarget(config(server_url=server.url, auth_token=SECRET)), make_series()).ok
    basic = peer("-user", "other", "-password", "other")
    assert send(PyroscopeTarget(config(server_url=basic.url)), make_series()).ok


def test_tenant(peer, config, make_series):
    server = peer("-multitenancy")
    assert send(PyroscopeTarget(config(server_url=server.url, tenant_id="team-a")), make_series()).ok
    refused = send(PyroscopeTarget(config(server_url=server.url)), make_series())
    assert refused.reason.startswith("HTTP 401 unauthenticated: no org id")
    assert [push["tenant"] for push in server.pushes()] == ["team-a"]


def test_headers_and_base_path(peer, config, make_series, faulty_server):
    server = peer()
    headers = {"X-Scope-OrgID": "by-header", "X-Extra": "a,b=c"}
    assert send(PyroscopeTarget(config(server_url=server.url, headers=headers)), make_series()).ok
    [push] = server.pushes()
    assert push["header"]["X-Extra"] == ["a,b=c"]
    missing = send(PyroscopeTarget(config(server_url=server.url + "/elsewhere/")), make_series())
    assert missing.reason.startswith("HTTP 404")
    assert "server_url" in missing.reason
    assert not missing.retriable


@pytest.mark.parametrize(
    ("broken", "status", "retriable"),
    [
        (lambda s: Series(s.name, s.labels, b"not a profile", 0, 0), "HTTP 500 unknown", False),
        (
            lambda s: Series("", s.labels, s.pprof, 0, 0),
            'HTTP 400 invalid_argument: invalid labels \'{pyroscope_spy="pyspy", role="main", '
            'service_name="shop"}\' with error: invalid metric name',
            False,
        ),
        (
            lambda s: Series(s.name, s.labels | {f"l{i}": "x" for i in range(30)}, s.pprof, 0, 0),
            "HTTP 400",
            False,
        ),
        (lambda s: Series(s.name, s.labels, s.pprof + b"\x3a\x00" * 3_000_000, 0, 0), "HTTP 400", False),
    ],
    ids=["unparseable", "no name", "40 labels", "too large"],
)
def test_refused_profiles(peer, config, make_series, broken, status, retriable):
    outcome = send(PyroscopeTarget(config(server_url=peer().url)), broken(make_series()))
    assert not outcome.ok
    assert outcome.reason.startswith(status)
    assert outcome.retriable is retriable


def test_tls_is_verified(peer, config, make_series, monkeypatch):
    server = peer(tls=True)
    assert server.url.startswith("https://localhost:")
    target = PyroscopeTarget(config(server_url=server.url))
    refused = target.send([make_series()], soon())
    assert "certificate is not trusted" in refused.reason
    assert not refused.retriable
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.ca))
    assert all(target.send([make_series()], soon()).ok for _ in range(2))
    target.close()
    by_address = PyroscopeTarget(config(server_url=server.url.replace("localhost", "127.0.0.1")))
    assert "certificate is not trusted" in send(by_address, make_series()).reason
    assert len({push["connection"] for push in server.pushes()}) == 1


def test_http_proxy_from_the_environment(peer, config, make_series, faulty_server, monkeypatch):
    requests: list[bytes] = []

    def proxy(connection, server):
        requests.append(server.read_request(connection))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    url = with_credentials(faulty_server(proxy).url, "user:p%40ss")
    monkeypatch.setenv("http_proxy", url)
    monkeypatch.setenv("no_proxy", "")
    target = PyroscopeTarget(config(server_url="http://user:secret@profiles.invalid:4040/base"))
    assert send(target, make_series()).ok
    head = requests[0].partition(b"\r\n\r\n")[0].decode()
    assert head.startswith("POST http://profiles.invalid:4040/base/push.v1.PusherService/Push HTTP/1.1\r\n")
    assert "Host: profiles.invalid:4040" in head
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'user:p@ss').decode()}" in head
    assert f"Authorization: Basic {base64.b64encode(b'user:secret').decode()}" in head
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert send(PyroscopeTarget(config(server_url=peer().url)), make_series()).ok
    assert len(requests) == 1


def test_https_through_a_proxy(peer, config, make_series, faulty_server, monkeypatch):
    import socket
    import threading

    server = peer(tls=True)
    port = int(server.url.rpartition(":")[2])
    heads: list[bytes] = []

    def copy(source, to):
        try:
            while data := source.recv(65536):
                to.sendall(data)
        except OSError:
            pass

    def proxy(connection, _):
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(1)
        heads.append(head)
        with socket.create_connection(("127.0.0.1", port)) as onward:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=copy, args=(onward, connection))
            back.start()
            copy(connection, onward)
            onward.shutdown(socket.SHUT_RDWR)
            back.join(30)

    monkeypatch.setenv("https_proxy", faulty_server(proxy).url)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.ca))
    assert send(PyroscopeTarget(config(server_url=server.url, auth_token=SECRET)), make_series()).ok
    monkeypatch.delenv("https_proxy")
    assert heads[0].startswith(f"CONNECT localhost:{port} HTTP/1.".encode())
    assert SECRET.encode() not in heads[0]


def large(stacks, name="process_cpu", **labels):
    """A profile of about 340 bytes a stack, each with 1000 nanoseconds."""
    window = _native.Window(256 << 20)
    for number in range(stacks):
        stack = [(f"f{number}".ljust(300, "x"), "/srv/app.py", 1, 2)]
        window.add(stack, samples=1, cpu_samples=1, cpu_ns=1000, wall_ns=1000)
    kind = ("cpu", "nanoseconds", _native.CPU_NS) if name == "process_cpu" else WALL_COLUMN
    pprof = window.encode(
        [("samples", "count", _native.CPU_SAMPLES), kind],
        period_type=kind[:2],
        period=10_000_000,
        mapping="/usr/bin/python3",
    )
    return Series(name, {"service_name": "shop", "role": "main", **labels}, pprof, time.time_ns(), 1)


def test_no_window_exceeds_the_server_s_rate_limit(server_url, config, service, read_back):
    """One window after the other, without a pause of ours between them."""
    target = PyroscopeTarget(config(server_url=server_url))

    beyond_all_limits = large(20_000, service_name=service)
    assert len(beyond_all_limits.pprof) > 4 << 20
    assert deliver(target, beyond_all_limits).uploads == 1
    assert read_back(CPU, service, 20_000_000)[0] == 20_000_000

    cpu, wall = (large(3500, name, service_name=f"{service}-two") for name in ("process_cpu", "wall"))
    assert len(cpu.pprof) < 2 << 20 < len(cpu.pprof) + len(wall.pprof)
    assert deliver(target, cpu, wall).uploads == 1
    for profile_type in (CPU, WALL):
        assert read_back(profile_type, f"{service}-two", 3_500_000)[0] == 3_500_000

    tags = {f"tag{number}": "v" * 200 for number in range(24)}
    with_labels = large(6165, service_name=f"{service}-tags", **tags)
    assert (2 << 20) - 24 * 200 < len(with_labels.pprof) <= 2 << 20
    assert deliver(target, with_labels).uploads == 1
    assert read_back(CPU, f"{service}-tags", 6_165_000)[0] == 6_165_000


class Stalled(Pace):
    """Lets one push through and has the next one wait for an hour, until it is `released`."""

    def __init__(self):
        super().__init__()
        self.waits = _native.Event()
        self.spent = self.released = False

    def wait(self, size):
        if self.released or not self.spent:
            return super().wait(size)
        self.waits.set()
        return 3600.0

    def spend(self, size):
        self.spent = True
        super().spend(size)


def test_what_time_does_not_suffice_for_is_counted_and_said(peer, config, caplog):
    server = peer()
    target = PyroscopeTarget(config(server_url=server.url))
    target._pace = Stalled()
    counters = deliver(target, large(20_000))
    assert (counters.uploads, counters.upload_failures, counters.undelivered) == (0, 1, 1)
    [push] = server.pushes()
    assert counters.uploaded_bytes == int(push["header"]["Content-Length"][0])
    [record] = caplog.records
    assert "not sent within the time allowed (option timeout); 3 of 4 parts" in record.getMessage()


def test_what_was_sent_before_a_fork_is_not_sent_again(peer, config):
    """A fork pauses the exporter while it waits for the server's allowance; afterwards it goes on there."""
    server = peer()
    target = PyroscopeTarget(config(server_url=server.url))
    target._pace = pace = Stalled()
    windows = [[large(20_000)]]
    exporter = Exporter(
        [target],
        lambda timeout: windows.pop() if windows else None,
        lambda window, combined: window,
        timeout=7200,
    )
    exporter.start()
    assert pace.waits.wait(60)
    assert exporter.pause(60)
    assert len(server.pushes()) == 1
    pace.released = True
    exporter.start()
    assert exporter.stop(60)
    assert exporter.counters.uploads == 1
    assert sum(series["totals"][1] for push in server.pushes() for series in push["series"]) == 20_000_000
