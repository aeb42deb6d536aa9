"""An investigation from end to end: `python examples/checkout [--output DIR] [--requests N]`.

A shop and its location service, each a process that is traced and profiled, get some hundred requests. Some
of the checkouts are slow: the traces say which, and the profile of such a trace says why.
docs/investigation.md walks through it.
"""

import argparse
import http.client
import itertools
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from traces import read_spans, routes_table, traces, traces_table

HERE = Path(__file__).resolve().parent
CLIENTS = 2
THINK = 0.05  # seconds between two requests of a client
SLOWEST = 8
ADDRESSES = (
    "12 Market Street, 20095 Hamburg",
    "Old Mill Lane 4, 99423 Weimar",
    "Gate 2, Station Road 31, 50667 Köln",
    "3 Saint Mary's Close, rear building, 80331 München",
)
# One customer in twenty pastes a whole letter into the field for the address: 850 words.
LETTER = "Dear all, please deliver the order to where you have delivered the one of last week\n" * 50


@contextmanager
def service(name: str, output: Path, environment: dict[str, str]) -> Iterator[str]:
    """The service, until the block ends; its URL."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "serve.py"), name],
        env={**environment, "SPANS": str(output / f"spans-{name}.jsonl")},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise SystemExit(f"checkout: the service {name} did not start")
        yield url
        process.send_signal(signal.SIGTERM)
        if process.wait(timeout=30) != 0:
            raise SystemExit(f"checkout: the service {name} ended with exit code {process.returncode}")
    finally:
        process.kill()
        process.communicate()


def load(url: str, requests: int) -> None:
    """Half of the requests look at a product, half check out; 5 % of those have a letter for an address."""
    turns = itertools.count()
    failures: list[str] = []
    parts = urlsplit(url)

    def visit() -> None:
        while (turn := next(turns)) < requests and not failures:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
            try:
                if turn % 2:
                    connection.request("GET", f"/products/{turn}")
                else:
                    address = LETTER if turn % 40 == 20 else random.choice(ADDRESSES)
                    order = json.dumps({"products": [turn, turn + 1], "address": address})
                    connection.request("POST", "/checkout", order, {"Content-Type": "application/json"})
                response = connection.getresponse()
                response.read()
                if response.status >= 400:
                    failures.append(f"request {turn}: status {response.status}")
            except (OSError, http.client.HTTPException) as error:
                failures.append(f"request {turn}: {error!r}")
            finally:
                connection.close()
            time.sleep(THINK)

    threads = [threading.Thread(target=visit) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"checkout: {failures[0]}")


def show(title: str, command: str) -> None:
    """Print a command line, run it, and let it print."""
    print(f"\n{title}\n\n$ {command}", flush=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    if subprocess.run(command, shell=True, env={**os.environ, "PATH": path}, check=False).returncode != 0:
        raise SystemExit(f"checkout: it failed: {command}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="checkout", description="From a slow trace to the guilty function.")
    parser.add_argument("--output", type=Path, default=HERE.parents[1] / "demo-output" / "checkout")
    parser.add_argument("--requests", type=int, default=320)
    arguments = parser.parse_args()
    output: Path = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    profiles = output / "profiles"
    for old in (*output.glob("spans-*.jsonl"), *profiles.glob("*.pb.gz")):
        old.unlink()

    begin = time.monotonic()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYPROF_", "OTEL_"))}
    environment = {**kept, "PYPROF_OUTPUT": str(profiles)}
    with service("location", output, environment) as location:
        with service("shop", output, {**environment, "LOCATION_URL": location}) as shop:
            load(shop, arguments.requests)
    print(f"{arguments.requests} requests in {time.monotonic() - begin:.0f} s\n")

    found = traces(read_spans(output))
    print(routes_table(found), traces_table(found[:SLOWEST]), sep="\n\n")
    top = f"pyprof top {shlex.quote(os.path.relpath(profiles))} --label trace_id={found[0].trace_id}"
    show("What the slowest trace used CPU time for, in both services", f"{top} -t cpu -n 5")
    show("How long it was in each of them", f"{top} -t wall --by endpoint")
    waits = f"{top} --label endpoint=/checkout -t wall --cum -n 0 | grep -E 'Flat|shop\\.|recv'"
    show("What the shop did all that time", waits)
    return 0


if __name__ == "__main__":
    sys.exit(main())
