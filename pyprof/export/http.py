"""Requests to profiling servers: one kept connection, one overall deadline, no redirects, no surprises.

Loads `requests`; imported by the exporter's first upload only (see `imports`).
"""

import json
import os
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, RemoteDisconnected
from io import BytesIO
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from requests.adapters import BaseAdapter
from requests.auth import AuthBase
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy

from .wire import Connection, Cut, DeadlineExceeded, SecureConnection, TooLong, Wire, tls_context

MAX_ANSWER = 64 << 10


class TransportError(Exception):
    """No answer could be had. The message is one line without secrets.

    sent: the whole request had been handed to the kernel, which delivers it even where the connection is
    closed upon that.
    """

    def __init__(self, reason: str, *, retriable: bool = True, cut: bool = False, sent: bool = False) -> None:
        super().__init__(reason)
        self.retriable, self.cut, self.sent = retriable, cut, sent


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: status, headers and at most `MAX_ANSWER` bytes of body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body if it is a JSON object, else nothing."""
        try:
            content = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    def retry_after(self) -> float | None:
        """Seconds that the server asks to wait: a number or a date."""
        text = self.headers.get("Retry-After", "").strip()
        if text.isascii() and text.isdigit():
            return float(text[:9])
        try:
            from email.utils import parsedate_to_datetime

            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        except (ValueError, OverflowError):
            return None


class _Headers(AuthBase):
    """Authorization as configured. Without an auth object requests lets a .netrc entry replace the header."""

    def __init__(self, authorization: str | None) -> None:
        self.authorization = authorization

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.authorization is not None:
            request.headers["Authorization"] = self.authorization
        return request


def basic(user: str, password: str) -> str:
    """The Authorization header of HTTP basic authentication."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


class _Session(requests.Session):
    def send(self, request: requests.PreparedRequest, **keywords: Any) -> requests.Response:
        # Not the inherited method: instrumentation that patches it would fill the application's traces
        # with our uploads, and cookies, hooks and redirects are not wanted here.
        return self.get_adapter(request.url or "").send(request, **keywords)


class Client:
    """Posts to one server over one connection. One thread at a time, but for `cut`."""

    def __init__(self, headers: Mapping[str, str], authorization: str | None, user_agent: str) -> None:
        self._adapter = _Adapter()
        self._session = _Session()
        self._session.adapters.clear()
        self._session.mount("http://", self._adapter)
        self._session.mount("https://", self._adapter)
        self._session.headers = CaseInsensitiveDict({"User-Agent": user_agent, "Accept": "*/*"})
        self._session.headers.update(headers)
        if authorization is not None or "Authorization" in self._session.headers:
            self._session.auth = _Headers(authorization)

    def post(self, url: str, body: bytes, content_type: str, deadline: float) -> Answer:
        """Send and read the answer before `deadline` (time.monotonic). Raises TransportError."""
        try:
            response = self._session.request(
                "POST",
                url,
                data=body,
                headers={"Content-Type": content_type},
                timeout=deadline - time.monotonic(),
                allow_redirects=False,
            )
        except requests.RequestException as error:  # a URL or proxy setting that requests refuses
            raise TransportError(
                f"{type(error).__name__} in the URL or a proxy setting", retriable=False
            ) from None
        return Answer(response.status_code, response.headers, response.content)

    def cut(self) -> None:
        """From any thread: end a `post` under way with TransportError(cut=True), and refuse others."""
        self._adapter.wire.cut()

    def resume(self) -> None:
        self._adapter.wire.resume()

    def after_fork_child(self) -> None:
        """Drop the connection, which the parent goes on using."""
        self._adapter.wire.after_fork_child()
        self._adapter.close()

    def close(self) -> None:
        self._adapter.close()


