"""Serve the shop: `python -m shop [--port N] [--database PATH]`, from the directory `examples`.

Its requests are labelled with their routes; whether it is profiled is decided outside.
"""

import argparse
import logging
import signal
import tempfile
from pathlib import Path

from flask import Flask
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from . import create_app


class KeepAliveHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # the body, a second write, must not wait for an answer to the first


def end(signum: int, frame: object) -> None:
    raise SystemExit(0)


def make_shop_server(port: int, app: Flask) -> BaseWSGIServer:
    """On the loopback, with a thread for each connection."""
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=KeepAliveHandler)
    # Connections that clients keep open must not hold up the exit.
    server.daemon_threads = True  # type: ignore[attr-defined]
    return server


def serve(port: int, database: Path) -> None:
    """Serve on the loopback until SIGTERM or SIGINT; the address is the first line of stdout."""
    # Not above: benchmarks take the server from here, and run it without pyprof.
    from pyprof.integrations.wsgi import PyprofMiddleware

    app = create_app(database)
    app.wsgi_app = PyprofMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    server = make_shop_server(port, app)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="shop", description="A small web shop on the loopback.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (default)")
    parser.add_argument("--database", type=Path, help="SQLite file; a temporary one unless given")
    arguments = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    if arguments.database is not None:
        serve(arguments.port, arguments.database)
        return
    with tempfile.TemporaryDirectory(prefix="shop-") as directory:
        serve(arguments.port, Path(directory) / "shop.sqlite")


if __name__ == "__main__":
    main()
