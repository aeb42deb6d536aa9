"""The exporter: a thread of its own that takes finished windows and has them delivered.

It is an operating system thread of `_native`, which `threading`, gevent and a fork in progress know nothing
of, and everything that it waits for ends on demand: `take` by `wake`, an upload by `Delivery.cut`. Whoever
asks for something (flush, stop, pause) waits on events of `_native`, within a bound, and asks again while
waiting: a wake may be used up by another `take`, a cut come an instant before the call that it is meant for.
"""

import _thread
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from .. import _native
from . import imports
from .delivery import Counters, Delivery, Parcel

if TYPE_CHECKING:
    from .delivery import Encode
    from .target import Outcome, Target

IDLE = 60.0  # seconds of a wait that only `wake` or a window ends
NUDGE = 0.05  # seconds between two wakes by those who wait for the thread
GRACE = 0.003  # seconds that an answer under way gets before a fork, so that it need not be asked for twice
ENDING = 0.25  # seconds for the thread to end in once its upload was cut


class _Run:
    """One thread's life, so that an old thread cannot mistake orders for the next one as its own."""

    def __init__(self, previous: "_Run | None") -> None:
        self.previous = previous  # None once it is over
        self.pausing = False
        self.give_up_at = float("inf")
        self.stopping = False
        self.nap = _native.Event()
        self.finished = _native.Event()

    def is_over(self) -> bool:
        """Whether this thread has ended, and the one that it may have been waiting for in vain."""
        return self.finished.is_set() and (self.previous is None or self.previous.is_over())


class _Flush:
    """A request to deliver what is there now."""

    def __init__(self, lost_before: int) -> None:
        self.lost_before = lost_before
        self.done = _native.Event()
        self.complete = False


