"""The application that the servers of these tests run, as WSGI and as ASGI: `/burn`, `/fork`, `/stuck`."""

import os
import time

if os.environ.get("BY_CODE"):
    import pyprof

    settings = {"output": os.environ["ONLY_SETTINGS"]} if "ONLY_SETTINGS" in os.environ else None
    pyprof.start(service_name="app", settings=settings)

BURN = 0.3
"""CPU seconds that a request takes."""


def burn(seconds=BURN):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(50))


def answer(path):
    """The pid of the process that has done the work."""
    pid = os.getpid()
    if path == "/burn":
        burn()
    if path == "/stuck":
        burn(600)
    if path == "/fork":
        pid = os.fork()
        if pid == 0:
            burn()
            os._exit(0)
        os.waitpid(pid, 0)
    return str(pid).encode()


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Connection", "close")])
    return [answer(environ["PATH_INFO"])]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = answer(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
