"""The seam between what is delivered and where it goes."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from .series import Series


class Outcome:
    """What became of one attempt to deliver.

    reason: one line for the log; contains no secret. retriable: whether the same bytes may be taken later.
    cause: what failures of one kind have in common, which are logged once; `reason` if empty. bytes: handed
    over, of the body or of the file. retry_after: seconds that the server asks to wait. cut: ended by
    `Target.cut`: the same portion is to be tried again, unless it is unconfirmed. unconfirmed: wholly handed
    over, but whether it was taken is not known; sent again it might count twice.
    """

    __slots__ = ("bytes", "cause", "cut", "ok", "reason", "retriable", "retry_after", "unconfirmed")

    def __init__(
        self,
        ok: bool,
        reason: str = "",
        retriable: bool = False,
        cause: str = "",
        bytes: int = 0,
        retry_after: float | None = None,
        cut: bool = False,
        unconfirmed: bool = False,
    ) -> None:
        self.ok = ok
        self.reason = reason
        self.retriable = retriable
        self.cause = cause
        self.bytes = bytes
        self.retry_after = retry_after
        self.cut = cut
        self.unconfirmed = unconfirmed


class Target(Protocol):
    """A place that profiles go to. All but `cut` is called by one thread at a time."""

    name: str
    """For the log, such as "Pyroscope at http://localhost:4040"; contains no secret."""
    combined: bool
    """Wants one profile of all kinds instead of one a kind."""
    stores: bool
    """Writes files; otherwise it pushes."""
    imports: str
    """Group of `imports` loaded before `portions` and `send`, outside the deadline: it may take long."""

    def prepare(self) -> Outcome:
        """What can be found wrong before there is a profile; loads nothing heavy, waits for nothing."""
        ...

    def portions(self, series: Sequence[Series]) -> Iterable[Sequence[Series]]:
        """What belongs to one interval, in what is sent at once: each arrives, fails or is cut for itself."""
        ...

    def send(self, portion: Sequence[Series], deadline: float) -> Outcome:
        """Deliver one of the `portions`, before `deadline` (time.monotonic), the same for all of them."""
        ...

    def cut(self) -> None:
        """From any thread: end a `send` under way, and refuse further ones, until `resume`.

        Asked again where it does not end: a connection that begins at this very moment is missed.
        """
        ...

    def resume(self) -> None:
        """Take up work after `cut`."""
        ...

    def after_fork_child(self) -> None:
        """Let go of what belongs to the parent, whose thread may have been anywhere in `send`."""
        ...

    def close(self) -> None: ...
