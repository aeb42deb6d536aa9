"""Who gets a window, how often it is tried, and what is counted and logged of it.

This is the policy between the exporter and its targets: at present one attempt each, at each portion that a
target makes of a window. A failure is logged when it begins and when it is over, not at every interval, and
no profile is lost without being counted.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from .. import log
from . import imports
from .target import Outcome
from .unpatched import allocate_lock

if TYPE_CHECKING:
    from .._native import Window
    from .series import Series
    from .target import Target

    Encode = Callable[[Window, bool], Sequence[Series]]

REPEAT_AFTER = 600.0
"""Seconds before a target that fails in the same way again and again is mentioned once more."""


class Counters:
    """What `pyprof.stats()` says of exports. Written by one thread at a time."""

    def __init__(self) -> None:
        self.uploads = 0
        self.unconfirmed = 0
        self.upload_failures = 0
        self.uploaded_bytes = 0
        self.files_written = 0
        self.undelivered = 0
        """Windows that at least one target did not get, or not whole, and that nobody will try again."""


class Transfer:
    """A window on its way to one target: the portions still to be sent, and what became of the others."""

    def __init__(self, portions: "Iterable[Sequence[Series]]" = (), lost: int = 0) -> None:
        self.portions = deque(portions)
        self.lost = lost
        self.unconfirmed: Outcome | None = None  # of the first portion, if that was cut when it had been sent
        self._total = len(self.portions)
        self._outcome = Outcome(True)
        self._bytes = 0
        self._any_unconfirmed = False

    def settle(self, outcome: Outcome) -> None:
        """Note what became of the first portion."""
        self.portions.popleft()
        self.unconfirmed = None
        self._any_unconfirmed |= outcome.unconfirmed
        self._bytes += outcome.bytes
        if not self.lost:
            self._outcome = outcome
        self.lost += not outcome.ok

    @property
    def outcome(self) -> Outcome:
        """Of all portions: the first failure, if there was one."""
        one = self._outcome
        reason, cause = one.reason, one.cause
        if not one.ok and self._total > 1:
            reason = f"{one.reason}; {self.lost} of {self._total} parts of a profile lost"
            cause = one.cause or one.reason
        return Outcome(
            one.ok, reason, one.retriable, cause, self._bytes, one.retry_after, one.cut, self._any_unconfirmed
        )


class Parcel:
    """A window on its way. Nobody counts it once it is `done`; the lock is held by who looks, and counts."""

    def __init__(self, window: "Window") -> None:
        self.window = window
        self.transfers: dict[int, Transfer] = {}  # by the index of the target, as soon as it is its turn
        self.done = False
        self.lock = allocate_lock()

    def give_up(self) -> bool:
        """From any thread: no target shall get it any more. Whether its loss is yet to be counted."""
        with self.lock:
            was_done, self.done = self.done, True
        return not was_done


class _Health:
    """What has been said about one target."""

    def __init__(self) -> None:
        self.logged: dict[str, float] = {}  # cause → time.monotonic of the last message
        self.failing = False
        self.lost = 0


class Delivery:
    """Delivers windows to all targets. One thread at a time, but for `cut`; see also `Parcel.give_up`."""

    def __init__(self, targets: Iterable["Target"], encode: "Encode", timeout: float) -> None:
        self.targets = tuple(targets)
        self.counters = Counters()
        self._encode = encode
        self._timeout = timeout
        self._health = [_Health() for _ in self.targets]
        self._faults: set[str] = set()

    def prepare(self) -> list[Outcome]:
        """Ask every target whether it can work at all; log and return what is wrong."""
        failures = []
        for target, health in zip(self.targets, self._health, strict=True):
            outcome = target.prepare()
            if not outcome.ok:
                failures.append(outcome)
                self._log_failure(target, health, outcome)
        return failures

    def load(self) -> None:
        """What writing files needs; what pushing needs waits: an application may want to patch it first."""
        try:
            if any(target.stores for target in self.targets) and imports.load("log"):
                for target in self.targets:
                    if target.stores and not imports.load(target.imports):
                        return
        except Exception as error:
            self.fault("a profile", error)

    def deliver(self, parcel: Parcel, give_up_at: float) -> bool:
        """One attempt for each target at what it has not had yet; whether the parcel is done with.

        give_up_at: time.monotonic at which no target may go on; each has its own `timeout` besides.
        It is not done with where `cut` or a fork came between. What had wholly been sent by then counts as
        uploaded if there is a next time: it is the end of the process that takes it for lost.
        """
        layouts: dict[bool, Sequence[Series]] = {}
        for index, target in enumerate(self.targets):
            try:
                if not imports.load("log"):
                    return False
                if index not in parcel.transfers:
                    if target.combined not in layouts:
                        layouts[target.combined] = self._encode(parcel.window, target.combined)
                    if layouts[target.combined] and not imports.load(target.imports):
                        return False
                    parcel.transfers[index] = Transfer(target.portions(layouts[target.combined]))
                if not self._send(parcel, index, give_up_at):
                    return False
            except Exception as error:
                self.fault(f"a profile for {target.name}", error)
                parcel.transfers[index] = Transfer(lost=1)
        with parcel.lock:
            if not parcel.done:
                parcel.done = True
                self.counters.undelivered += any(transfer.lost for transfer in parcel.transfers.values())
        return True

    def _send(self, parcel: Parcel, index: int, give_up_at: float) -> bool:
        """Whether it was not cut. Sends nothing if nothing is left, or nothing happened in the interval."""
        target, transfer = self.targets[index], parcel.transfers[index]
        if not transfer.portions:
            return True
        deadline = min(time.monotonic() + self._timeout, give_up_at)
        while transfer.portions:
            if parcel.done:
                return True
            outcome = transfer.unconfirmed or target.send(transfer.portions[0], deadline)
            if outcome.cut:
                if outcome.unconfirmed:
                    transfer.unconfirmed = Outcome(True, bytes=outcome.bytes, unconfirmed=True)
                return False
            transfer.settle(outcome)
        with parcel.lock:
            if parcel.done:
                return True
            self._count(target, transfer.outcome)
        self._report(target, self._health[index], transfer.outcome)
        return True

    def give_up(self, windows: int, reason: str) -> None:
        """Count windows that no attempt was or will be made for."""
        if windows:
            self.counters.undelivered += windows
            log.warning("%d profile%s lost: %s", windows, "" if windows == 1 else "s", reason)

    def fault(self, what: str, error: Exception) -> None:
        """An error of our own: logged once."""
        text = f"{type(error).__name__}: {error}"
        if text not in self._faults and len(self._faults) < 100:
            self._faults.add(text)
            log.error("%s could not be made or sent: %s", what, text)

    def _count(self, target: "Target", outcome: Outcome) -> None:
        counters = self.counters
        if target.stores:
            counters.files_written += outcome.ok
        else:
            counters.uploads += outcome.ok
            counters.unconfirmed += outcome.ok and outcome.unconfirmed
            counters.upload_failures += not outcome.ok
            counters.uploaded_bytes += outcome.bytes

    def _report(self, target: "Target", health: _Health, outcome: Outcome) -> None:
        if not outcome.ok:
            health.lost += 1
            self._log_failure(target, health, outcome)
        elif health.failing and not outcome.unconfirmed:
            log.warning("%s works again; profiles lost: %d", target.name, health.lost)
            health.failing, health.lost = False, 0

    def _log_failure(self, target: "Target", health: _Health, outcome: Outcome) -> None:
        cause = outcome.cause or outcome.reason
        now = time.monotonic()
        last = health.logged.get(cause)
        # Within one outage a cause is named once. One that comes and goes is not worth a line each time.
        if last is None or (not health.failing and now - last >= REPEAT_AFTER):
            if len(health.logged) >= 100:
                health.logged.clear()
            health.logged[cause] = now
            report = log.warning if outcome.retriable else log.error
            report(
                "%s: %s; this is said once, until it works again profiles are lost",
                target.name,
                outcome.reason,
            )
            health.failing = True

    def cut(self) -> None:
        """From any thread: end what is under way, and refuse more until `resume`."""
        for target in self.targets:
            target.cut()

    def resume(self) -> None:
        for target in self.targets:
            target.resume()

    def after_fork_child(self) -> None:
        """Begin anew, with connections and counters of our own."""
        self.counters = Counters()
        self._health = [_Health() for _ in self.targets]
        for target in self.targets:
            target.after_fork_child()

    def close(self) -> None:
        for target in self.targets:
            target.close()
