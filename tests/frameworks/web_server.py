"""A web server under test, in a process of its own on a listener of the test's."""

import http.client
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..conftest import clean_environment
from .app import BURN
from .processes import Process, processes

HERE = Path(__file__).parent
STARTS = {"by code": {"BY_CODE": "1"}, "autostart": {"PYPROF_ENABLED": "1"}}


class WebServer:
    """One that runs `app.py`."""

    def __init__(self, process: "subprocess.Popen[str]", listener: socket.socket) -> None:
        self._process = process
        self._listener = listener

    def get(self, path: str, timeout: float = 30) -> int:
        """The pid that the answer names. The first one waits until the server is up, nobody has to poll."""
        connection = http.client.HTTPConnection(*self._listener.getsockname(), timeout=timeout)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            assert response.status == 200
            return int(response.read())
        finally:
            connection.close()

    def end(self, number: int = signal.SIGTERM) -> int:
        """The exit status after a signal. What it has said shows nothing of pyprof's, and no warning."""
        self._process.send_signal(number)
        _, stderr = self._process.communicate(timeout=60)
        assert "pyprof:" not in stderr, stderr
        return self._process.returncode


@contextmanager
def serving(command: Sequence[str], output: Path, environ: Mapping[str, str]) -> Iterator[WebServer]:
    """The server of a command in which "{fd}" is the listener, its profiles written at the end only."""
    options = {"PYPROF_OUTPUT": str(output), "PYPROF_UPLOAD_INTERVAL": "600", "PYPROF_EXIT_TIMEOUT": "20"}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [word.format(fd=listener.fileno()) for word in command],
            cwd=HERE,
            env=clean_environment({**options, "PYTHONDONTWRITEBYTECODE": "1", **environ}),
            pass_fds=[listener.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield WebServer(process, listener)
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


def assert_worked(process: Process, role: str, seconds: float = BURN) -> None:
    """All of it is there, once. CPU time just before it may be placed at its first tick."""
    assert process.roles == {role}
    assert process.seconds("burn") == pytest.approx(seconds, abs=0.1 * seconds + 0.07)


def assert_profiles(output: Path, workers: Mapping[int, float], child: int, masters: int) -> None:
    """workers: seconds by pid, of those that have worked. Others may be there. masters: how many."""
    found = processes(output)
    for pid, seconds in workers.items():
        assert_worked(found[pid], "worker", seconds)
    assert_worked(found[child], "child")
    main = [process for process in found.values() if process.roles == {"main"}]
    assert len(main) == masters
    assert [process.seconds("burn") for process in main] == [0] * masters, "windows are not inherited"
