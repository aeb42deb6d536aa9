"""Serve one of the two services, traced and profiled: `python serve.py shop|location`.

Listens on a free port of the loopback until SIGTERM; the address is the first line of stdout. Variables of
the environment: SPANS, the file for spans, one JSON object a line; PYPROF_OUTPUT, the directory for profiles;
LOCATION_URL, for the shop.
"""

import logging
import os
import signal
import sys
from importlib import import_module

from flask import Flask
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from werkzeug.serving import make_server

from pyprof.integrations.flask import Pyprof
from pyprof.integrations.opentelemetry import PyprofSpanProcessor


def trace_requests(app: Flask, service_name: str, spans: str) -> TracerProvider:
    """What a service does to be traced; where to a collector would be told, the spans go to a file."""
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service_name}))
    file = open(spans, "a", encoding="utf-8")  # noqa: SIM115 - as long as the process
    exporter = ConsoleSpanExporter(out=file, formatter=lambda span: span.to_json(indent=None) + "\n")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    FlaskInstrumentor().instrument_app(app)
    RequestsInstrumentor().instrument()  # hands the id of the trace on, in the header traceparent
    return provider


def end(signum: int, frame: object) -> None:
    raise SystemExit(0)


def main() -> None:
    service_name = sys.argv[1]
    app: Flask = import_module(service_name).create_app()
    provider = trace_requests(app, service_name, os.environ["SPANS"])

    # All that pyprof needs: it runs, its samples carry the route, and the ids of span and trace.
    Pyprof(app, service_name=service_name)
    provider.add_span_processor(PyprofSpanProcessor())

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.daemon_threads = False  # type: ignore[attr-defined] # it ends when the requests under way have ended
    signal.signal(signal.SIGTERM, end)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
