"""Start, stop, flush and stats: in any order, from any thread, whatever the server and the options are.

What could hang is a process with a time-out. Times are bounds that a hang exceeds, not measurements.

Seen to fail, each with one line changed:
- `start` without a look at `_current.running`: `test_a_second_start_…`; with a lock that locks nothing:
  `test_everything_from_many_threads_at_once`;
- `Profiler.stop` leaves the exporter, or the timer: `test_stop_during_…`, `test_start_and_stop_many_times`;
- the exit's `stop` with 60 s instead of `exit_timeout`, or not registered: `test_the_exit_takes_…`;
- `take` looks at `_discards` before it waits only: `test_stop_without_flush_…`, now and then;
- counters that begin anew at a restart: `test_stats_…`; `flush` counts losses after `rotate`:
  `test_flush_says_…`, mostly; every failure logged: `test_a_read_only_output_…`;
- arguments unchecked, a warning left out, `strict` ignored, a repr of the whole configuration: their tests;
- `import socket` on top of `profiler`, `ssl` in `export.pyroscope`: `test_what_is_heavy_…`;
- a hook, a signal handler, a thread or a patched `os.fork` at import: `test_an_import_changes_nothing`;
- a signal handler in `start`: `test_a_stop_undoes_…`; a module `pyprof/profile.py`: `test_no_submodule_…`.
"""

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import pyprof
from pyprof import _native, pprof
from pyprof.config import OPTIONS, Config, Option

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="profiling is for Linux")

WORK = """
import json, os, socket, sys, threading, time
import pyprof
from pyprof import _native

def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(100))

def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, pyprof.stats()
        burn(0.002)

def tasks():
    return len(os.listdir("/proc/self/task"))
"""


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level("DEBUG", logger="pyprof")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "pyprof"]


@pytest.fixture
def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        return f"http://127.0.0.1:{gone.getsockname()[1]}"


@pytest.fixture
def server() -> Iterator[Callable[..., str]]:
    """A server with one behaviour on each connection; its URL."""
    ended = threading.Event()
    threads: list[threading.Thread] = []
    listeners: list[socket.socket] = []

    def talk(connection: socket.socket, behaviour: str) -> None:
        with closing(connection):
            try:
                request = b""
                while b"\r\n\r\n" not in request:
                    piece = connection.recv(65536)
                    if not piece:
                        return
                    request += piece
                if behaviour == "garbage":
                    connection.sendall(b"\xff\x00what?\r\n\r\n" * 10)
                elif behaviour == "silent":
                    ended.wait(120)
                elif behaviour == "dripping":
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                    while not ended.wait(0.05):
                        connection.sendall(b"x")
                else:
                    head, _, body = request.partition(b"\r\n\r\n")
                    length = next(
                        int(line.split(b":")[1])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-length")
                    )
                    while len(body) < length:
                        body += connection.recv(65536)
                    ended.wait(0.3 if behaviour == "slow" else 0)
                    connection.sendall(
                        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n"
                        b"Content-Type: application/proto\r\n\r\n{}"
                    )
            except OSError:
                pass  # the client has gone

    def accept(listener: socket.socket, behaviour: str) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=talk, args=(connection, behaviour))
            threads.append(thread)
            thread.start()

    def serve(behaviour: str = "answers") -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        thread = threading.Thread(target=accept, args=(listener, behaviour))
        threads.append(thread)
        thread.start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    ended.set()
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


# Start and stop


def test_start_and_stop_many_times(run_python: Any) -> None:
    program = (
        WORK
        + """
before = 0
for n in range(30):
    profiler = pyprof.start(exporter="none", sample_rate=1000)
    assert pyprof.is_running() and profiler.running
    until(lambda: pyprof.stats().ticks > before)
    pyprof.stop(flush=n % 2 == 0)
    assert not pyprof.is_running() and not profiler.running
    assert _native.own_threads() == 0 and tasks() == 1
    before = pyprof.stats().ticks
pyprof.stop()
pyprof.stop()
"""
    )
    assert run_python(program, check=True).stderr == ""


def test_a_second_start_is_one_profiler_and_one_warning(messages: Callable[[], list[str]]) -> None:
    first = pyprof.start("one", exporter="none", sample_rate=50)
    try:
        threads = _native.own_threads()
        assert threads == 1
        assert pyprof.start("two", exporter="none", sample_rate=500) is first
        assert (first.config.service_name, first.config.sample_rate) == ("one", 50)
        assert _native.own_threads() == threads
        assert len(messages()) == 1
        assert "runs already" in messages()[0]
    finally:
        pyprof.stop(flush=False)
    assert _native.own_threads() == 0
    third = pyprof.start("three", exporter="none")
    pyprof.stop(flush=False)
    assert third is not first
    assert len(messages()) == 1


