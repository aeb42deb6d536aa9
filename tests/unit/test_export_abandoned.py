"""A thread that cannot be ended is left behind: what it had, and what waited for it, is counted once.

Seen to fail with `stop` returning before it counts, with a late `deliver` that counts all the same, with
failures forgotten by a delivery that is cut, and with a `log` that waits for the import of `logging`.
"""

import threading
import time

from pyprof.export.target import Outcome

from .exporting import Target

OPTION = "option exit_timeout"


class Late(Target):
    """Has its answer when the test says so, whether it is cut or not."""

    def send(self, series, deadline):
        self.sending.set()
        assert self.ended.wait(60)
        if self.error:
            raise self.error
        return self.outcome


def over(exporter):
    """Wait for the thread that was left behind."""
    deadline = time.monotonic() + 30
    while not exporter.stop(0):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def counted(s):
    counters = s.exporter.counters
    return counters.undelivered, counters.uploads, counters.upload_failures


def abandon(s):
    """Windows under way and in the ring, and a `stop` that does not get them delivered."""
    s.exporter.start()
    s.ring.push("under way", "waiting", "waiting too")
    assert s.target.sending.wait(30)
    assert not s.exporter.stop(0.1)


def test_what_is_left_behind_is_counted_and_said_once(setup, caplog):
    s = setup(Late())
    abandon(s)
    assert counted(s) == (3, 0, 0)
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("pyprof: 3 profiles lost: ")
    assert OPTION in line
    assert not s.exporter.stop(0.1)
    assert counted(s) == (3, 0, 0)
    assert len(caplog.records) == 1


def test_whatever_becomes_of_it_later_is_not_counted_again(setup):
    for outcome in (Outcome(True, bytes=1), Outcome(False, "down"), Outcome(False, cut=True), None):
        s = setup(Late())
        s.target.error = None if outcome else RuntimeError("bug")
        s.target.outcome = outcome
        abandon(s)
        s.target.ended.set()
        over(s.exporter)
        assert counted(s) == (3, 0, 0), outcome


def test_targets_that_had_their_turn_before_are_counted_as_ever(setup):
    first, second = Target("first"), Late("second")
    s = setup(first, second)
    s.exporter.start()
    s.ring.push("a")
    assert second.sending.wait(30)
    assert not s.exporter.stop(0.1)
    second.ended.set()
    over(s.exporter)
    assert counted(s) == (1, 1, 0)


def test_what_has_been_given_up_is_not_sent(setup, monkeypatch):
    """As when an import ends at last, and somebody has started the exporter again meanwhile."""
    from pyprof.export import imports

    importing, go_on = threading.Event(), threading.Event()

    def load(group):
        if group == "slow":
            importing.set()
            assert go_on.wait(60)
        return True

    monkeypatch.setattr(imports, "load", load)
    s = setup()
    s.target.imports = "slow"
    s.exporter.start()
    s.ring.push("a")
    assert importing.wait(30)
    assert not s.exporter.stop(0.1)
    s.exporter.start()
    go_on.set()
    s.ring.push("b")
    assert s.exporter.flush(30)
    assert s.delivered == [b"b"]
    assert counted(s) == (1, 1, 0)


def test_paused_and_left_behind(setup, caplog):
    """Before a fork it could not be ended either; then the program stops, with no thread to ask."""
    s = setup(Late())
    s.exporter.start()
    s.ring.push("under way", "waiting")
    assert s.target.sending.wait(30)
    assert not s.exporter.pause(0.1)
    assert not s.exporter.stop(0.1)
    s.target.ended.set()
    over(s.exporter)
    assert counted(s) == (2, 0, 0)
    assert len(caplog.records) == 1


def test_a_failure_before_an_interruption_is_not_forgotten(setup):
    """One target fails, the next is cut for a fork and has it afterwards: one did not get it."""
    first, second = Target("first"), Target("second")
    first.outcome = Outcome(False, "down", retriable=True)
    second.hang = True
    s = setup(first, second, timeout=600)
    s.exporter.start()
    s.ring.push("a")
    assert second.sending.wait(30)
    assert s.exporter.pause(30)
    second.hang = False
    s.exporter.start()
    assert not s.exporter.flush(30, lost_before=0)  # it may be done before we ask
    assert counted(s) == (1, 1, 1)


SLOW_IMPORT = """
import importlib.machinery, sys, time
import pyprof
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "google.protobuf.descriptor_pb2":
            return importlib.machinery.ModuleSpec(name, self)
    def create_module(self, spec):
        pass
    def exec_module(self, module):
        time.sleep(3600)
sys.meta_path.insert(0, Slow())
pyprof.start(output=sys.argv[1], exit_timeout=0.3, upload_interval=3600)
sum(range(3_000_000))
pyprof.stop()
print(pyprof.stats().undelivered, pyprof.stats().files_written)
"""


def test_an_import_that_takes_too_long(run_python, tmp_path):
    """The first upload of a process imports what it needs, and nothing can end an import."""
    result = run_python(SLOW_IMPORT, str(tmp_path / "out"), check=True)
    assert result.stdout == "1 0\n"
    [line] = result.stderr.splitlines()
    assert line.startswith("pyprof: 1 profile lost: ")
    assert OPTION in line
    assert "import" in line


SLOW_LOGGING = """
import sys, threading, pyprof
pyprof.start(output=sys.argv[1], exit_timeout=0.3, upload_interval=3600)
sum(range(3_000_000))
pyprof.stop()
print(pyprof.stats().undelivered, "logging" in sys.modules)
"""


def test_the_import_of_logging_is_not_waited_for_to_say_so(run_python, tmp_path):
    (tmp_path / "logging.py").write_text("import time; time.sleep(3600)")
    result = run_python(SLOW_LOGGING, str(tmp_path / "out"), env={"PYTHONPATH": str(tmp_path)}, timeout=30)
    assert (result.stdout, result.returncode) == ("1 True\n", 0)
    [line] = result.stderr.splitlines()
    assert OPTION in line
