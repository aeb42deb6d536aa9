"""Fetch a profile over HTTP, bounded in size and time."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit, urlunsplit

from pyprof.pprof.errors import ProfileError, printable

__all__ = ["fetch", "shown_url"]

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 60.0
"""On top of what the URL itself asks for (`?seconds=30`)."""

_DEFAULT_PROFILE_SECONDS = 30.0
"""What `/debug/pprof/profile` measures when it is not told."""

_CHUNK = 64 << 10


def shown_url(url: str) -> str:
    """The URL without what may be secret: user, password, query."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return printable(urlunsplit((parts.scheme, host, parts.path, "", "")))
    except ValueError:
        return "the URL"


def fetch(url: str, max_bytes: int) -> bytes:
    """The body of the answer to GET. Raises ProfileError for every failure, naming the URL."""
    import threading

    limit = _time_limit(url)
    outcome: list[bytes | ProfileError] = []

    def run() -> None:
        try:
            outcome.append(_get(url, limit, max_bytes))
        except ProfileError as error:
            outcome.append(error)
        except Exception as error:  # of a library's depths; unseen, it would pass for a silent server
            outcome.append(ProfileError(f"{shown_url(url)}: cannot be fetched ({type(error).__name__})"))

    # The time-outs of requests are for one read each; a server that trickles, redirects or resolves
    # slowly is only bounded from outside.
    worker = threading.Thread(target=run, name="pyprof-fetch", daemon=True)
    worker.start()
    worker.join(limit)
    if not outcome:
        raise ProfileError(f"{shown_url(url)}: no complete answer within {limit:.0f} s; is the server up?")
    if isinstance(outcome[0], ProfileError):
        raise outcome[0]
    return outcome[0]


def _get(url: str, limit: float, max_bytes: int) -> bytes:
    import requests

    shown = shown_url(url)
    try:
        with requests.get(
            url,
            stream=True,
            timeout=(_CONNECT_SECONDS, limit),
            # A profile is gzipped already.
            headers={"Accept-Encoding": "identity"},
        ) as response:
            if response.status_code != 200:
                reason = printable(response.reason or "")
                raise ProfileError(f"{shown}: the server answered {response.status_code} {reason}".rstrip())
            content = bytearray()
            for chunk in response.raw.stream(_CHUNK, decode_content=True):
                content += chunk
                if len(content) > max_bytes:
                    raise ProfileError(
                        f"{shown}: too large (more than {max_bytes >> 20} MiB); ask for a shorter time"
                    )
            return bytes(content)
    except requests.Timeout as error:
        raise ProfileError(f"{shown}: no answer in time; is the server up?") from error
    except requests.exceptions.SSLError as error:
        raise ProfileError(f"{shown}: TLS failed; check the certificate") from error
    except requests.ConnectionError as error:
        raise ProfileError(f"{shown}: no connection; is the server up and the address right?") from error


def _time_limit(url: str) -> float:
    try:
        parts = urlsplit(url)
        asked = float(parse_qs(parts.query)["seconds"][-1])
    except KeyError:
        asked = _DEFAULT_PROFILE_SECONDS if parts.path.endswith("/profile") else 0.0
    except ValueError:
        asked = 0.0
    # In this order of arguments "nan" becomes 0.
    return _ANSWER_SECONDS + min(max(0.0, asked), 3600.0)