def test_everything_from_many_threads_at_once(run_python: Any, server: Callable[..., str]) -> None:
    program = (
        WORK
        + """
import logging
logging.getLogger("pyprof").addHandler(logging.NullHandler())
logging.getLogger("pyprof").propagate = False
actions = [
    lambda: pyprof.start(server_url=sys.argv[1], sample_rate=1000, upload_interval=0.1, exit_timeout=0.2),
    lambda: pyprof.start(exporter="none", sample_rate=5000),
    lambda: pyprof.stop(),
    lambda: pyprof.stop(flush=False),
    lambda: pyprof.flush(0.05),
    lambda: pyprof.stats(),
    lambda: profile(),
    lambda: repr(pyprof.start(exporter="none")),
]
def profile():
    with pyprof.profile(sample_rate=3000) as p:
        burn(0.001)
    p.pprof()

errors = []
barrier = threading.Barrier(len(actions))
def work(offset):
    barrier.wait()
    for n in range(25):
        try:
            actions[(offset + n * 3) % len(actions)]()
        except BaseException as error:
            errors.append(repr(error))
threads = [threading.Thread(target=work, args=(n,)) for n in range(len(actions))]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not errors, errors
pyprof.stop()
assert not pyprof.is_running()
until(lambda: _native.own_threads() == 0 and tasks() == 1)  # one may be in the middle of its imports
before = pyprof.stats().ticks
pyprof.start(exporter="none", sample_rate=1000)
until(lambda: pyprof.stats().ticks > before)
"""
    )
    run_python(program, server(), timeout=120, check=True)


@pytest.mark.parametrize("flush", [True, False])
def test_stop_during_an_upload(flush: bool, run_python: Any) -> None:
    """The upload is cut at `exit_timeout`, or at once; a restart afterwards is as good as the first start."""
    program = (
        WORK
        + f"""
listener = socket.create_server(("127.0.0.1", 0))
options = dict(server_url="http://127.0.0.1:%d" % listener.getsockname()[1], upload_interval=0.1,
               exit_timeout=0.5, timeout=120)
for _ in range(2):
    pyprof.start(**options)
    connection, _ = listener.accept()
    assert connection.recv(1)
    begin = time.monotonic()
    pyprof.stop(flush={flush})
    assert time.monotonic() - begin < 10
    assert not pyprof.is_running() and _native.own_threads() == 0 and tasks() == 1
    assert pyprof.stats().uploads == 0
    if {flush}: assert pyprof.stats().undelivered > 0
    connection.close()
"""
    )
    run_python(program, check=True)


def test_stop_without_flush_delivers_nothing(tmp_path: Path) -> None:
    for flush, files in [(False, 0)] * 10 + [(True, 1)]:
        pyprof.start(output=str(tmp_path / "out"), sample_rate=1000)
        sum(range(3_000_000))
        pyprof.stop(flush=flush)
        assert len(list((tmp_path / "out").iterdir())) == files


# Stats and flush


def test_stats_before_during_and_after(run_python: Any, server: Callable[..., str]) -> None:
    program = (
        WORK
        + """
stats = pyprof.stats()
assert not stats.running and stats.engine == "current_frames"
assert stats.ticks == stats.stacks == stats.windows == stats.uploads == stats.uploaded_bytes == 0
assert not pyprof.flush()
pyprof.start(server_url=sys.argv[1], sample_rate=1000)
burn(0.05)
assert pyprof.flush(60)
during = pyprof.stats()
assert during.running and during.ticks >= 20 and during.stacks >= 1 and during.threads >= 1
assert during.windows == 1 and during.uploaded_bytes > 100 and during.upload_failures == 0
assert during.uploads == 1 and during.undelivered == during.files_written == during.dropped_windows == 0
assert 0 < during.own_cpu_ns < 60e9 and 0 < during.own_bytes < 100e6
pyprof.stop()
after = pyprof.stats()
assert not after.running and after.ticks >= during.ticks and after.uploads >= during.uploads
pyprof.start(exporter="none", sample_rate=1000)
burn(0.02)
again = pyprof.stats()
for name in "ticks stacks windows uploads uploaded_bytes own_cpu_ns".split():
    assert getattr(again, name) >= getattr(after, name), (name, after, again)
"""
    )
    assert run_python(program, server(), check=True).stderr == ""


