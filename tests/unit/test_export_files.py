"""Profiles as files: names, wholeness, merging, and what a full or closed disk is called."""

import errno
import gzip
import os
import tempfile
import time
from pathlib import Path

import pytest

from pyprof import _native, pprof
from pyprof.cli.gather import Gathered
from pyprof.export import files
from pyprof.export.files import DirectoryTarget, FileTarget, file_name, is_file
from pyprof.export.series import COMBINED, Series

START = 1_700_000_000_123_456_789


def series(cpu_ns: int = 10_000_000, start_ns: int = START) -> Series:
    window = _native.Window()
    window.add([("work", "/srv/app.py", 1, 2)], samples=1, cpu_ns=cpu_ns, wall_ns=cpu_ns)
    data = window.encode(
        [("samples", "count", _native.SAMPLES), ("cpu", "nanoseconds", _native.CPU_NS)],
        period_type=("cpu", "nanoseconds"),
        period=10_000_000,
    )
    return Series(COMBINED, {"service_name": "shop"}, data, start_ns, 10_000_000_000)


def soon() -> float:
    return time.monotonic() + 30


def total(path: Path) -> int:
    return pprof.read(path).total("cpu")


def test_names_are_safe_and_sort_by_time():
    assert file_name("shop", 7, START) == "shop-7-20231114T221320.123Z.pb.gz"
    assert file_name("../a b/ü", 7, START).startswith("_a_b__-7-")
    assert file_name("..", 7, START).startswith("python-7-")
    assert file_name("-rf", 7, START).startswith("rf-7-")
    assert len(file_name("x" * 5000, 7, START)) < 150
    assert file_name("shop", 7, START, 1) == "shop-7-20231114T221320.123Z_001.pb.gz"
    made = [file_name("s", 7, START + ms * 1_000_000, number) for ms in (0, 1) for number in (0, 1, 10)]
    assert made == sorted(made)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("x.pb.gz", True),
        ("x.pprof", True),
        ("x.pb", True),
        ("profiles", False),
        ("profiles/", False),
        ("a.b/c", False),
    ],
)
def test_file_or_directory_by_name(output, expected):
    assert is_file(output) is expected


def test_an_existing_directory_is_one_whatever_its_name(tmp_path):
    (tmp_path / "x.pb.gz").mkdir()
    assert not is_file(str(tmp_path / "x.pb.gz"))


def test_directory_gets_one_file_an_interval(tmp_path):
    directory = tmp_path / "profiles"
    target = DirectoryTarget(str(directory))
    assert target.prepare().ok
    assert directory.is_dir()
    outcomes = [target.send([series(n, START + n * 10**9)], soon()) for n in (1, 2)]
    assert all(o.ok for o in outcomes)
    written = sorted(directory.iterdir())
    assert [p.name for p in written] == [
        f"shop-{os.getpid()}-20231114T221321.123Z.pb.gz",
        f"shop-{os.getpid()}-20231114T221322.123Z.pb.gz",
    ]
    assert [total(p) for p in written] == [1, 2]
    assert outcomes[0].bytes == written[0].stat().st_size


def test_windows_of_one_millisecond_have_a_file_each(tmp_path):
    """Of one process, over restarts. Seen to fail: the later one replaced the earlier one."""
    for n in (1, 2, 4):
        assert DirectoryTarget(str(tmp_path)).send([series(n, START + n)], soon()).ok
    written = sorted(tmp_path.iterdir())
    name = f"shop-{os.getpid()}-20231114T221320.123Z"
    assert [p.name for p in written] == [f"{name}.pb.gz", f"{name}_001.pb.gz", f"{name}_002.pb.gz"]
    assert [total(p) for p in written] == [1, 2, 4]


def test_a_name_is_nobody_else_s_while_its_file_is_written(tmp_path, monkeypatch):
    """Another container's process of the same pid. Seen to fail with a temporary name of one's own."""
    lexists = os.path.lexists

    def and_then_comes_the_other(path):
        monkeypatch.setattr(os.path, "lexists", lexists)
        found = lexists(path)
        assert DirectoryTarget(str(tmp_path)).send([series(2)], soon()).ok
        return found

    monkeypatch.setattr(os.path, "lexists", and_then_comes_the_other)
    assert DirectoryTarget(str(tmp_path)).send([series(1)], soon()).ok
    assert [total(p) for p in sorted(tmp_path.iterdir())] == [1, 2]


