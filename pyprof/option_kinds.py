"""What options take: how text is read, how a value from code is checked, and what is allowed.

Written without `re`, `urllib` and `ipaddress`, each of which costs as much as the rest of an import of
pyprof.
"""

import os
from collections.abc import Callable, Mapping

MASK = "****"

RESERVED_LABELS = frozenset({"service_name", "pyroscope_spy", "role"})
MAX_TAGS = 24  # a server takes 30 names, ours and those of the samples included
MAX_LABEL_NAME = 1024
MAX_LABEL_VALUE = 2048


class Kind:
    """What an option takes: how text is read and how a value from code is checked.

    Both methods return the value in its final type or raise ValueError without a message:
    `allowed` is the message, so that a refused secret is never repeated.
    """

    allowed = ""

    def parse(self, text: str) -> object:
        return self.check(text)

    def check(self, value: object) -> object:
        raise NotImplementedError


_BOOLEANS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


class Boolean(Kind):
    allowed = "must be True or False (in the environment 1/0, true/false, yes/no, on/off)"

    def parse(self, text: str) -> object:
        try:
            return _BOOLEANS[text.strip().lower()]
        except KeyError:
            raise ValueError from None

    def check(self, value: object) -> object:
        if not isinstance(value, bool):
            raise ValueError
        return value


class Integer(Kind):
    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.allowed = f"must be an integer from {low} to {high}"

    def parse(self, text: str) -> object:
        text = text.strip()
        # int() would also take underscores, other scripts' digits, and minutes for a megabyte of digits.
        if not text.isascii() or not text.removeprefix("-").isdigit() or len(text) > 20:
            raise ValueError
        return self.check(int(text))

    def check(self, value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise ValueError
        return int(value)


class Number(Kind):
    def __init__(self, low: float, high: float, unit: str) -> None:
        self.low, self.high, self.unit = low, high, unit
        self.allowed = f"must be a number from {low:g} to {high:g} ({unit})"

    def parse(self, text: str) -> object:
        if not text.isascii() or "_" in text:
            raise ValueError
        return self.check(float(text))

    def check(self, value: object) -> object:
        # The comparison refuses NaN and infinities, and integers too large for a float, before float().
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not self.low <= value <= self.high
        ):
            raise ValueError
        return float(value)


class Choice(Kind):
    def __init__(self, *words: str, aliases: Mapping[bool, str] | None = None) -> None:
        self.words = words
        self.aliases = dict(aliases or {})
        self.allowed = f"must be {' or '.join(repr(word) for word in words)}"

    def parse(self, text: str) -> object:
        text = text.strip().lower()
        return self.aliases[_BOOLEANS[text]] if self._is_alias(text) else self.check(text)

    def _is_alias(self, text: str) -> bool:
        return text not in self.words and _BOOLEANS.get(text) in self.aliases

    def check(self, value: object) -> object:
        if isinstance(value, bool) and value in self.aliases:
            return self.aliases[value]
        if not isinstance(value, str) or value not in self.words:
            raise ValueError
        return str(value)


def _has_controls(text: str) -> bool:
    return any(ord(character) < 32 or ord(character) == 127 for character in text)


def _is_utf8(text: str) -> bool:
    # os.environ and sys.argv carry undecodable bytes as lone surrogates, which no server takes.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Text(Kind):
    def __init__(self, what: str = "text", *, limit: int = MAX_LABEL_VALUE, without: str = "") -> None:
        self.limit, self.without = limit, without
        self.allowed = f"must be {what}, not empty, without control characters, of at most {limit} bytes"
        if without:
            self.allowed += f", without {without!r}"

    def check(self, value: object) -> object:
        if not isinstance(value, str):
            raise ValueError
        text = value.strip()
        if not text or _has_controls(text) or not _is_utf8(text) or len(text.encode()) > self.limit:
            raise ValueError
        if self.without and self.without in text:
            raise ValueError
        return text


class HeaderText(Kind):
    """Text that goes into an HTTP header as it is."""

    allowed = "must be printable ASCII text, not empty, without line breaks, of at most 8192 characters"

    def check(self, value: object) -> object:
        if not isinstance(value, str) or not _header_value(value.strip()):
            raise ValueError
        return value.strip()


def _header_value(text: str) -> bool:
    return bool(text) and len(text) <= 8192 and text.isascii() and text.isprintable()


class FilePath(Kind):
    allowed = "must be the path of a directory or of a file"

    def check(self, value: object) -> object:
        if isinstance(value, os.PathLike):
            value = value.__fspath__()
        if not isinstance(value, str) or not value.strip() or b"\0" in os.fsencode(value):
            raise ValueError
        return value


