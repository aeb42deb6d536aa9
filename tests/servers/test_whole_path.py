"""A profiled program and its server: what arrives, and that no server delays the program or its end.

The programs allow an upload ten minutes; the bounds asserted are a small part of that, far above the second
that `exit_timeout` gives, so that only a missing bound fails.
"""

import json
import socket
import time
from pathlib import Path

import pytest

import pyprof
from pyprof import pprof

pytestmark = pytest.mark.server

ROOT = str(Path(pyprof.__file__).parents[1])

PROGRAM = """
import json, sys, time
import pyprof

def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(200))

options = json.loads(sys.argv[1])
pyprof.start(service_name="burner", timeout=600, exit_timeout=1, **options)
burn(0.5)
how = sys.argv[2]
begin = time.monotonic()
if how == "flush":
    print("flushed", pyprof.flush(0.5))
    print("bounded", time.monotonic() - begin < 30)
elif how == "stop":
    pyprof.stop()
    print("bounded", time.monotonic() - begin < 30)
    stats = pyprof.stats()
    print("counted", stats.uploads + stats.undelivered > 0)
elif how == "no flush":
    pyprof.stop(flush=False)
    print("bounded", time.monotonic() - begin < 30)
elif how == "error":
    raise SystemExit(7)
"""


@pytest.fixture
def program(run_python, tmp_path_factory):
    script = tmp_path_factory.mktemp("program") / "burner.py"
    script.write_text(PROGRAM)

    def run(options, how="exit"):
        environ = {"PYTHONPATH": ROOT}
        return run_python(script, json.dumps(options), how, env=environ, options=["-W", "error"], timeout=120)

    return run


@pytest.mark.parametrize("how", ["exit", "stop", "error"])
def test_the_last_profile_arrives(peer, program, how):
    server = peer()
    done = program({"server_url": server.url, "tags": {"region": "eu"}}, how)
    assert done.stderr == ""
    assert done.returncode == (7 if how == "error" else 0)
    [push] = server.pushes()
    kinds = {series["labels"]["__name__"]: series for series in push["series"]}
    assert set(kinds) == {"process_cpu", "wall", "memory"}
    cpu = kinds["process_cpu"]
    assert cpu["labels"] == {
        "__name__": "process_cpu",
        "service_name": "burner",
        "role": "main",
        "region": "eu",
        "pyroscope_spy": "pyspy",
    }
    assert "__main__.burn" in cpu["functions"]
    spent = dict(zip(cpu["sample_types"], cpu["totals"], strict=True))["cpu/nanoseconds"]
    assert 0.4e9 < spent < 5e9
    assert abs(cpu["time_nanos"] - time.time_ns()) < 120e9


def test_uploads_go_on_while_the_program_runs(peer, run_python):
    server = peer()
    code = """
import sys, time, pyprof
pyprof.start(server_url=sys.argv[1], upload_interval=0.2)
end = time.monotonic() + 60
while pyprof.stats().uploads < 3:
    assert time.monotonic() < end, pyprof.stats()
    time.sleep(0.01)
pyprof.stop()
assert pyprof.stats().undelivered == 0
"""
    run_python(code, server.url, env={"PYTHONPATH": ROOT}, options=["-W", "error"], check=True)
    assert len({push["connection"] for push in server.pushes()}) == 1
    starts = [push["series"][0]["time_nanos"] for push in server.pushes()]
    assert len(starts) >= 3
    assert starts == sorted(set(starts))


def silent(connection, server):
    server.read_request(connection)
    server.released.wait(300)


def dripping(connection, server):
    server.read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not server.released.wait(0.05):
        connection.sendall(b"x")


def garbage(connection, server):
    server.read_request(connection)
    connection.sendall(b"\xff\x00 what?\r\n\r\n")


def reset(connection, server):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def not_accepting(connection, server):
    server.released.wait(300)


@pytest.mark.parametrize("how", ["exit", "stop", "flush", "no flush", "error"])
@pytest.mark.parametrize("behaviour", [silent, dripping, garbage, reset, not_accepting])
def test_no_server_delays_the_end(faulty_server, program, behaviour, how):
    begin = time.monotonic()
    done = program({"server_url": faulty_server(behaviour).url, "upload_interval": 0.2}, how)
    assert time.monotonic() - begin < 60
    assert done.returncode == (7 if how == "error" else 0), done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 3, done.stderr
    assert "False" not in done.stdout.replace("flushed False", "")


def test_nobody_listening_is_one_warning_for_many_intervals(run_python):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    code = """
import sys, time, pyprof
pyprof.start(server_url=sys.argv[1], upload_interval=0.1)
end = time.monotonic() + 60
while pyprof.stats().upload_failures < 5:
    assert time.monotonic() < end, pyprof.stats()
    time.sleep(0.01)
"""
    done = run_python(code, url, env={"PYTHONPATH": ROOT}, options=["-W", "error"], check=True)
    [line] = done.stderr.splitlines()
    assert "connection refused" in line
    assert url in line


@pytest.mark.parametrize("output", ["out.pb.gz", "out"])
def test_files_without_a_server(program, tmp_path, output):
    done = program({"output": str(tmp_path / output)}, "exit")
    assert (done.returncode, done.stderr) == (0, "")
    [path] = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert 0.4e9 < pprof.read(path).total("cpu") < 5e9


def test_an_output_that_cannot_be_written_is_one_line(program, tmp_path):
    done = program({"output": str(tmp_path / "missing" / "x.pb.gz"), "upload_interval": 0.1}, "exit")
    assert done.returncode == 0
    [line] = done.stderr.splitlines()
    assert "output" in line
    assert "does not exist" in line