def test_a_run_knows_all_files_of_a_process_by_their_names(tmp_path):
    """Seen to fail with a pattern that ends at the time: the second of a millisecond was another process."""
    gathered = Gathered(str(tmp_path))
    for n in (1, 2, 4, 8):
        assert DirectoryTarget(str(tmp_path)).send([series(n, START + n // 4 * 10**9)], soon()).ok
    assert len(gathered.files()) == 4
    assert gathered.keep_one_a_process() == 1
    [path] = tmp_path.iterdir()
    assert (path.name, total(path)) == (file_name("shop", os.getpid(), START), 15)


def test_a_directory_that_went_away_comes_back(tmp_path):
    target = DirectoryTarget(str(tmp_path / "profiles"))
    target.prepare()
    (tmp_path / "profiles").rmdir()
    assert target.send([series()], soon()).ok


def test_a_relative_output_stays_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directory, file = DirectoryTarget("profiles"), FileTarget("x.pb.gz")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert directory.send([series()], soon()).ok
    assert file.send([series()], soon()).ok
    assert (tmp_path / "x.pb.gz").exists()
    assert len(list((tmp_path / "profiles").iterdir())) == 1


@pytest.mark.parametrize("suffix", [".pb.gz", ".pprof", ".pb"])
def test_one_file_holds_all_windows(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"an older run's")
    os.utime(path, (1, 1))
    target = FileTarget(str(path))
    assert target.prepare().ok
    for n in (1, 2, 4):
        assert target.send([series(n, START + n)], soon()).ok
    assert total(path) == 7
    assert path.read_bytes().startswith(b"\x1f\x8b") is (suffix != ".pb")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_restart_goes_on_with_the_file(tmp_path):
    path = tmp_path / "x.pb.gz"
    for n in (1, 2, 4):
        assert FileTarget(str(path)).send([series(n)], soon()).ok
    assert [total(p) for p in tmp_path.iterdir()] == [7]
    path.unlink()
    assert FileTarget(str(path)).send([series(8)], soon()).ok
    assert total(path) == 8


def test_a_file_of_another_process_is_left_alone(tmp_path, run_python):
    """Of a parent or child with the same environment, whichever writes first. Seen to fail: one was lost."""
    output = tmp_path / "x.pb.gz"
    environment = {"PYPROF_ENABLED": "1", "PYPROF_OUTPUT": str(output)}
    program = """
import subprocess, sys, time
def burn():
    end = time.thread_time() + 0.2
    while time.thread_time() < end: pass
burn()
if len(sys.argv) > 1:
    import pyprof
    assert not sys.argv[1:] == ["parent first"] or pyprof.flush()
    subprocess.run([sys.executable, "-c", sys.stdin.read()], check=True)
"""
    for case in ("parent first", "child first"):
        for file in tmp_path.iterdir():
            file.unlink()
        run_python(program, case, stdin=program, check=True, env=environment)
        written = list(tmp_path.iterdir())
        assert len(written) == 2
        assert output in written
        for path in written:
            assert 0.2e9 <= total(path) < 0.4e9, (case, path, total(path))


# The process that runs the tests has threads of its own, whatever ours do.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_writes_beside_its_parent_s_file(tmp_path):
    target = FileTarget(str(tmp_path / "x.pb.gz"))
    assert target.send([series(1)], soon()).ok
    child = os.fork()
    if child == 0:
        code = 1
        try:
            target.after_fork_child()
            code = 0 if all(target.send([series(n)], soon()).ok for n in (2, 4)) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert target.send([series(8)], soon()).ok
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["x.pb.gz", f"x.{child}.pb.gz"])
    assert (total(tmp_path / "x.pb.gz"), total(tmp_path / f"x.{child}.pb.gz")) == (9, 6)


@pytest.mark.parametrize("make", [DirectoryTarget, FileTarget])
def test_missing_parent_is_one_clear_refusal(tmp_path, make):
    for output in (tmp_path / "missing" / "x.pb.gz", tmp_path / "missing" / "x"):
        if is_file(str(output)) is (make is FileTarget):
            target = make(str(output))
            for outcome in (target.prepare(), target.send([series()], soon())):
                assert not outcome.ok
                assert outcome.reason == "option output: the directory does not exist"


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "profiles").write_text("")
    target = DirectoryTarget(str(tmp_path / "profiles"))
    for outcome in (target.prepare(), target.send([series()], soon())):
        assert "is not a directory" in outcome.reason
    below = FileTarget(str(tmp_path / "profiles" / "x.pb.gz"))
    for outcome in (below.prepare(), below.send([series()], soon())):
        assert "is not a directory" in outcome.reason


READ_ONLY = """
import os, sys, time
from pyprof.export.files import DirectoryTarget, FileTarget
from pyprof.export.series import Series
series = Series("profile", {}, bytes.fromhex(sys.argv[3]), 1, 1)
opened = sys.argv[2]
for target in (DirectoryTarget(opened), FileTarget(opened + "/x.pb")):  # loads what another user may not
    assert target.send([series], time.monotonic() + 30).ok
if os.getuid() == 0:
    os.setuid(65534)
closed = sys.argv[1]
for target in (DirectoryTarget(closed), DirectoryTarget(closed + "/new"), FileTarget(closed + "/x.pb.gz")):
    for outcome in (target.prepare(), target.send([series], time.monotonic() + 30)):
        print(outcome.ok, outcome.reason)
"""


def test_a_read_only_directory_is_one_clear_refusal(run_python):
    with tempfile.TemporaryDirectory() as place:  # pytest's own are closed to the user that root becomes
        Path(place).chmod(0o755)
        closed = Path(place, "closed")
        closed.mkdir(mode=0o555)
        root = str(Path(files.__file__).parents[2])
        arguments = [str(closed), str(Path(place, "open")), series().pprof.hex()]
        done = run_python(READ_ONLY, *arguments, env={"PYTHONPATH": root}, check=True)
    assert done.stdout.splitlines() == ["False option output: it is not writable (permission denied)"] * 6


@pytest.mark.parametrize("make", [DirectoryTarget, FileTarget])
@pytest.mark.parametrize(
    ("number", "cause"), [(errno.EROFS, "read-only file system"), (errno.EPERM, "not permitted")]
)
def test_why_nothing_can_be_written_is_known_before(tmp_path, monkeypatch, make, number, cause):
    """Of read-only mounts and immutable directories, where access() says no more than no, to root too.

    Seen to fail with its no taken for EACCES: two errors, the first with the wrong cause.
    """
    output = tmp_path / ("x.pb.gz" if make is FileTarget else "profiles")
    if make is DirectoryTarget:
        output.mkdir()
    import builtins

    real_open = builtins.open

    def on_read_only_disk(name, mode="r", *arguments, **keywords):
        if "x" in mode:
            raise OSError(number, os.strerror(number), name)
        return real_open(name, mode, *arguments, **keywords)

    target = make(str(output))
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        patch.setattr(builtins, "open", on_read_only_disk)
        outcomes = [target.prepare(), target.send([series()], soon())]
    assert [o.reason for o in outcomes] == [f"option output: it is not writable ({cause})"] * 2
    assert outcomes[0].cause == outcomes[1].cause, "logged once"


@pytest.mark.parametrize("name", ["profiles", "x.pb.gz"])
def test_what_access_is_wrong_about_is_found_out_and_leaves_nothing(tmp_path, monkeypatch, name):
    monkeypatch.setattr(os, "access", lambda *_: False)
    target = (FileTarget if is_file(name) else DirectoryTarget)(str(tmp_path / name))
    assert target.prepare().ok
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_file_that_is_read_only_itself_is_replaced(tmp_path, monkeypatch):
    """Seen to fail with a look at the file's own mode: it was called not writable, and then written."""
    monkeypatch.setattr(os, "access", lambda path, mode: os.path.isdir(path))
    target = FileTarget(str(tmp_path / "x.pb.gz"))
    for n in (1, 2):
        assert target.prepare().ok
        assert target.send([series(n)], soon()).ok
    assert total(tmp_path / "x.pb.gz") == 3


def test_a_link_is_judged_by_where_it_leads(tmp_path):
    (tmp_path / "x.pb.gz").symlink_to("missing/x.pb.gz")
    target = FileTarget(str(tmp_path / "x.pb.gz"))
    for outcome in (target.prepare(), target.send([series()], soon())):
        assert outcome.reason == "option output: the directory does not exist"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_disk_full_leaves_no_half_file_and_nothing_is_lost(tmp_path, monkeypatch):
    """The temporary file's device is full: the same error that a write gets on a full disk."""
    path = tmp_path / "x.pb.gz"
    target = FileTarget(str(path))
    assert target.send([series(1)], soon()).ok
    whole = path.read_bytes()
    directory = DirectoryTarget(str(tmp_path / "profiles"))
    assert directory.prepare().ok
    import builtins

    real_open = builtins.open

    def on_full_disk(name, mode="r", *arguments, **keywords):
        if "x" in mode:
            real_open(name, mode).close()
            return real_open("/dev/full", "wb")
        return real_open(name, mode, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", on_full_disk)
        for one in (target, directory):
            outcome = one.send([series(2)], soon())
            assert (outcome.ok, outcome.retriable) == (False, True)
            assert outcome.reason == "option output: no space is left on the device"
    assert path.read_bytes() == whole
    assert list((tmp_path / "profiles").iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["profiles", "x.pb.gz"]
    assert target.send([series(4)], soon()).ok
    assert total(path) == 5, "the window that was refused was counted as lost, not merged"


def test_cut_writes_nothing(tmp_path):
    target = FileTarget(str(tmp_path / "x.pb.gz"))
    target.cut()
    assert target.send([series()], soon()).cut
    assert list(tmp_path.iterdir()) == []
    target.resume()
    assert target.send([series()], soon()).ok


def test_errno_names():
    for number in (errno.EROFS, errno.ENAMETOOLONG, errno.EIO):
        outcome = files._failure(OSError(number, os.strerror(number)))
        assert outcome.reason.startswith("option output: ")
        assert outcome.reason.isprintable()


def test_written_gzip_is_plain_gzip(tmp_path):
    target = DirectoryTarget(str(tmp_path))
    one = series()
    assert target.send([one], soon()).ok
    [path] = tmp_path.iterdir()
    assert gzip.decompress(path.read_bytes()) == one.pprof


def test_what_can_be_an_output_can_be_saved():
    from pyprof.export.files import SUFFIXES
    from pyprof.pprof.save import PPROF

    assert sorted(SUFFIXES) == sorted(PPROF)
