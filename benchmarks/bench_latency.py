"""What does profiling do to the latency of a web application? p50 and p99 of the Flask shop behind a server.

One client asks for one page after the other over a kept connection. The server has a CPU for itself and its
profiler, the client has the others: what the profiler takes, and when it takes it, is in the latencies.

A block is some seconds of requests, which begin anew, with the database, after every 1,000. A turn is a block
with the profiler off and one with it on, in an order that changes from round to round, after some requests
that do not count; a block is so long that the profiler's upload falls into it. "nothing" is a profiler that
does nothing: its pairs are off and off, half of which differ by the noise or less. pyprof's difference of
medians is to lie inside that. Peers have fewer rounds.

Usage: python -m benchmarks.bench_latency [--quick] [--rounds N] [--peer-rounds N] [--seconds S]
                                          [--only NAME …] [--json FILE]
"""

import argparse
import contextlib
import http.client
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from .harness import (
    Ask,
    Estimate,
    conversation,
    note,
    print_machine,
    print_table,
    received,
    save,
    those_installed,
    warn_if_busy,
)
from .harness import sink as local_sink
from .profilers import PEERS, PROFILERS, environment
from .workloads import Request, shop_visits

WORKER = "benchmarks.latency_worker"
SETTLE = 2.0
"""Seconds of requests after each start and stop that do not count: first ticks. An upload is due 10 seconds
after the start."""
A_DATABASE = 1000
"""Requests to a database before it is renewed, so that it grows alike whatever the time they take."""
PERCENTILES = {"p50": 0.50, "p99": 0.99}
Block = dict[str, float]
Turn = dict[str, Block]


class Server:
    """A process with the shop under one profiler, and the client's connection to it."""

    def __init__(self, ask: Ask, visits: list[Request]) -> None:
        self.ask = ask
        self.visits = visits
        self.connection = http.client.HTTPConnection("127.0.0.1", ask("port")["port"], timeout=60)

    def latencies(self, seconds: float) -> list[float]:
        """Milliseconds of each request, from a fresh database on."""
        taken: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            number = len(taken) % A_DATABASE
            if number == 0:
                self.ask("renew")
            method, path, body = self.visits[number % len(self.visits)]
            headers = {"Content-Type": "application/json"} if body else {}
            begin = time.perf_counter()
            self.connection.request(method, path, body, headers)
            response = self.connection.getresponse()
            response.read()
            taken.append(1000 * (time.perf_counter() - begin))
            if response.status >= 400:
                raise RuntimeError(f"{method} {path}: {response.status}")
        return taken

    def block(self, seconds: float) -> Block:
        ordered = sorted(self.latencies(seconds))
        count = len(ordered)
        return {"requests": count, **{name: ordered[int(part * count)] for name, part in PERCENTILES.items()}}


def take_turn(server: Server, seconds: float, on_first: bool, url: str) -> Turn:
    turn: Turn = {}
    for state in ("on", "off") if on_first else ("off", "on"):
        if state == "on":
            server.ask("start")
        uploads = sum(received(url)["requests"].values())
        server.latencies(SETTLE)
        turn[state] = server.block(seconds)
        turn[state]["uploads"] = sum(received(url)["requests"].values()) - uploads
        turn[state]["load_average"] = os.getloadavg()[0]
        if state == "on":
            server.ask("stop")
    return turn


def measure(arguments: argparse.Namespace, names: list[str], url: str) -> dict[str, list[Turn]]:
    """The turns of each profiler; they alternate."""
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    visits = shop_visits()
    cpus = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, cpus)
        os.sched_setaffinity(0, cpus[1:] or cpus)
        servers = {}
        for name in names:
            request = {"profiler": name, "url": url, "cpu": cpus[0]}
            ask = stack.enter_context(conversation(WORKER, request, **environment(name, url)))
            servers[name] = Server(ask, visits)
            stack.callback(servers[name].connection.close)
        for server in servers.values():
            take_turn(server, SETTLE, False, url)  # does not count: what is imported late is there now
        for number in range(arguments.rounds):
            taking_part = [name for name in names if name not in PEERS or number < arguments.peer_rounds]
            first = number % len(taking_part)
            for name in taking_part[first:] + taking_part[:first]:
                turns[name].append(take_turn(servers[name], arguments.seconds, number % 2 == 1, url))
    return turns


def differences(turns: list[Turn], percentile: str) -> list[float]:
    return [turn["on"][percentile] - turn["off"][percentile] for turn in turns]


def report(turns: dict[str, list[Turn]]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for percentile in PERCENTILES:
        rows, of_percentile = [], {}
        apart = [abs(difference) for difference in differences(turns["nothing"], percentile)]
        noise = statistics.median(apart)
        for name, of_name in turns.items():
            off, on = (
                statistics.median(turn[state][percentile] for turn in of_name) for state in ("off", "on")
            )
            pairs = Estimate.of(differences(of_name, percentile))
            uploads, requests = (
                statistics.fmean(turn["on"][what] for turn in of_name) for what in ("uploads", "requests")
            )
            inside = abs(on - off) <= noise
            rows.append(
                [
                    PROFILERS[name].title,
                    f"{off:.3f}",
                    f"{on:.3f}",
                    f"{on - off:+.3f}",
                    "" if name == "nothing" else "yes" if inside else "no",
                    pairs.text("ms"),
                    f"{requests:.0f}",
                    f"{uploads:.1f}",
                    str(len(of_name)),
                ]
            )
            of_percentile[name] = {
                "off_ms": off,
                "on_ms": on,
                "difference_of_medians_ms": on - off,
                "inside_noise": inside,
                "pairs_ms": pairs.as_dict(),
                "uploads": uploads,
            }
        print(
            f"\n{percentile}, ms. Half of the off/off pairs differ by {noise:.3f} or less,"
            f" all by {max(apart):.3f} or less\n"
        )
        print_table(
            [
                "profiler",
                "off",
                "on",
                "difference",
                "inside",
                "median of pairs",
                "requests",
                "uploads",
                "rounds",
            ],
            rows,
        )
        summary[percentile] = {"noise_ms": noise, "off_off_ms": sorted(apart), "profilers": of_percentile}
    return summary


def main() -> int:
    parser = argparse.ArgumentParser(description="Latency of a web application, off and on.")
    parser.add_argument("--quick", action="store_true", help="a minute or two; for a look, not for a claim")
    parser.add_argument("--rounds", type=int, default=10, help="alternations of pyprof and of off/off")
    parser.add_argument("--peer-rounds", type=int, default=3, help="alternations of the others")
    parser.add_argument("--seconds", type=float, default=9.0, help="of a block")
    parser.add_argument("--only", nargs="+", default=["pyprof", *PEERS], help="profilers by name")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.peer_rounds, arguments.seconds = 3, 1, 2.0
    names = ["nothing", *those_installed(arguments.only)]
    warn_if_busy()
    begin = time.monotonic()
    with local_sink() as url:
        turns = measure(arguments, names, url)
    print_machine()
    summary = report(turns)
    path = save("latency", {"summary": summary, "raw": turns, "quick": arguments.quick}, arguments.json)
    note(f"{path} ({time.monotonic() - begin:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