def test_flush_says_whether_it_arrived(
    closed_port: str, server: Callable[..., str], tmp_path: Path, messages: Callable[[], list[str]]
) -> None:
    assert pyprof.flush(1) is False, "nothing runs"
    cases: list[tuple[dict[str, Any], float, bool]] = [
        ({"exporter": "none"}, 10, True),
        ({"server_url": server()}, 60, True),
        ({"output": str(tmp_path / "out")}, 60, True),
        ({"server_url": closed_port}, 60, False),
        ({"server_url": server("garbage")}, 60, False),
        ({"server_url": server("silent"), "timeout": 60}, 0.3, False),
        ({"output": str(tmp_path / "missing" / "x.pb.gz")}, 60, False),
    ]
    for options, timeout, arrives in cases:
        pyprof.start(sample_rate=1000, exit_timeout=0.1, **options)
        try:
            for _ in range(10 if "missing" in str(options) else 1):  # it fails at once, before flush can look
                sum(range(3_000_000))
                assert pyprof.flush(timeout) is arrives, (options, messages())
        finally:
            pyprof.stop(flush=False)
    [file] = (tmp_path / "out").iterdir()
    assert pprof.read(file).samples


@pytest.mark.parametrize("behaviour", ["down", "silent", "dripping", "garbage", "answers", "slow"])
def test_the_exit_takes_exit_timeout_at_most(
    behaviour: str, run_python: Any, server: Callable[..., str], closed_port: str
) -> None:
    """What answers within it gets the last profile."""
    program = (
        WORK
        + """
import atexit
moments = []
def report():
    moments.append(time.monotonic())
    if len(moments) == 2:
        stats = pyprof.stats()
        print(json.dumps([moments[1] - moments[0], stats.uploads, stats.undelivered, tasks()]))
atexit.register(report)
from pyprof.export import imports
assert imports.load("http")  # seconds on a busy machine, and nothing can cut them
pyprof.start(server_url=sys.argv[1], exit_timeout=float(sys.argv[2]), timeout=120, upload_interval=3600)
atexit.register(report)
burn(0.05)
sys.exit(3)
"""
    )
    good = behaviour in ("answers", "slow")
    url = closed_port if behaviour == "down" else server(behaviour)
    result = run_python(program, url, "30" if good else "0.5")
    assert result.returncode == 3, result.stderr
    seconds, uploads, undelivered, tasks = json.loads(result.stdout)
    if behaviour != "dripping":  # whose first line says that all is well
        assert (uploads, undelivered) == ((1, 0) if good else (0, 1))
    assert seconds < (30 if good else 10)
    assert tasks == 1
    assert len(result.stderr.splitlines()) <= (0 if good else 2), result.stderr
    assert "Traceback" not in result.stderr


# Options


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_a_wrong_argument_is_a_value_error_that_names_it(option: Option, tmp_path: Path) -> None:
    arguments = {"output": str(tmp_path), option.name: []}
    with pytest.raises(ValueError, match=f"^{option.name} "):
        pyprof.start(**arguments)
    assert not pyprof.is_running()
    assert _native.own_threads() == 0


def test_an_unknown_argument_is_a_value_error_that_names_it() -> None:
    with pytest.raises(ValueError, match=r"unknown option 'sampel_rate'.*sample_rate"):
        pyprof.start(sampel_rate=5)
    with pytest.raises(ValueError, match=r"^service_name "):
        pyprof.start(5)  # type: ignore[arg-type]
    assert not pyprof.is_running()


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.name != "output"], ids=lambda option: option.name)
def test_a_wrong_variable_is_one_warning_and_the_default(
    option: Option, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, messages: Callable[[], list[str]]
) -> None:
    """But for `output`: any path that the environment can hold is one."""
    monkeypatch.setenv(option.variable, "\x01\x7f")
    profiler = pyprof.start(output=str(tmp_path / "out"))
    pyprof.stop(flush=False)
    assert len(messages()) == 1
    assert option.variable in messages()[0]
    assert "default" in messages()[0]
    assert getattr(profiler.config, option.name) == getattr(Config(output="out"), option.name)


def test_secrets_are_in_no_repr(closed_port: str) -> None:
    secret = "hunter2-4f1c"
    options: list[dict[str, Any]] = [
        {"auth_token": secret, "headers": {"X-Key": secret}},
        {"basic_auth_user": "user", "basic_auth_password": secret},
        {"server_url": closed_port.replace("//", f"//user:{secret}@")},
    ]
    for each in options:
        profiler = pyprof.start("shop", **{"server_url": closed_port, **each})
        shown = [repr(profiler), str(profiler), f"{profiler}", repr(profiler.config), repr(pyprof.stats())]
        shown += [repr(profiler.exporter), repr([profiler])]
        pyprof.stop(flush=False)
        shown.append(repr(profiler))
        assert "shop" in shown[0]
        assert "running" in shown[0]
        assert "stopped" in shown[-1]
        assert secret not in " ".join(shown)


