"""Connections that keep one overall deadline and can be cut from another thread.

A socket's own timeout bounds one call, so a server that sends a byte a second is never late. Here every
call gets what is left of the deadline of the whole exchange, and `Wire.cut` shuts the socket down, upon
which whatever call is waiting returns. Looking a host up is the one thing that neither reaches.
"""

import os
import time
from functools import lru_cache
from http.client import HTTPConnection
from socket import MSG_PEEK, SHUT_RDWR
from typing import Any

from . import unpatched


class DeadlineExceeded(Exception):
    """The exchange took longer than it may."""


class Cut(Exception):
    """Another thread ended the exchange."""


class TooLong(Exception):
    """The server sends more than anybody would read."""


class Wire:
    """What the sockets of one connection share: until when they may wait, how much they may read, and how to
    cut them."""

    def __init__(self) -> None:
        self.deadline = 0.0
        self._readable = 0
        self._was_cut = False
        self._socket: Any = None
        # Held for a shutdown or a close: no descriptor is shut down that is no longer ours.
        self._lock = unpatched.allocate_lock()

    def left(self) -> float:
        """Seconds until the deadline; raises DeadlineExceeded, Cut."""
        if self._was_cut:
            raise Cut
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded
        return left

    def begin(self, deadline: float, readable: int) -> None:
        """An exchange that ends at `deadline` (time.monotonic) and reads at most `readable` bytes."""
        self.deadline = deadline
        self._readable = readable

    def count(self, received: int) -> int:
        """`received`; raises TooLong."""
        self._readable -= received
        if self._readable < 0:
            raise TooLong
        return received

    @property
    def was_cut(self) -> bool:
        return self._was_cut

    def cut(self) -> None:
        with self._lock:
            self._was_cut = True
            if self._socket is not None and self._socket.is_open():
                try:
                    # Not SSLSocket's, which would take the TLS state away from under the reader.
                    self._socket.plain_shutdown()
                except OSError:
                    pass  # not connected yet, or no longer

    def resume(self) -> None:
        with self._lock:
            self._was_cut = False

    def watch(self, sock: Any) -> None:
        """From now on `cut` ends what waits for this socket, which has just been made."""
        with self._lock:
            sock.inode = _inode(sock)
            self._socket = sock

    def close(self, sock: Any) -> None:
        with self._lock:
            if self._socket is sock:
                self._socket = None
            if sock.is_open():
                sock.plain_close()
            else:
                sock.detach()

    def after_fork_child(self) -> None:
        self._lock = unpatched.allocate_lock()
        self._socket = None
        self._was_cut = False


def _inode(sock: Any) -> int:
    """Which file the descriptor is of; 0 if of none."""
    try:
        return os.fstat(sock.fileno()).st_ino
    except OSError:
        return 0


@lru_cache(maxsize=8)
def _with_deadline(base: Any, plain: Any) -> Any:
    """A subclass of a socket class whose calls wait no longer than its wire says."""

    class DeadlineSocket(base):  # type: ignore[misc]
        wire: Wire
        inode = 0

        def _arm(self) -> None:
            self.settimeout(self.wire.left())

        def connect(self, address: Any) -> None:
            self._arm()
            super().connect(address)

        def do_handshake(self, block: bool = False) -> None:
            self._arm()
            super().do_handshake(block)

        def send(self, *arguments: Any) -> int:
            self._arm()
            return int(super().send(*arguments))

        def sendall(self, *arguments: Any) -> None:
            self._arm()  # TLS sends piecewise through `send`, each armed anew
            super().sendall(*arguments)

        def recv_into(self, *arguments: Any, **keywords: Any) -> int:
            self._arm()
            return self.wire.count(int(super().recv_into(*arguments, **keywords)))

        def recv(self, *arguments: Any) -> bytes:
            self._arm()
            return bytes(super().recv(*arguments))

        def plain_shutdown(self) -> None:
            plain.shutdown(self, SHUT_RDWR)

        def plain_close(self) -> None:
            super()._real_close()

        def _real_close(self, *_: Any) -> None:
            wire = self.__dict__.get("wire")
            if wire is None:
                super()._real_close()
            else:
                wire.close(self)

        def is_open(self) -> bool:
            """Whether the descriptor is still this socket's.

            An application may close all it finds (`os.closerange`), and get the number for a file of its own.
            """
            return self.inode != 0 and _inode(self) == self.inode

        def is_idle(self) -> bool:
            """Whether the peer has neither closed nor sent anything."""
            if not self.is_open():
                return False
            self.settimeout(0)
            try:
                plain.recv(self, 1, MSG_PEEK)
            except BlockingIOError:
                return True
            except OSError:
                return False
            return False

    return DeadlineSocket


def connect(host: str, port: int, wire: Wire) -> Any:
    """A connected TCP socket; tries the addresses in turn, each for its share of what is left."""
    socket = unpatched.socket_module()
    wire.left()
    failure: Exception = OSError("the name has no address")
    addresses = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    socket_class = _with_deadline(socket.socket, socket.socket)
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket_class(family, kind, protocol)
        sock.wire = wire
        wire.watch(sock)
        deadline = wire.deadline
        try:
            wire.deadline = time.monotonic() + wire.left() / (len(addresses) - number)
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except (OSError, DeadlineExceeded) as error:
            failure = error
            sock.close()
        except BaseException:
            sock.close()
            raise
        finally:
            wire.deadline = deadline
    wire.left()
    raise failure


def tls_context(ca: str | None) -> Any:
    """A context that verifies with the authorities in `ca` (file or directory; None: the system's)."""
    ssl = unpatched.ssl_module()
    path = {} if ca is None else {"capath" if os.path.isdir(ca) else "cafile": ca}
    context = ssl.create_default_context(**path)
    context.set_alpn_protocols(["http/1.1"])
    socket = unpatched.socket_module()
    context.sslsocket_class = _with_deadline(ssl.SSLSocket, socket.socket)
    return context


class Connection(HTTPConnection):
    """HTTP over a socket of ours."""

    def __init__(self, host: str, port: int, wire: Wire) -> None:
        super().__init__(host, port)
        self.wire = wire
        self.set_debuglevel(0)  # an application's http.client.debuglevel would print our credentials

    def is_idle(self) -> bool:
        """Whether it is open and nothing has arrived on it that nobody asked for."""
        sock: Any = self.sock
        return sock is not None and bool(sock.is_idle())

    def connect(self) -> None:
        self.sock = connect(self.host, self.port, self.wire)
        if self._tunnel_host:  # type: ignore[attr-defined]
            self._tunnel()  # type: ignore[attr-defined]


class SecureConnection(Connection):
    """HTTPS over a socket of ours."""

    default_port = 443

    def __init__(self, host: str, port: int, wire: Wire, context: Any) -> None:
        super().__init__(host, port, wire)
        self._context = context

    def connect(self) -> None:
        super().connect()
        name = self._tunnel_host or self.host  # type: ignore[attr-defined]
        plain = self.sock
        plain.settimeout(self.wire.left())
        secure = self._context.wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False)
        secure.wire = self.wire
        self.wire.watch(secure)
        self.sock = secure
        secure.do_handshake()
