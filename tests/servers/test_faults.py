"""Servers that are down, slow, or talk nonsense: uploads end in time, fail by their name, and leak nothing.

Bounds are an order of magnitude above what is expected, and far below what an unbounded wait would take.
"""

import contextlib
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from pyprof.export.pyroscope import PyroscopeTarget

from .answers import OK, answering, error

pytestmark = pytest.mark.server

SECRET = "s3cr3t-value"


def silent(connection, server):
    server.read_request(connection)
    server.released.wait(120)


def dripping(connection, server):
    server.read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not server.released.wait(0.05):
        connection.sendall(b"x")


def dripping_head(connection, server):
    server.read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not server.released.wait(0.05):
        connection.sendall(b"x")


def continuing(connection, server):
    server.read_request(connection)
    while not server.released.wait(0.02):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def not_reading(connection, server):
    server.released.wait(120)


def reset(connection, server):
    server.read_request(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def send(target, series, within=20.0):
    try:
        return target.send(series, time.monotonic() + within)
    finally:
        target.close()


@pytest.mark.parametrize("behaviour", [silent, dripping, dripping_head, continuing, not_reading])
def test_no_server_extends_the_time_allowed(faulty_server, config, make_series, behaviour):
    series = make_series()
    if behaviour is not_reading:  # more than the buffers between the two hold, and not to be compressed
        series = type(series)(series.name, series.labels, os.urandom(16 << 20), 0, 0)
    target = PyroscopeTarget(config(server_url=faulty_server(behaviour).url))
    target.send([], 0)  # loads what uploads need; not what is measured
    begin = time.monotonic()
    outcome = send(target, [series], within=1.5)
    assert time.monotonic() - begin < 10
    assert not outcome.ok
    assert outcome.retriable
    assert "time" in outcome.reason


def test_an_answer_in_time_but_slow_is_an_answer(faulty_server, config, make_series):
    def slow(connection, server):
        server.read_request(connection)
        for byte in OK:
            connection.sendall(bytes([byte]))
            server.released.wait(0.002)

    assert send(PyroscopeTarget(config(server_url=faulty_server(slow).url)), [make_series()]).ok


def test_connecting_is_bounded_too(config, make_series):
    """A listener whose backlog is full answers no SYN."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        target = PyroscopeTarget(config(server_url=f"http://127.0.0.1:{listener.getsockname()[1]}"))
        target.send([], 0)
        begin = time.monotonic()
        outcome = send(target, [make_series()], within=1.5)
        assert time.monotonic() - begin < 10
        assert (outcome.ok, outcome.retriable) == (False, True)
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize("behaviour", [silent, dripping, not_reading, "connecting"])
def test_an_upload_is_cut_at_once(faulty_server, config, make_series, behaviour):
    series = make_series()
    listener = socket.socket()
    fillers = [socket.socket() for _ in range(4)]
    if behaviour == "connecting":
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        url, sent = f"http://127.0.0.1:{listener.getsockname()[1]}", None
    else:
        server = faulty_server(behaviour)
        url, sent = server.url, server.connected if behaviour is not_reading else server.received
        if behaviour is not_reading:
            import os

            series = type(series)(series.name, series.labels, os.urandom(16 << 20), 0, 0)
    target = PyroscopeTarget(config(server_url=url))
    target.send([], 0)
    with ThreadPoolExecutor() as pool:
        upload = pool.submit(target.send, [series], time.monotonic() + 60)
        if sent is None:
            while not target._client or target._client._adapter.wire._socket is None:
                time.sleep(0.01)
        else:
            assert sent.wait(30)
        begin = time.monotonic()
        while not upload.done() and time.monotonic() - begin < 10:
            target.cut()
            wait([upload], 0.05)
        outcome = upload.result(0)
    assert (outcome.ok, outcome.cut) == (False, True)
    assert outcome.unconfirmed == (behaviour in (silent, dripping)), "whether the server has all of it"
    assert target.send([series], time.monotonic() + 60).cut, "refuses until resumed"
    target.resume()
    assert not target.send([make_series()], time.monotonic() + 0.5).cut
    target.close()
    for sock in (listener, *fillers):
        sock.close()


def test_nobody_listens(config, make_series):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    outcome = send(PyroscopeTarget(config(server_url=f"http://127.0.0.1:{port}")), [make_series()])
    assert (outcome.ok, outcome.retriable) == (False, True)
    assert "connection refused" in outcome.reason


def test_no_such_host(config, make_series):
    outcome = send(PyroscopeTarget(config(server_url="http://profiles.invalid:4040")), [make_series()])
    assert (outcome.ok, outcome.retriable) == (False, True)
    assert "host name" in outcome.reason


def test_reset_connection(faulty_server, config, make_series):
    outcome = send(PyroscopeTarget(config(server_url=faulty_server(reset).url)), [make_series()])
    assert (outcome.ok, outcome.retriable) == (False, True)
    assert "closed the connection" in outcome.reason


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff" * 500 + b"\n",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
    ],
    ids=["binary", "ssh", "no status", "long header"],
)
def test_garbage(faulty_server, config, make_series, garbage):
    outcome = send(PyroscopeTarget(config(server_url=faulty_server(answering(garbage)).url)), [make_series()])
    assert not outcome.ok
    assert "not HTTP" in outcome.reason
    assert outcome.reason.isprintable()


@pytest.mark.parametrize(
    ("begin", "again"),
    [(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n")],
    ids=["interim answers", "headers"],
)
def test_an_answer_that_does_not_end(faulty_server, config, make_series, begin, again):
    """Read until the deadline, it took half of a busy application's CPU.

    A limit of http.client ends both or, for interim answers and an older CPython, one of pyprof.
    """

    def flooding(connection, server):
        server.read_request(connection)
        with contextlib.suppress(OSError):
            connection.sendall(begin)
            while True:
                connection.sendall(again * 1000)

    outcome = send(
        PyroscopeTarget(config(server_url=faulty_server(flooding).url)), [make_series()], within=60
    )
    assert (outcome.ok, outcome.retriable, outcome.reason) == (False, True, "the answer does not end")


def test_tls_to_a_plain_server(faulty_server, config, make_series):
    url = faulty_server(answering(b"what?\n")).url.replace("http:", "https:")
    outcome = send(PyroscopeTarget(config(server_url=url)), [make_series()], within=5)
    assert not outcome.ok
    assert outcome.reason.isprintable()


STATUSES = [
    (
        error(429, b'{"code":"resource_exhausted","message":"limit"}', b"Retry-After: 7\r\n"),
        True,
        "limit",
        7.0,
    ),
    (
        error(500, b'{"code":"unknown","message":"rpc error: code = Unavailable desc = x"}'),
        True,
        "Unavailable",
        None,
    ),
    (error(500, b'{"code":"unknown","message":"proto: illegal wireType 7"}'), False, "illegal", None),
    (error(502, b"<html>bad gateway</html>"), True, "HTTP 502", None),
    (error(503, b"", b"Retry-After: soon\r\n"), True, "HTTP 503", None),
    (error(504, b""), True, "HTTP 504", None),
    (
        error(400, b'{"code":"invalid_argument","message":"a\\r\\nb\\u001b[31m"}'),
        False,
        "invalid_argument",
        None,
    ),
    (error(401, b"[[["), False, "auth_token", None),
    (error(403, b'{"code":1,"message":{}}'), False, "credentials", None),
    (error(404, b"[" * 60_000), False, "server_url", None),
    (error(418, b'"x"'), False, "HTTP 418", None),
    (error(400, b'{"code":"c","message":"' + b"m" * 50_000 + b'"}'), False, "mmm…", None),
]


@pytest.mark.parametrize(("answer", "retriable", "words", "retry_after"), STATUSES, ids=lambda v: str(v)[:24])
def test_what_answers_mean(faulty_server, config, make_series, answer, retriable, words, retry_after):
    outcome = send(PyroscopeTarget(config(server_url=faulty_server(answering(answer)).url)), [make_series()])
    assert (outcome.ok, outcome.retriable, outcome.retry_after) == (False, retriable, retry_after)
    assert words in outcome.reason
    assert outcome.reason.isprintable()
    assert len(outcome.reason) < 600


def test_retry_after_as_a_date(faulty_server, config, make_series):
    from email.utils import formatdate

    date = formatdate(time.time() + 120, usegmt=True).encode()
    answer = error(503, b"", b"Retry-After: " + date + b"\r\n")
    outcome = send(PyroscopeTarget(config(server_url=faulty_server(answering(answer)).url)), [make_series()])
    assert 60 < outcome.retry_after <= 120


def test_redirects_are_not_followed(faulty_server, config, make_series):
    elsewhere = faulty_server(answering(OK))
    location = f"{elsewhere.url}/?token={SECRET}".encode()
    moved = b"HTTP/1.1 307 Moved\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n"
    outcome = send(PyroscopeTarget(config(server_url=faulty_server(answering(moved)).url)), [make_series()])
    assert not outcome.ok
    assert "HTTP 307" in outcome.reason
    assert SECRET not in outcome.reason
    assert elsewhere.connections == 0


def test_secrets_are_in_no_reason_and_no_log(faulty_server, config, make_series, caplog):
    from pyprof.export.delivery import Delivery, Parcel

    echo = error(400, b'{"code":"x","message":"y"}')
    options = {"headers": {"X-Api-Key": SECRET}}
    url = faulty_server(answering(echo)).url.replace("://", f"://user:{SECRET}@")
    refusing = "http://user:" + SECRET + "@127.0.0.1:1"
    for number, server_url in enumerate((url, refusing, f"https://user:{SECRET}@profiles.invalid")):
        target = PyroscopeTarget(config(server_url=server_url, **options))
        delivery = Delivery([target], lambda window, combined: [make_series()], 20)
        with caplog.at_level("DEBUG"):
            assert delivery.deliver(Parcel(object()), float("inf"))
        assert len([r for r in caplog.records if r.name == "pyprof"]) == number + 1
        delivery.close()
    assert SECRET not in caplog.text
