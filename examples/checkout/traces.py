"""What a tracing back end makes of spans: traces, percentiles by route, and which were the slowest."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path

LONG = 0.2  # seconds


@dataclass(frozen=True)
class Span:
    """Times in seconds; parent_id: None for the span that a trace begins with, its root."""

    trace_id: str
    parent_id: str | None
    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Trace:
    """The spans of one request, in all services.

    waited: seconds until whoever asked had the answer; whole: until the last span had ended.
    """

    trace_id: str
    route: str
    waited: float
    whole: float


def read_spans(directory: Path) -> Iterator[Span]:
    """The spans of all services, from the files that OpenTelemetry's console exporter writes."""
    for file in sorted(directory.glob("spans-*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            span = json.loads(line)
            yield Span(
                trace_id=span["context"]["trace_id"].removeprefix("0x"),
                parent_id=span["parent_id"],
                name=span["name"],
                start=datetime.fromisoformat(span["start_time"]).timestamp(),
                end=datetime.fromisoformat(span["end_time"]).timestamp(),
            )


def traces(spans: Iterable[Span]) -> list[Trace]:
    """The traces that have a root, slowest first."""
    found = []
    for trace_id, group in groupby(sorted(spans, key=lambda span: span.trace_id), lambda span: span.trace_id):
        members = list(group)
        for root in members:
            if root.parent_id is None:
                whole = max(span.end for span in members) - min(span.start for span in members)
                found.append(Trace(trace_id, root.name, root.end - root.start, whole))
    return sorted(found, key=lambda trace: trace.whole, reverse=True)


def routes_table(found: Iterable[Trace]) -> str:
    """Percentiles of what was waited, in milliseconds, and the share of those who waited long, by route."""
    lines = [f"{'Route':26}  Requests  p50 (ms)  p90 (ms)  p99 (ms)  > {LONG * 1e3:.0f} ms"]
    by_route = sorted(found, key=lambda trace: (trace.route, trace.waited))
    for route, group in groupby(by_route, lambda trace: trace.route):
        waits = [trace.waited * 1e3 for trace in group]
        p50, p90, p99 = (waits[int(len(waits) * share)] for share in (0.5, 0.9, 0.99))
        late = sum(wait > LONG * 1e3 for wait in waits) / len(waits)
        lines.append(f"{route:26}  {len(waits):8}  {p50:8.0f}  {p90:8.0f}  {p99:8.0f}  {late:8.1%}")
    return "\n".join(lines)


def traces_table(found: Iterable[Trace]) -> str:
    lines = [f"{'Trace':32}  {'Route':14}  Waited (ms)  Whole (ms)"]
    lines += [
        f"{trace.trace_id}  {trace.route:14}  {trace.waited * 1e3:11.0f}  {trace.whole * 1e3:10.0f}"
        for trace in found
    ]
    return "\n".join(lines)
