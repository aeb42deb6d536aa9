"""OpenTelemetry's SDK: samples by span, across tasks and threads; what leads from a trace to its profile.

Seen to fail: see each test.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from .serving import BURN, assert_shares, labels_of, read, samples

ENVIRONMENT = {
    "PYPROF_SAMPLE_RATE": "1000",
    "PYPROF_MAX_OVERHEAD": "1",
    "PYPROF_UPLOAD_INTERVAL": "3600",
    "PYPROF_MEMORY": "off",
}
BEGIN = (
    BURN
    + """
import asyncio, contextvars, json, threading
import pyprof
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pyprof.integrations.opentelemetry import PyprofSpanProcessor

provider = TracerProvider()
finished = InMemorySpanExporter()
provider.add_span_processor(SimpleSpanProcessor(finished))
provider.add_span_processor(PyprofSpanProcessor())
tracer = provider.get_tracer("test")
pyprof.start()
"""
)
END = """
print(json.dumps({
    span.name: {
        "span_id": trace.format_span_id(span.context.span_id),
        "trace_id": trace.format_trace_id(span.context.trace_id),
        "profile_id": (span.attributes or {}).get("pyroscope.profile.id"),
    }
    for span in finished.get_finished_spans()
}))
"""
Spans = dict[str, dict[str, str]]


@pytest.fixture
def run_traced(run_python: Any, tmp_path: Path, require: Any) -> Any:
    """Run the middle of a program; its spans by name, and its profiles."""
    require.module("opentelemetry.sdk", "frameworks")

    def run(program: str) -> tuple[Spans, Any]:
        (tmp_path / "traced.py").write_text(BEGIN + program + END)
        env = {**ENVIRONMENT, "PYPROF_OUTPUT": str(tmp_path / "profiles")}
        result = run_python(tmp_path / "traced.py", env=env, cwd=tmp_path, check=True)
        assert result.stderr == ""
        return json.loads(result.stdout), read(tmp_path / "profiles")

    return run


@pytest.mark.accuracy
def test_interleaved_spans_have_their_own_cpu(run_traced: Any) -> None:
    """Two tasks take turns within one thread and one parent span.

    Seen to fail: with the id of the trace's first span for all of them.
    """
    spans, profiles = run_traced("""
async def first():
    with tracer.start_as_current_span("first"):
        for _ in range(200):
            one()
            await asyncio.sleep(0)


async def second():
    with tracer.start_as_current_span("second"):
        for _ in range(200):
            other()
            await asyncio.sleep(0)


def one():
    burn(0.003)


def other():
    burn(0.007)


def parent():
    burn(0.2)


async def main():
    with tracer.start_as_current_span("parent"):
        parent()
        await asyncio.gather(first(), second())
        parent()


asyncio.run(main())
""")
    ids = {name: span["span_id"] for name, span in spans.items()}
    assert_shares(profiles, "span_id", {ids["first"]: 0.6, ids["second"]: 1.4, ids["parent"]: 0.4})
    trace = spans["parent"]["trace_id"]
    for function, span in (("one", "first"), ("other", "second"), ("parent", "parent")):
        labels = labels_of(profiles, f"__main__.{function}", "span_id", "trace_id")
        assert labels == {(ids[span], trace)}, function


def test_the_label_is_the_current_span_and_nothing_else(run_traced: Any) -> None:
    """Whatever makes a span current, and in whatever order: started only, attached by hand, in threads.

    Seen to fail: with `on_start` and `on_end` only; with remote spans labelled; with the label left after a
    detach.
    """
    spans, profiles = run_traced("""
def before(): burn(0.02)
def started(): burn(0.02)
def attached(): burn(0.02)
def detached(): burn(0.02)
def in_thread(): burn(0.02)
def remote(): burn(0.02)
def inner(): burn(0.02)
def again(): burn(0.02)
def baggage(): burn(0.02)
def failed(): burn(0.02)

before()
span = tracer.start_span("by hand")
started()
token = context.attach(trace.set_span_in_context(span))
attached()
copied = context.get_current()
def thread():
    token = context.attach(copied)
    in_thread()
    context.detach(token)
    detached()
running = threading.Thread(target=contextvars.Context().run, args=[thread])  # inherits nothing anywhere
running.start()
running.join()
with pyprof.labels(endpoint="/x"):
    with tracer.start_as_current_span("inner"):
        inner()
    again()
    other = context.attach(context.set_value("unrelated", 1))
    baggage()
    context.detach(other)
context.detach(token)
detached()
span.end()
far = trace.NonRecordingSpan(trace.SpanContext(1, 2, True, trace.TraceFlags(1)))
with trace.use_span(far):
    remote()
    with tracer.start_as_current_span("local root"):
        pass
try:
    with tracer.start_as_current_span("failing"):
        raise LookupError
except LookupError:
    failed()
""")
    by_hand, inner = spans["by hand"], spans["inner"]
    told = {
        "before": None, "started": None, "attached": by_hand, "in_thread": by_hand, "detached": None,
        "inner": inner, "again": by_hand, "baggage": by_hand, "remote": None, "failed": None,
    }  # fmt: skip
    for function, span in told.items():
        labels = labels_of(profiles, f"__main__.{function}", "span_id", "trace_id", "endpoint")
        endpoint = "/x" if function in ("inner", "again", "baggage") else None
        ids = (span["span_id"], span["trace_id"]) if span else (None, None)
        assert labels == {(*ids, endpoint)}, function
    assert {name: span["profile_id"] for name, span in spans.items()} == {
        "by hand": by_hand["span_id"],
        "inner": None,
        "local root": spans["local root"]["span_id"],
        "failing": spans["failing"]["span_id"],
    }
    assert all(len(sample.labels.get("span_id", "0" * 16)) == 16 for sample in samples(profiles))