class _Adapter(BaseAdapter):
    """Transport of the session: sockets of the operating system, see `wire`."""

    def __init__(self) -> None:
        super().__init__()
        self.wire = Wire()
        self._connection: Connection | None = None
        self._sent = False  # the whole of the last request, to the kernel
        self._key: tuple[object, ...] = ()
        self._contexts: dict[tuple[object, bool], Any] = {}

    def send(  # type: ignore[override]
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float = 10.0,
        verify: bool | str = True,
        cert: object = None,
        proxies: Mapping[str, str] | None = None,
        **_: object,
    ) -> requests.Response:
        self.wire.begin(time.monotonic() + timeout, 4 * MAX_ANSWER)
        self._sent = False
        try:
            try:
                return self._exchange(request, verify, proxies or {})
            except BaseException:
                self.close()
                raise
        except TransportError:
            raise
        except Cut:
            raise self._given_up() from None
        except Exception as error:
            # `from None`: what the error refers to holds the request, credentials included.
            raise self._translated(error, request.url or "") from None

    def _given_up(self) -> TransportError:
        return TransportError("given up", cut=True, sent=self._sent)

    def _translated(self, error: Exception, url: str) -> TransportError:
        if self.wire.was_cut:
            return self._given_up()
        if isinstance(error, (TimeoutError, DeadlineExceeded)):
            return TransportError("no answer within the time allowed (option timeout)")
        # Nothing but http.client's own limits of headers and of interim answers is an HTTPException itself.
        if isinstance(error, TooLong) or type(error) is HTTPException:
            return TransportError("the answer does not end")
        if isinstance(error, ConnectionRefusedError):
            return TransportError("nobody listens there (connection refused)")
        if isinstance(error, (ConnectionResetError, BrokenPipeError, RemoteDisconnected)):
            return TransportError("the server closed the connection without an answer")
        if type(error).__name__ == "gaierror":
            return TransportError(f"the host name cannot be looked up ({getattr(error, 'strerror', '')})")
        if type(error).__name__ == "SSLCertVerificationError":
            return TransportError(
                f"its certificate is not trusted ({getattr(error, 'verify_message', '')})", retriable=False
            )
        if isinstance(error, HTTPException):
            return TransportError(f"the answer is not HTTP ({type(error).__name__})")
        if isinstance(error, OSError):
            return TransportError(f"{type(error).__name__}: {error.strerror or 'input/output error'}")
        if isinstance(error, UnicodeError):
            return TransportError("the host name is not valid", retriable=False)
        return TransportError(f"{type(error).__name__} while talking to the server", retriable=False)

    def _exchange(
        self, request: requests.PreparedRequest, verify: bool | str, proxies: Mapping[str, str]
    ) -> requests.Response:
        connection, path, reused = self._connect(request, verify, proxies)
        try:
            raw = self._converse(connection, request, path)
        except (BrokenPipeError, ConnectionResetError, RemoteDisconnected):
            # An idle connection that the server closed at that very moment: not an answer to this request.
            if not reused or self.wire.was_cut:
                raise
            self.close()
            self._sent = False
            connection, path, _ = self._connect(request, verify, proxies)
            raw = self._converse(connection, request, path)
        body = raw.read(MAX_ANSWER)
        if self.wire.was_cut and raw.length and len(body) < MAX_ANSWER:
            raise Cut  # http.client takes the end of the connection for the end of the answer
        if not raw.isclosed() and raw.read(1):
            self.close()  # longer than anybody reads: the rest would be taken for the next answer
        response = requests.Response()
        response.status_code = raw.status
        response.reason = raw.reason
        response.headers = CaseInsensitiveDict(raw.headers.items())
        response.raw = BytesIO(body)
        response.request = request
        response.url = request.url or ""
        return response

    def _converse(self, connection: Connection, request: requests.PreparedRequest, path: str) -> HTTPResponse:
        connection.request(request.method or "POST", path, request.body, dict(request.headers))
        self._sent = True
        return connection.getresponse()

    def _connect(
        self, request: requests.PreparedRequest, verify: bool | str, proxies: Mapping[str, str]
    ) -> tuple[Connection, str, bool]:
        """A connection, the request's target on it, and whether it has been used before."""
        url = urlsplit(request.url or "")
        secure = url.scheme == "https"
        host, port = url.hostname or "", url.port or (443 if secure else 80)
        path = request.path_url
        headers: dict[str, str] = {}
        proxy = select_proxy(request.url or "", proxies)
        to = (host, port)
        if proxy:
            to, headers = _proxy_address(proxy)
            if not secure:
                path = f"http://{url.netloc.rpartition('@')[2]}{path}"
                request.headers.update(headers)
        ca = DEFAULT_CA_BUNDLE_PATH if verify is True else str(verify)
        key = (to, host, port, secure, ca, tuple(headers.items()), os.getpid())
        held = self._connection
        if held is not None and self._key == key and held.is_idle():
            return held, path, True
        self.close()
        connection = (
            SecureConnection(*to, self.wire, self._context(ca)) if secure else Connection(*to, self.wire)
        )
        if proxy and secure:
            connection.set_tunnel(host, port, headers)
        self._connection, self._key = connection, key
        return connection, path, False

    def _context(self, ca: str) -> Any:
        from . import unpatched

        key = (ca, unpatched.is_patched())
        if key not in self._contexts:
            self._contexts[key] = tls_context(ca)
        return self._contexts[key]

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _proxy_address(proxy: str) -> tuple[tuple[str, int], dict[str, str]]:
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        port = parts.port or 80
    except ValueError:
        raise TransportError("the proxy in the environment is not a URL", retriable=False) from None
    if parts.scheme != "http" or not parts.hostname:
        raise TransportError("only http:// proxies can be used", retriable=False)
    headers = {}
    if parts.username is not None:
        headers["Proxy-Authorization"] = basic(unquote(parts.username), unquote(parts.password or ""))
    return (parts.hostname, port), headers
