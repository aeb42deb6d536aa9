"""OpenTelemetry: samples tell the span and the trace that they belong to, and traces lead to their profiles.

    provider.add_span_processor(PyprofSpanProcessor())

While a sampled span of this process is the current one, samples carry its `span_id` and `trace_id`. Spans
without a parent in this process get the attribute `pyroscope.profile.id`: by it Grafana opens their profile.
"""

import logging
from typing import Any

from opentelemetry import context, trace
from opentelemetry.sdk.trace import Span, SpanProcessor

import pyprof

from ._shared import guarded

PROFILE_ID = "pyroscope.profile.id"
_RUNTIME = "_RUNTIME_CONTEXT"


class PyprofSpanProcessor(SpanProcessor):
    """Makes samples carry the current span from now on, whichever provider it comes from."""

    def __init__(self) -> None:
        # A processor hears of starts and ends only; when and in which task a span is current, and whether at
        # all, shows only where contexts are attached and detached.
        runtime = getattr(context, _RUNTIME, None)
        if runtime is None:
            logging.getLogger("pyprof").warning(
                "pyprof: this version of OpenTelemetry does not say which span is current: samples tell none"
            )
        elif not isinstance(runtime, _LabellingContext):
            setattr(context, _RUNTIME, _LabellingContext(runtime))

    @guarded
    def on_start(self, span: Span, parent_context: context.Context | None = None) -> None:
        parent = trace.get_current_span(parent_context).get_span_context()
        if not parent.is_valid or parent.is_remote:
            span.set_attribute(PROFILE_ID, trace.format_span_id(span.get_span_context().span_id))


class _LabellingContext:
    """OpenTelemetry's store of the current context; keeps the labels equal to the current span."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def attach(self, new: context.Context) -> Any:
        before = self._runtime.get_current()
        token = self._runtime.attach(new)
        _follow(before, new)
        return token

    def detach(self, token: Any) -> None:
        before = self._runtime.get_current()
        self._runtime.detach(token)
        _follow(before, self._runtime.get_current())


@guarded
def _follow(before: context.Context, now: context.Context) -> None:
    span = trace.get_current_span(now)
    if span is trace.get_current_span(before):
        return
    ids = span.get_span_context()
    if ids.is_valid and ids.trace_flags.sampled and not ids.is_remote:
        pyprof.set_labels(
            span_id=trace.format_span_id(ids.span_id), trace_id=trace.format_trace_id(ids.trace_id)
        )
    else:
        pyprof.set_labels(span_id=None, trace_id=None)
