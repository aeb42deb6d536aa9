"""Applications behind real servers, many clients, and what the profiles say of them by label."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import NamedTuple

from pyprof import pprof

from ..conftest import clean_environment

CLIENTS = 20
# In the application: burns CPU of its thread and tells how much, in seconds.
BURN = """
import time


def burn(seconds):
    begin = time.thread_time()
    while time.thread_time() - begin < seconds:
        sum(range(500))
    return str(time.thread_time() - begin)

"""
GUNICORN = '''
def post_request(worker, request, environ, response):
    """On the thread that has just served a request."""
    if response.status_code == 200:
        after_request()


def after_request():
    import time

    begin = time.thread_time()
    while time.thread_time() - begin < 0.002:
        sum(range(500))
'''


class Answer(NamedTuple):
    path: str
    status: int
    body: bytes


@dataclass
class Server:
    """A server, with a profile of every process in `output` once it has ended."""

    process: "subprocess.Popen[str]"
    port: int
    output: Path
    stderr: str = ""
    profiles: list[pprof.Profile] = field(default_factory=list)

    def get(self, requests: Sequence[str], clients: int = CLIENTS) -> list[Answer]:
        """Ask for each, "/path" or "METHOD /path", by so many clients at once."""
        answers: list[Answer] = []
        turns = count()

        def ask() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            while (turn := next(turns)) < len(requests):
                method, _, path = requests[turn].rpartition(" ")
                connection.request(method or "GET", path)
                response = connection.getresponse()
                answers.append(Answer(path, response.status, response.read()))
                if response.status >= 500:
                    connection.close()  # as some servers do, without saying so
            connection.close()

        threads = [threading.Thread(target=ask) for _ in range(min(clients, len(requests)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == len(requests), "a client has failed: see its traceback"
        return answers


@contextmanager
def serve(
    command: Callable[[socket.socket], Sequence[str]],
    directory: Path,
    application: str,
    env: Mapping[str, str | None] | None = None,
) -> Iterator[Server]:
    """`application`, a module of that name, under `python -m` what `command` says, until the block ends.

    The listener is bound before the server starts: the first request waits for it. Profiles go to files.
    """
    (directory / "application.py").write_text(BURN + application)
    (directory / "gunicorn.conf.py").write_text(GUNICORN)
    output = directory / "profiles"
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        # Accepted sockets inherit it: else each answer in two parts takes a delayed acknowledgement, 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        process = subprocess.Popen(
            [sys.executable, *command(listener)],
            cwd=directory,
            env=clean_environment(
                {
                    "PYPROF_OUTPUT": str(output),
                    "PYPROF_SAMPLE_RATE": "1000",
                    "PYPROF_MAX_OVERHEAD": "1",
                    "PYPROF_UPLOAD_INTERVAL": "3600",
                    "PYPROF_MEMORY": "off",
                    "PYTHONPATH": str(directory),
                    **(env or {}),
                }
            ),
            pass_fds=[listener.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        server = Server(process, listener.getsockname()[1], output)
        try:
            yield server
            process.send_signal(signal.SIGTERM)
            _, server.stderr = process.communicate(timeout=60)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                print(process.communicate()[1])
    server.profiles = read(output)
    assert server.profiles, server.stderr


def read(output: Path) -> list[pprof.Profile]:
    """All profiles of a directory."""
    return [pprof.read(str(path)) for path in sorted(output.glob("*.pb.gz"))]


def gunicorn(*options: str) -> Callable[[socket.socket], Sequence[str]]:
    return lambda listener: ["-m", "gunicorn", "-b", f"fd://{listener.fileno()}", *options, "application"]


def uvicorn(*options: str) -> Callable[[socket.socket], Sequence[str]]:
    fixed = ["--log-level", "warning", "--lifespan", "auto"]
    return lambda listener: [
        *("-m", "uvicorn", "--fd", str(listener.fileno()), *fixed, *options, "application:application")
    ]


class Labelled(NamedTuple):
    labels: Mapping[str, str]
    frames: frozenset[str]
    value: int


def samples(profiles: Sequence[pprof.Profile], sample_type: str = "cpu") -> Iterator[Labelled]:
    """The samples of all, but for those with no value."""
    for profile in profiles:
        index = profile.sample_type_index(sample_type)
        for sample in profile.samples:
            if sample.values[index]:
                yield Labelled(
                    {label.key: label.value for label in sample.labels if isinstance(label.value, str)},
                    frozenset(name for location in sample.locations for name in location.names()),
                    sample.values[index],
                )


def by_label(profiles: Sequence[pprof.Profile], key: str, sample_type: str = "cpu") -> Counter[str]:
    """The sums of a label's values; "" for samples without it."""
    sums: Counter[str] = Counter()
    for sample in samples(profiles, sample_type):
        sums[sample.labels.get(key, "")] += sample.value
    return sums


def labels_of(profiles: Sequence[pprof.Profile], frame: str, *keys: str) -> set[tuple[str | None, ...]]:
    """What samples with this frame have for labels, CPU and wall time.

    Labels that are changed while they are read are not told, rather than wrong: that none are there counts
    from 0.5 % of the frame's time on, a single sample with others than its own does always.
    """
    found: set[tuple[str | None, ...]] = set()
    for kind in ("cpu", "wall"):
        times: Counter[tuple[str | None, ...]] = Counter()
        for sample in samples(profiles, kind):
            if frame in sample.frames:
                times[tuple(map(sample.labels.get, keys))] += sample.value
        found |= {told for told in times if any(told) or times[told] > 0.005 * times.total()}
    return found


def assert_shares(profiles: Sequence[pprof.Profile], key: str, truth: Mapping[str, float]) -> None:
    """Of the CPU time of all values in `truth`, each has its share, within 3 points."""
    measured = by_label(profiles, key)
    total, whole = sum(measured[value] for value in truth), sum(truth.values())
    shares = {value: (measured[value] / total, part / whole) for value, part in truth.items()}
    assert all(abs(got - true) < 0.03 for got, true in shares.values()), (shares, measured, truth)


def free_port() -> int:
    """For those who cannot be handed a listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"no {what} within {seconds} s"
        time.sleep(0.05)
