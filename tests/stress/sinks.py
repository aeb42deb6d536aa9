"""Servers on the loopback for processes under stress: one that takes every push, others that do not."""

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from pyprof import pprof
from pyprof.export.pyroscope import MESSAGES
from pyprof.pprof import proto

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/proto\r\n\r\n{}"


@cache
def _request_class() -> Any:
    return proto.build("pyprof.test.sink", MESSAGES)["PushRequest"]


@dataclass(frozen=True)
class Pushed:
    """One series of one push."""

    labels: dict[str, str]
    profile: pprof.Profile

    @property
    def pids(self) -> set[int]:
        """The numeric label `pid` of the samples, and the pid that the comment tells."""
        told = {int(c.split()[1].rstrip(",")) for c in self.profile.comments if c.startswith("pid ")}
        return {
            int(label.value) for s in self.profile.samples for label in s.labels if label.key == "pid"
        } | told


def series_of(body: bytes) -> list[Pushed]:
    request = _request_class()()
    request.ParseFromString(body)
    return [
        Pushed(
            {label.name: label.value for label in series.labels},
            pprof.read(gzip.decompress(sample.raw_profile)),
        )
        for series in request.series
        for sample in series.samples
    ]


class Sink:
    """Accepts connections until closed. `behaviour` is answers, hangs (reads and never answers), or garbage.

    Says nothing of speed: what a test waits for, it waits for with `wait_for`.
    """

    def __init__(self, behaviour: str = "answers") -> None:
        self._answer = {"answers": OK, "hangs": b"", "garbage": b"\xff\x00what?\r\n\r\n" * 10}[behaviour]
        self._changed = threading.Condition()
        self.bodies: list[bytes] = []
        self._connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while body := _read_request(connection):
                    with self._changed:
                        self.bodies.append(body)
                        self._changed.notify_all()
                    if self._answer:
                        connection.sendall(self._answer)
            except OSError:
                pass  # the client has gone

    def wait_for(self, condition: Callable[["Sink"], Any], timeout: float = 30.0) -> bool:
        """Wait until the condition holds; it is looked at after each request."""
        with self._changed:
            return bool(self._changed.wait_for(lambda: condition(self), timeout))

    def series(self) -> list[Pushed]:
        with self._changed:
            bodies = self.bodies[:]
        return [series for body in bodies for series in series_of(body)]

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(30)
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [
        line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    ]
    while len(body) < int(lengths[0]):
        piece = connection.recv(65536)
        if not piece:
            return b""
        body += piece
    return body


@contextmanager
def running(behaviour: str = "answers") -> Iterator[Sink]:
    sink = Sink(behaviour)
    try:
        yield sink
    finally:
        sink.close()


def wait_until(condition: Callable[[], Any], timeout: float = 30.0) -> bool:
    """For what cannot notify: whether the condition came true within the time."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
