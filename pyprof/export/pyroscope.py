"""Pyroscope, and Grafana Phlare, by `push.v1.PusherService/Push` (Connect, unary, protobuf)."""

import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import _native, _version
from ..config import Config
from .rate import MAX_BYTES, Pace, pack
from .series import Series
from .split import split
from .target import Outcome

if TYPE_CHECKING:
    from .http import Answer, Client

PATH = "/push.v1.PusherService/Push"
CONTENT_TYPE = "application/proto"
GZIP_LEVEL = 6  # 9 takes several times as long for 2 % less
MAX_LABEL_BYTES = 2048

# The messages of the push API, under a package of our own: names do not travel, numbers do.
MESSAGES: dict[str, Any] = {
    "PushRequest": (("series", 1, "*RawProfileSeries"),),
    "RawProfileSeries": (("labels", 1, "*LabelPair"), ("samples", 2, "*RawSample")),
    "RawSample": (("raw_profile", 1, "bytes"), ("ID", 2, "string")),
    "LabelPair": (("name", 1, "string"), ("value", 2, "string")),
}

_MEANING = {
    401: "the server wants other credentials (options auth_token, basic_auth_user, tenant_id)",
    403: "the credentials do not allow pushing (options auth_token, basic_auth_user, tenant_id)",
    404: "there is no Pyroscope push API at this address (option server_url)",
    405: "there is no Pyroscope push API at this address (option server_url)",
    415: "there is no Pyroscope push API at this address (option server_url)",
}


class PyroscopeTarget:
    """Pushes one series a kind, or parts of it, no faster than the server takes them."""

    combined = False
    stores = False
    imports = "http"

    def __init__(self, config: Config) -> None:
        scheme, _, rest = config.server_url.partition("://")
        credentials, _, address = rest.rpartition("@")
        self._url = f"{scheme}://{address}{PATH}"
        self.name = f"Pyroscope at {scheme}://{address}"
        self._credentials = credentials
        self._config = config
        self._client: Client | None = None
        # All of the classes: protobuf 4.22 crashes where a nested message's class has been collected.
        self._messages: dict[str, Any] = {}
        self._cut = _native.Event()
        self._pace = Pace()

    def prepare(self) -> Outcome:
        return Outcome(True)

    def portions(self, series: Sequence[Series]) -> Iterable[Sequence[Series]]:
        return pack((part for whole in series for part in split(whole, _room(whole))), charged_bytes)

    def send(self, portion: Sequence[Series], deadline: float) -> Outcome:
        from .http import TransportError

        if not portion:
            return Outcome(True)
        size = sum(map(charged_bytes, portion))
        wait = max(0.0, self._pace.wait(size))
        if time.monotonic() + wait >= deadline:
            return Outcome(False, "not sent within the time allowed (option timeout)", retriable=True)
        if wait and self._cut.wait(wait):
            return Outcome(False, "given up", retriable=True, cut=True)
        body = self._encode(portion)
        try:
            answer = self._connected().post(self._url, body, CONTENT_TYPE, deadline)
        except TransportError as error:
            if error.sent:
                self._pace.spend(size)
            return Outcome(
                False,
                str(error),
                error.retriable,
                bytes=len(body) if error.sent else 0,
                cut=error.cut,
                unconfirmed=error.sent,
            )
        self._pace.spend(size)
        return judge(answer, len(body))

    def _encode(self, series: Sequence[Series]) -> bytes:
        if not self._messages:
            from ..pprof import proto

            self._messages = proto.build("pyprof.push", MESSAGES)
        request = self._messages["PushRequest"]()
        for one in series:
            entry = request.series.add()
            for name, value in series_labels(one).items():
                entry.labels.add(name=name, value=value)
            entry.samples.add(raw_profile=zlib.compress(one.pprof, GZIP_LEVEL, wbits=31))
        encoded: bytes = request.SerializeToString()
        return encoded

    def _connected(self) -> "Client":
        if self._client is None:
            from .http import Client

            config = self._config
            headers = dict(config.headers)
            if config.tenant_id is not None:
                headers["X-Scope-OrgID"] = config.tenant_id
            client = Client(headers, self._authorization(), f"pyprof/{_version.__version__}")
            self._client = client
            if self._cut.is_set():  # between the look at `_client` there and its assignment here
                client.cut()
        return self._client

    def _authorization(self) -> str | None:
        from urllib.parse import unquote

        from .http import basic

        config = self._config
        if config.auth_token is not None:
            return f"Bearer {config.auth_token}"
        user, password = config.basic_auth_user, config.basic_auth_password
        if user is None and password is None:
            if not self._credentials:
                return None
            user, _, password = (unquote(part) for part in self._credentials.partition(":"))
        return basic(user or "", password or "")

    def cut(self) -> None:
        self._cut.set()
        client = self._client
        if client is not None:
            client.cut()

    def resume(self) -> None:
        self._cut.clear()
        if self._client is not None:
            self._client.resume()

    def after_fork_child(self) -> None:
        self._cut = _native.Event()
        if self._client is not None:
            self._client.after_fork_child()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def series_labels(series: Series) -> dict[str, str]:
    """The labels of a series as the server wants them: sorted, none empty or too long, the language told."""
    labels: Mapping[str, str] = {**series.labels, "__name__": series.name, "pyroscope_spy": "pyspy"}
    cut = {
        n: v.encode("utf-8", "replace")[:MAX_LABEL_BYTES].decode("utf-8", "ignore") for n, v in labels.items()
    }
    return {name: cut[name] for name in sorted(cut) if cut[name]}


def charged_bytes(series: Series) -> int:
    """What the server counts against its rate limit."""
    return len(series.pprof) + _label_bytes(series)


def _label_bytes(series: Series) -> int:
    return sum(len(text.encode()) for pair in series_labels(series).items() for text in pair)


def _room(series: Series) -> int:
    """Bytes of a profile that fit into one push beside its labels, of which there may be absurdly many."""
    return MAX_BYTES - min(_label_bytes(series), MAX_BYTES // 2)


def judge(answer: "Answer", sent: int) -> Outcome:
    """What the server's answer means, and whether a later attempt may succeed."""
    status = answer.status
    if status == 200:
        return Outcome(True, bytes=sent)
    if 200 <= status < 400:
        # Not the redirect's address: it may carry a token.
        return Outcome(False, f"HTTP {status}: this is not a Pyroscope push API (option server_url)")
    error = answer.json()
    code, message = _line(error.get("code")), _line(error.get("message"))
    if status == 500:
        # A server whose writer is not up yet and a profile that cannot be parsed are both 500 "unknown".
        retriable = not message.startswith("proto:") and "unmarshal" not in message and "parse" not in message
    else:
        retriable = status in (429, 502, 503, 504)
    reason = f"HTTP {status}"
    if code or message:
        reason += f" {code}: {message}" if code and message else f" {code or message}"
    if status in _MEANING:
        reason += f" – {_MEANING[status]}"
    return Outcome(
        False,
        reason,
        retriable,
        cause=f"HTTP {status} {code}",
        retry_after=answer.retry_after() if retriable else None,
    )


def _line(value: object) -> str:
    """Text from the server as part of a line of our log: no control characters, not endless."""
    if not isinstance(value, str):
        return ""
    text = "".join(character if character.isprintable() else " " for character in value[:300])
    return text + ("…" if len(value) > 300 else "")