class Url(Kind):
    allowed = "must be a URL with http:// or https:// and a host, without query and fragment"

    def check(self, value: object) -> object:
        if not isinstance(value, str):
            raise ValueError
        text = value.strip()
        scheme, _, rest = text.partition("://")
        if scheme.lower() not in ("http", "https") or not text.isprintable() or " " in text:
            raise ValueError
        if "?" in rest or "#" in rest or "\\" in rest or not _is_utf8(text):
            raise ValueError
        authority, _, path = rest.partition("/")
        host_and_port = authority.rpartition("@")[2]
        if host_and_port.startswith("["):
            host, bracket, port = host_and_port[1:].partition("]")
            if not bracket or (port and not port.startswith(":")) or ":" not in host:
                raise ValueError
            port = port.removeprefix(":")
        else:
            host, colon, port = host_and_port.partition(":")
            if colon and not port:
                raise ValueError
        if not host or (port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536)):
            raise ValueError
        return f"{scheme.lower()}://{authority}/{path}".rstrip("/")


def is_label_name(name: str) -> bool:
    """Whether servers take the name of a label as it is: `[a-zA-Z_][a-zA-Z0-9_]*`."""
    return name.isascii() and name.isidentifier()


class Pairs(Kind):
    """A mapping of text to text, in the environment as `k=v,k=v`."""

    def __init__(self, allowed: str, accept: Callable[[str, str], bool], limit: int) -> None:
        self.allowed, self.accept, self.limit = allowed, accept, limit

    def parse(self, text: str) -> object:
        pairs: dict[str, str] = {}
        for part in text.split(","):
            if not part.strip():
                continue
            name, equals, value = part.partition("=")
            if not equals or name.strip() in pairs:
                raise ValueError
            pairs[name.strip()] = value.strip()
        return self.check(pairs)

    def check(self, value: object) -> object:
        if isinstance(value, str):
            return self.parse(value)
        if not isinstance(value, Mapping) or len(value) > self.limit:
            raise ValueError
        pairs: dict[str, str] = {}
        for name, content in value.items():
            if not isinstance(name, str) or not isinstance(content, str) or not self.accept(name, content):
                raise ValueError
            pairs[name] = content
        return FrozenPairs(pairs)


class FrozenPairs(dict[str, str]):
    """A dict that says no to changes: the configuration is shared between threads."""

    def _refuse(self, *args: object, **kwargs: object) -> None:
        raise TypeError("the configuration cannot be changed")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> tuple[object, ...]:
        return FrozenPairs, (dict(self),)


def _is_tag(name: str, value: str) -> bool:
    return (
        is_label_name(name)
        and not name.startswith("__")
        and name not in RESERVED_LABELS
        and len(name) <= MAX_LABEL_NAME
        and _is_utf8(value)
        and not _has_controls(value)
        and 0 < len(value.encode()) <= MAX_LABEL_VALUE
    )


# What the body of a push fixes.
_OWN_HEADERS = frozenset(
    {"content-type", "content-length", "content-encoding", "transfer-encoding", "connection"}
)
_TOKEN_PUNCTUATION = frozenset("!#$%&'*+-.^_`|~")


def _is_header(name: str, value: str) -> bool:
    return (
        bool(name)
        and name.isascii()
        and all(character.isalnum() or character in _TOKEN_PUNCTUATION for character in name)
        and name.lower() not in _OWN_HEADERS
        and _header_value(value)
    )


TAGS = Pairs(
    "must be a mapping or 'name=value,name=value', "
    f"at most {MAX_TAGS}, names like [a-zA-Z_][a-zA-Z0-9_]* not beginning with '__' and none of "
    f"{', '.join(sorted(RESERVED_LABELS))}, values not empty",
    _is_tag,
    MAX_TAGS,
)
HEADERS = Pairs(
    "must be a mapping or 'name=value,name=value' of HTTP headers, at most 32, values printable ASCII "
    "without line breaks, and not those of the body (Content-Type, Content-Length, …)",
    _is_header,
    32,
)


def mask_url(url: str) -> str:
    """A URL, or what was meant as one, with its credentials masked."""
    before, slashes, rest = url.partition("//")
    _, at, host = rest.rpartition("@") if slashes else before.rpartition("@")
    if not at:
        return repr(url)
    return repr(f"{before}//{MASK}@{host}" if slashes else f"{MASK}@{host}")
