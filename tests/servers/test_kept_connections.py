"""The one connection of a target, kept between uploads: used again where it is good for that, only there."""

import contextlib
import os
import socket
import threading
import time

import pytest

from pyprof.export.pyroscope import PyroscopeTarget

from .answers import OK, error

pytestmark = pytest.mark.server


def test_an_endless_answer_is_not_read(faulty_server, config, make_series):
    def endless(connection, server):
        server.read_request(connection)
        connection.sendall(b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not server.released.is_set():
            connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

    server = faulty_server(endless)
    target = PyroscopeTarget(config(server_url=server.url))
    for connections in (1, 2):
        outcome = target.send([make_series()], time.monotonic() + 30)
        assert outcome.reason == "HTTP 400"
        assert server.connections == connections, "a connection with an unread rest is not used again"
    target.close()


def test_a_connection_closed_while_idle_is_opened_again(faulty_server, config, make_series):
    closed = threading.Event()

    def once(connection, server):
        server.read_request(connection)
        connection.sendall(OK)
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()
        closed.set()

    server = faulty_server(once)
    target = PyroscopeTarget(config(server_url=server.url))
    for connections in (1, 2, 3):
        assert target.send([make_series()], time.monotonic() + 30).ok
        assert server.connections == connections
        assert closed.wait(30)
        closed.clear()
    target.close()


def test_a_connection_closed_upon_the_next_request_is_opened_again(faulty_server, config, make_series):
    """The server's idle time runs out just as the request comes."""

    def one_answer(connection, server):
        server.read_request(connection)
        connection.sendall(OK)
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    server = faulty_server(one_answer)
    target = PyroscopeTarget(config(server_url=server.url))
    assert target.send([make_series()], time.monotonic() + 30).ok
    assert target.send([make_series()], time.monotonic() + 30).ok
    assert server.connections == 2
    target.close()


def test_what_comes_on_an_idle_connection_is_no_answer(faulty_server, config, make_series):
    """Proxies say 408 before they close a connection on which nothing came."""
    said = threading.Event()

    def impatient(connection, server):
        server.read_request(connection)
        connection.sendall(OK + error(408, b""))
        said.set()
        connection.recv(1)

    target = PyroscopeTarget(config(server_url=faulty_server(impatient).url))
    for _ in range(2):
        assert target.send([make_series()], time.monotonic() + 30).ok
        assert said.wait(30)
        said.clear()
    target.close()


def test_a_descriptor_that_the_application_has_got_meanwhile(faulty_server, config, make_series):
    """It has closed all that were open, ours too. Nothing is sent on it, and it is not closed."""

    def patient(connection, server):
        while server.read_request(connection):
            connection.sendall(OK)

    def is_ours(descriptor):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
            return server.url.endswith(f":{sock.getpeername()[1]}")

    server = faulty_server(patient)
    target = PyroscopeTarget(config(server_url=server.url))
    assert target.send([make_series()], time.monotonic() + 30).ok
    (ours,) = [number for number in map(int, os.listdir("/proc/self/fd")) if is_ours(number)]
    application, peer = socket.socketpair()
    with application, peer:
        os.dup2(application.fileno(), ours)
        assert target.send([make_series()], time.monotonic() + 30).ok
        assert server.connections == 2
        target.close()
        assert os.path.samestat(os.fstat(ours), os.fstat(application.fileno()))
        os.close(ours)
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(1)