class Exporter:
    """Delivers windows until it is stopped; may be started again.

    targets: where to. take: the next window, waiting at most so many seconds (`_native.take`).
    encode: a window's series, in the combined layout or one a kind. timeout: seconds for one delivery.
    start, stop and pause are called by one thread at a time.
    """

    def __init__(
        self,
        targets: "Iterable[Target]",
        take: "Callable[[float], _native.Window | None]",
        encode: "Encode",
        *,
        timeout: float,
        wake: Callable[[], object] = _native.wake,
    ) -> None:
        self._delivery = Delivery(targets, encode, timeout)
        self._take = take
        self._wake = wake
        self._thread: _native.Thread | None = None
        self._run: _Run | None = None
        self._flushes: list[_Flush] = []
        self._parcel: Parcel | None = None  # taken, and not done with

    @property
    def counters(self) -> Counters:
        return self._delivery.counters

    @counters.setter
    def counters(self, counters: Counters) -> None:
        self._delivery.counters = counters

    @property
    def running(self) -> bool:
        return self._thread is not None

    def prepare(self) -> "list[Outcome]":
        """What is wrong with the targets already now; logged, once."""
        return self._delivery.prepare()

    def load(self) -> None:
        """Load what writing files needs, in the calling thread: the exporter's own may come too late."""
        self._delivery.load()

    def start(self, *, hurry: bool = False) -> None:
        """Start the thread; goes on with what `pause` interrupted.

        hurry: it loads what can be loaded first of all; there may be no time for it later.
        """
        if self._thread is not None:
            return
        run = _Run(self._run)
        self._delivery.resume()
        self._run = run
        self._thread = _native.Thread(lambda: self._main(run, hurry), "pyprof-exporter")

    def flush(self, timeout: float, lost_before: int | None = None) -> bool:
        """Deliver what was on the ring when called; whether all of it arrived within `timeout` seconds.

        lost_before: `counters.undelivered` before the last of it was put there, if not as when called.
        """
        run = self._run
        if self._thread is None or run is None:
            return False
        flush = _Flush(self.counters.undelivered if lost_before is None else lost_before)
        self._flushes.append(flush)
        self._wait(flush.done, time.monotonic() + timeout, run)
        return flush.complete

    def stop(self, timeout: float) -> bool:
        """Deliver what is there, within `timeout` seconds, and end the thread; whether it has ended.

        An upload that is not done by then is cut; what could not be delivered is counted and logged. With
        `timeout` 0 nothing is delivered. A thread that cannot be ended is left behind, and counts nothing
        more of what was counted as lost. Starts no thread, so that it can be called at the interpreter's
        exit: where no thread runs (after `pause`) the calling one delivers.
        """
        end = time.monotonic() + timeout
        give_up_at = end - min(ENDING, timeout / 4)
        thread, run, self._thread = self._thread, self._run, None
        if thread is None or run is None:
            over = run is None or run.is_over()
            if timeout > 0 and over:
                self._delivery.resume()
                self._drain(_Run(None), give_up_at)
        else:
            run.give_up_at = give_up_at
            run.stopping = True
            run.nap.set()
            if timeout <= 0:
                run.pausing = True
            if not self._wait(run.finished, give_up_at, run):
                run.pausing = True
                self._wait(run.finished, max(end, time.monotonic() + ENDING), run, cut=True)
            over = run.is_over() and thread.join(ENDING)
        if timeout > 0:
            self._account_for_the_rest(over)
        self._parcel = None
        if over:
            self._delivery.close()
        return over

    def finish(self, timeout: float) -> None:
        """From `take`, when no other thread is left: deliver the rest within `timeout` seconds and end."""
        if self._run is not None:
            self._run.give_up_at = time.monotonic() + timeout
            self._run.stopping = True

    def pause(self, timeout: float = 1.0) -> bool:
        """End the thread at once, for a fork; whether that was had within `timeout` seconds.

        A delivery under way is cut, and its window kept for the next `start` or `stop`.
        """
        end = time.monotonic() + timeout
        thread, run, self._thread = self._thread, self._run, None
        if thread is None or run is None:
            return True
        run.pausing = True
        run.nap.set()
        if not self._wait(run.finished, time.monotonic() + min(GRACE, timeout), run):
            self._wait(run.finished, end, run, cut=True)
        return run.is_over() and thread.join(max(ENDING, end - time.monotonic()))

    def after_fork_child(self) -> None:
        """Forget the parent's thread, its unfinished work, its connections and its counters."""
        self._thread = self._run = self._parcel = None
        self._flushes = []
        self._delivery.after_fork_child()

    def _wait(self, event: _native.Event, until: float, run: _Run, cut: bool = False) -> bool:
        while not event.is_set():
            left = until - time.monotonic()
            if left <= 0:
                return False
            if cut:
                self._delivery.cut()
            self._wake()
            event.wait(min(left, NUDGE))
            if run.finished.is_set():
                break
        return event.is_set()

    def _main(self, run: _Run, hurry: bool) -> None:
        try:
            imports.exporter_thread = _thread.get_native_id()
            while run.previous is not None:
                if run.previous.finished.wait(NUDGE):
                    run.previous = run.previous.previous  # which it may have been waiting for in vain
                elif run.pausing:
                    return
            if hurry:
                self._delivery.load()
            while True:
                try:
                    if not self._step(run):
                        return
                except Exception as error:
                    self._delivery.fault("a profile", error)
                    run.nap.wait(1.0)  # a fault that comes at every turn must not spin
        finally:
            run.finished.set()

    def _step(self, run: _Run) -> bool:
        """One window, or one wait for one; whether to go on."""
        asked = self._flushes[:]
        if run.pausing:
            return False
        parcel = self._parcel
        # Before the look at the ring: what was pushed before the order to end is seen by that look.
        stopping = run.stopping
        if parcel is None:
            window = self._take(0.0 if asked or stopping else IDLE)
            parcel = self._parcel = None if window is None else Parcel(window)
        if parcel is None:
            for flush in asked:
                self._flushes.remove(flush)
                flush.complete = self.counters.undelivered == flush.lost_before
                flush.done.set()
            return not stopping
        if self._delivery.deliver(parcel, run.give_up_at):
            self._parcel = None
        else:
            run.nap.wait(0.005)  # a fork under way is over by then; an order to end comes through at once
        return True

    def _drain(self, run: _Run, give_up_at: float) -> None:
        run.stopping, run.give_up_at = True, give_up_at
        while time.monotonic() < give_up_at:
            try:
                if not self._step(run):
                    return
            except Exception as error:
                self._delivery.fault("a profile", error)

    def _account_for_the_rest(self, over: bool) -> None:
        parcel = self._parcel
        left = int(parcel is not None and parcel.give_up())
        while self._take(0.0) is not None:
            left += 1
        reason = "the time for the last upload (option exit_timeout) was over"
        if not over:  # these are what nothing can end
            importing = imports.is_loading()
            what = "what it needs was imported" if importing else "a host was looked up, or a file written"
            reason += f" while {what}"
        self._delivery.give_up(left, reason)