def test_where_profiling_is_impossible(
    monkeypatch: pytest.MonkeyPatch, messages: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr(_native, "SUPPORTED", False)
    profiler = pyprof.start(exporter="none")
    assert (profiler.running, pyprof.is_running(), _native.own_threads()) == (False, False, 0)
    assert len(messages()) == 1
    assert "nothing is profiled" in messages()[0]
    with pytest.raises(RuntimeError, match=r"^pyprof: "):
        pyprof.start(exporter="none", strict=True)
    with pytest.raises(RuntimeError, match="Linux"), pyprof.profile():
        pass


def test_where_no_thread_can_be_had(run_python: Any) -> None:
    """A limit on memory leaves no room for a thread's stack; without it all is as it should be."""
    program = (
        WORK
        + """
import resource, warnings, logging, difflib
before = resource.getrlimit(resource.RLIMIT_AS)
size = int(open("/proc/self/statm").read().split()[0]) * 4096
blocks = [bytearray(1 << 16) for _ in range(64)]
def limited(**options):
    resource.setrlimit(resource.RLIMIT_AS, (size, before[1]))
    try:
        return pyprof.start(exporter="none", **options)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
del blocks
profiler = limited()
assert not profiler.running and not pyprof.is_running() and tasks() == 1
try:
    limited(strict=True)
except RuntimeError as error:
    print("raised", error)
assert not pyprof.is_running() and tasks() == 1
pyprof.start(exporter="none", sample_rate=1000)
until(lambda: pyprof.stats().ticks > 3)
pyprof.stop()
assert tasks() == 1
"""
    )
    result = run_python(program, check=True)
    assert result.stdout.startswith("raised pyprof: not started: ")
    [line] = result.stderr.splitlines()
    assert line.startswith("pyprof: not started: ")


@pytest.mark.parametrize("output", ["out", "out/x.pb.gz"])
def test_a_read_only_output_is_one_error_and_the_program_goes_on(
    output: str, run_python: Any, tmp_path: Path
) -> None:
    program = (
        WORK
        + """
import ctypes
class Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]
if os.geteuid() == 0:  # root writes anywhere, but for its capabilities
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capset(ctypes.byref(Header(0x20080522, 0)), (ctypes.c_uint32 * 6)()) == 0
pyprof.start(output=sys.argv[1], upload_interval=0.1, sample_rate=1000)
until(lambda: pyprof.stats().undelivered >= 3)
assert pyprof.is_running() and not pyprof.flush()
assert pyprof.stats().files_written == 0
print("done")
"""
    )
    (tmp_path / "out").mkdir(mode=0o555)
    result = run_python(program, str(tmp_path / output), check=True)
    assert result.stdout == "done\n"
    [line] = [line for line in result.stderr.splitlines() if "lost: the time" not in line]
    assert "output" in line
    assert "permission denied" in line
    assert list((tmp_path / "out").iterdir()) == []


# What an import does, and does not


def test_no_submodule_bears_the_name_of_a_public_function(run_python: Any) -> None:
    """`pyprof.profile` is the function for good, whatever is imported afterwards."""
    program = """
import ast, importlib, pkgutil, sys, types
import pyprof
for module in pkgutil.walk_packages(pyprof.__path__, "pyprof."):
    if module.name != "pyprof.autostart.sitecustomize":  # not a module of the package: it ends up elsewhere
        importlib.import_module(module.name)
assert len([name for name in sys.modules if name.startswith("pyprof.")]) > 30
for name in pyprof.__all__:
    assert not isinstance(getattr(pyprof, name), types.ModuleType), name
    assert f"pyprof.{name}" not in sys.modules, name
for statement in ast.parse(open(pyprof.__file__).read()).body:
    if isinstance(statement, ast.ImportFrom):
        source = sys.modules["pyprof." + statement.module]
        for alias in statement.names:
            assert getattr(pyprof, alias.name) is getattr(source, alias.name), alias.name
functions = {"flush", "is_running", "profile", "start", "stats", "stop"}
for name in pyprof.__all__:
    value = getattr(pyprof, name)
    kind = types.FunctionType if name in functions else str if name == "__version__" else type
    assert type(value) is kind, (name, value)
    assert kind is str or value.__name__ == name, (name, value)
assert functions <= set(pyprof.__all__)
"""
    assert run_python(program, check=True).stderr == ""


HEAVY = """
import sys
before = set(sys.modules)
def loaded():
    heavy = {"google", "requests", "wrapt", "greenlet", "gevent", "urllib3", "ssl", "_ssl", "socket",
             "_socket", "asyncio", "logging", "threading", "dataclasses", "inspect", "http", "email",
             "concurrent", "pathlib"}
    return sorted({name.split(".")[0] for name in set(sys.modules) - before} & heavy)
"""


@pytest.mark.parametrize(
    "how",
    [
        "import pyprof",
        "import pyprof; pyprof.start()",
        "import pyprof; pyprof.start(exporter='none')",
        "import pyprof; pyprof.start(output='out', auth_token='x')",
        "from pyprof import autostart; autostart.start(); import pyprof; assert pyprof.is_running()",
    ],
)
def test_what_is_heavy_is_not_loaded(how: str, run_python: Any, tmp_path: Path, closed_port: str) -> None:
    program = f"{HEAVY}\n{how}\nprint(*loaded(), flush=True)\nimport os; os._exit(0)"
    ours = str(Path(pyprof.__file__).parents[1])
    env = {"PYPROF__TEST": "", "PYPROF_SERVER_URL": closed_port, "PYTHONPATH": ours}
    if "autostart" in how:
        env["PYPROF_ENABLED"] = "1"
    # Without site: what its .pth files load would hide what we load, and start pyprof before we look.
    result = run_python(program, options=["-S"], env=env, cwd=tmp_path, check=True)
    assert (result.stdout, result.stderr) == ("\n", "")


UNTOUCHED = """
import atexit, builtins, os, signal, sys, _thread
{imports}
def look():
    modules = {{name: sys.modules[name] for name in looked_at}}
    state = {{
        (name, attribute): value if isinstance(value, (int, str)) else id(value)
        for name, module in modules.items() for attribute, value in vars(module).items()
        if (name, attribute) not in {{("sys", "modules"), ("sys", "path_importer_cache")}}
        and not isinstance(value, type(sys))  # a package gets its submodules as they are loaded
    }}
    state["handlers"] = [signal.getsignal(number) for number in signal.valid_signals()]
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    # But for the two signals that glibc takes for itself with a process's first thread.
    state["kernel"] = [int(status[name], 16) & ~(7 << 31) for name in ("SigCgt", "SigIgn", "SigBlk")]
    state["threads"] = os.listdir("/proc/self/task")
    state["descriptors"] = sorted(os.listdir("/proc/self/fd"))
    state["profile"] = (sys.getprofile(), sys.gettrace(), sys.getswitchinterval(), sys.flags)
    state["hooks"] = [list(map(id, hooks)) for hooks in (sys.meta_path, sys.path_hooks)] + [list(sys.path)]
    return state
looked_at = [name for name in sys.modules if not name.startswith(("pyprof", "__"))]
fork_hooks = []
real = os.register_at_fork
os.register_at_fork = lambda **hooks: (fork_hooks.append(hooks), real(**hooks))
callbacks = atexit._ncallbacks()
look()
before = look()
"""
HOST_IMPORTS = ["pass", "import threading, socket, ssl, logging, subprocess, multiprocessing.util, selectors"]


@pytest.mark.parametrize("imports", HOST_IMPORTS)
def test_an_import_changes_nothing(imports: str, run_python: Any) -> None:
    program = (
        UNTOUCHED.format(imports=imports)
        + """
import pyprof
after = look()
changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
assert not changed, {key: (before.get(key), after.get(key)) for key in changed}
assert fork_hooks == [] and atexit._ncallbacks() == callbacks
pid = os.fork()
if pid == 0:
    os._exit(0 if os.listdir("/proc/self/task") == [str(os.getpid())] else 1)
assert os.waitpid(pid, 0)[1] == 0
"""
    )
    assert run_python(program, check=True, options=["-W", "error"]).stderr == ""


@pytest.mark.parametrize("imports", HOST_IMPORTS)
def test_a_stop_undoes_a_start(imports: str, run_python: Any) -> None:
    """But for the one registration of hooks, which then do nothing, and modules that stay loaded."""
    program = (
        UNTOUCHED.format(imports=imports)
        + """
import pyprof
for _ in range(3):
    pyprof.start(exporter="none", sample_rate=1000)
    sum(range(2_000_000))
    pyprof.stop()
after = look()
changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
assert not changed, {key: (before.get(key), after.get(key)) for key in changed}
assert len(fork_hooks) <= 2 and atexit._ncallbacks() <= callbacks + 1
"""
    )
    assert run_python(program, check=True, options=["-W", "error"]).stderr == ""
