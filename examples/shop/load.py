"""Load on the shop from a few clients: `python -m shop.load URL [--clients N] [--requests N] [--seconds S]`.

Ends at the first bound it meets, requests or seconds, and prints one line of JSON.
"""

import argparse
import http.client
import itertools
import json
import random
import sys
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

WORDS = ("lamp", "kettle", "drum", "small", "quiet", "no. 1", "sturdy radio")


@dataclass
class Load:
    """What the clients share; `latencies` in seconds."""

    host: str
    port: int
    requests: int
    deadline: float
    products: int = 400
    tickets: "itertools.count[int]" = field(default_factory=itertools.count)
    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def next_request(rng: random.Random, products: int) -> tuple[str, str, bytes | None]:
    """(method, path, body) of a visitor's next step."""
    choice = rng.random()
    if choice < 0.15:
        return "GET", "/", None
    if choice < 0.60:
        return "GET", f"/product/{rng.randint(1, products)}", None
    if choice < 0.90:
        return "GET", "/api/search?" + urlencode({"q": rng.choice(WORDS)}), None
    lines = [{"product": rng.randint(1, products), "quantity": rng.randint(1, 60)} for _ in range(3)]
    return "POST", "/api/checkout", json.dumps({"customer": rng.randint(1, 300), "lines": lines}).encode()


def visit(load: Load, seed: int) -> None:
    """One client on one kept-alive connection."""
    rng = random.Random(seed)
    connection = http.client.HTTPConnection(load.host, load.port, timeout=10)
    try:
        while next(load.tickets) < load.requests and time.monotonic() < load.deadline:
            method, path, body = next_request(rng, load.products)
            headers = {"Content-Type": "application/json"} if body else {}
            begin = time.perf_counter()
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            response.read()
            load.latencies.append(time.perf_counter() - begin)
            if response.status >= 400:
                load.failures.append(f"{method} {path}: {response.status}")
    except (OSError, http.client.HTTPException) as error:
        load.failures.append(f"{type(error).__name__}: {error}")
    finally:
        connection.close()


def run(url: str, *, clients: int = 4, requests: int = 2000, seconds: float = 10.0) -> dict[str, object]:
    """Visit the shop at `url` and return counts and latencies (milliseconds)."""
    parts = urlsplit(url)
    begin = time.monotonic()
    load = Load(parts.hostname or "127.0.0.1", parts.port or 80, requests, begin + seconds)
    threads = [threading.Thread(target=visit, args=(load, seed)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - begin
    ordered = sorted(load.latencies) or [0.0]
    return {
        "requests": len(load.latencies),
        "failures": load.failures[:10],
        "seconds": round(elapsed, 3),
        "requests_per_second": round(len(load.latencies) / elapsed, 1),
        "median_ms": round(ordered[len(ordered) // 2] * 1e3, 3),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1e3, 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="shop.load", description="Load on the shop, bounded.")
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    result = run(
        arguments.url,
        clients=arguments.clients,
        requests=arguments.requests,
        seconds=arguments.seconds,
    )
    print(json.dumps(result))
    return 1 if result["failures"] or not result["requests"] else 0


if __name__ == "__main__":
    sys.exit(main())
