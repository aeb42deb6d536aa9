"""An exporter between a ring and targets that do as the test says."""

import threading
import time
from collections import deque

from pyprof import _native
from pyprof.export.exporter import Exporter
from pyprof.export.series import Series
from pyprof.export.target import Outcome


class Ring:
    """Stands for the native ring: the same `take` and `wake`, filled from Python."""

    def __init__(self):
        self.windows = deque()
        self._changed = _native.Event()

    def push(self, *windows):
        self.windows.extend(windows)
        self.wake()

    def wake(self):
        self._changed.set()

    def take(self, timeout):
        if not self.windows:
            self._changed.wait(timeout)
        self._changed.clear()
        return self.windows.popleft() if self.windows else None


class Target:
    """Keeps what it is sent; may be made to fail, to raise, or to hang until it is cut."""

    stores = False
    imports = "log"

    def __init__(self, name="server", combined=False):
        self.name, self.combined = name, combined
        self.sent = []
        self.outcome = Outcome(True, bytes=10)
        self.error = None
        self.hang = self.deaf = self.hands_over = False
        self.sending = threading.Event()
        self.ended = threading.Event()
        self.deadlines = []
        self.closed = 0
        self._cut = threading.Event()

    def prepare(self):
        return self.outcome

    def portions(self, series):
        return [series] if series else []

    def send(self, portion, deadline):
        self.deadlines.append(deadline)
        self.sending.set()
        if self.deaf:  # like a look-up of a host's name
            self.ended.wait(60)
        elif self.hang:
            self._cut.wait(max(0, min(60, deadline - time.monotonic())))
        if self._cut.is_set():
            if self.hands_over and self.hang:
                self.sent.extend(portion)
                return Outcome(False, "given up", bytes=10, cut=True, unconfirmed=True)
            return Outcome(False, "given up", cut=True)
        if self.hang:
            return Outcome(False, "late", retriable=True)
        if self.error:
            raise self.error
        self.sent.extend(portion)
        return self.outcome

    def cut(self):
        self._cut.set()

    def resume(self):
        self._cut.clear()

    def after_fork_child(self):
        self._cut.clear()

    def close(self):
        self.closed += 1


def encode(window, combined):
    if isinstance(window, Exception):
        raise window
    if window is None:
        return []
    return [Series("profile" if combined else "process_cpu", {}, str(window).encode(), 0, 0)]


class Setup:
    def __init__(self, *targets, timeout=30.0):
        self.ring = Ring()
        self.targets = targets or (Target(),)
        self.target = self.targets[0]
        self.exporter = Exporter(self.targets, self.ring.take, encode, timeout=timeout, wake=self.ring.wake)

    @property
    def delivered(self):
        return [series.pprof for series in self.target.sent]
