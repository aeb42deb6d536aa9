"""Pushes to a Pyroscope server: what arrives, who is let in, what refusals are called."""

import base64
import os
import time

import pytest

from pyprof.export.pyroscope import PyroscopeTarget
from pyprof.export.series import Series

pytestmark = pytest.mark.server

TYPE = "process_cpu:cpu:nanoseconds:cpu:nanoseconds"
SECRET = "s3cr3t-value"


def soon() -> float:
    return time.monotonic() + 20


def send(target, *series):
    try:
        return target.send(series, soon())
    finally:
        target.close()


def test_a_pushed_profile_can_be_queried(server_url, config, make_series, query):
    service = f"shop-{os.getpid()}-{time.time_ns()}"
    target = PyroscopeTarget(config(server_url=server_url))
    deadline = time.monotonic() + 30
    while True:
        outcome = target.send([make_series(service_name=service), make_series(service_name=service)], soon())
        if outcome.ok or time.monotonic() > deadline:
            break  # a real server's writer comes up after /ready says so
        assert outcome.retriable
        time.sleep(0.5)
    assert outcome.ok, outcome.reason
    target.close()
    message = {
        "profileTypeID": TYPE,
        "labelSelector": f'{{service_name="{service}", role="main"}}',
        "start": int(time.time() - 3000) * 1000,
        "end": int(time.time() + 300) * 1000,
    }
    while True:
        profile = query(server_url, "SelectMergeProfile", message)
        if profile.get("sample") or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    total = sum(int(value) for sample in profile["sample"] for value in sample["value"])
    names = {profile["stringTable"][int(function["name"])] for function in profile["function"]}
    assert (total, names) == (60_000_000, {"app.work", "app.main"})
    types = query(server_url, "ProfileTypes", {"start": message["start"], "end": message["end"]})
    assert TYPE in [entry["ID"] for entry in types["profileTypes"]]


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
            "HTTP 400 invalid_argument: invalid metric name",
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


def test_a_profile_beyond_the_server_s_limits_arrives_in_parts(peer, config):
    from pyprof import _native

    window = _native.Window(256 << 20)
    for number in range(20_000):
        stack = [(f"f{number}".ljust(300, "x"), "/srv/app.py", 1, 2)]
        window.add(stack, samples=1, cpu_samples=1, cpu_ns=1000)
    pprof = window.encode(
        [("samples", "count", _native.CPU_SAMPLES), ("cpu", "nanoseconds", _native.CPU_NS)],
        period_type=("cpu", "nanoseconds"),
        period=10_000_000,
        mapping="/usr/bin/python3",
    )
    assert len(pprof) > 4 << 20
    server = peer()
    series = Series("process_cpu", {"service_name": "shop"}, pprof, time.time_ns(), 1)
    outcome = send(PyroscopeTarget(config(server_url=server.url)), series)
    assert outcome.ok, outcome.reason
    [push] = server.pushes()
    assert sum(part["totals"][1] for part in push["series"]) == 20_000_000
    assert sum(part["samples"] for part in push["series"]) == 20_000
