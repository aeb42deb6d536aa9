"""Starts that cannot be: wrong options, no threads, no Linux, nowhere to write to.

Seen to fail, each with one line changed: arguments unchecked, a repr taken as it is, a warning left out,
`strict` ignored, a repr of the whole configuration: their tests; every failure logged:
`test_a_read_only_output_…`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pyprof
from pyprof import _native
from pyprof.config import OPTIONS, Config, Option

from .conftest import WORK


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


class Long:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


@pytest.mark.parametrize(
    "value",
    [
        Long("Matrix([[1, 2],\n        [3, 4]])"),
        Long("\r\n\x1b[31m\u2028" * 1000),
        type("Two\nlines", (), {"__repr__": None})(),
        type("Endless" * 1000, (), {"__repr__": None})(),
    ],
    ids=["line break", "control characters", "name of a type", "long name of a type"],
)
def test_what_is_said_of_a_wrong_argument_is_one_line(value: object) -> None:
    for option in OPTIONS:
        with pytest.raises(ValueError, match=f"^{option.name} ") as refusal:
            pyprof.start(**{option.name: value})
        assert str(refusal.value).isprintable()
        assert len(str(refusal.value)) < 1000


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
pyprof.start(exporter="none", sample_rate=1000, max_overhead=1)
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
pyprof.start(output=sys.argv[1], upload_interval=0.1, sample_rate=1000, max_overhead=1)
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
