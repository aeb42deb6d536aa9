"""The one timer thread of the process, shared by all who want its windows."""

from collections import deque

from pyprof import _native
from pyprof.locks import Lock

_NS = 1_000_000_000


class Consumer:
    """What somebody wants of the timer thread, and the windows that are there for them."""

    def __init__(
        self,
        *,
        sample_rate: float,
        interval: float,
        max_frames: int,
        max_windows: int | None,
        window_bytes: int,
        engine: str = "auto",
        max_overhead: float = 1.0,
        gil: bool = False,
    ) -> None:
        """sample_rate: Hz, at least. interval: seconds, at most.

        max_windows: that may wait (None: any).
        max_overhead: share of one core; a consumer that allows more allows it for all while it is there.
        """
        self.sample_rate = sample_rate
        self.interval = interval
        self.max_frames = max_frames
        self.max_windows = max_windows
        self.window_bytes = window_bytes
        self.engine = engine
        self.max_overhead = max_overhead
        self.gil = gil
        self.windows: deque[_native.Window] = deque()
        self.dropped = 0

    @property
    def period_ns(self) -> int:
        """The mean gap between two ticks."""
        return round(_NS / self.sample_rate)

    def put(self, window: _native.Window) -> None:
        if self.max_windows is not None and len(self.windows) >= self.max_windows:
            self.windows.popleft()
            self.dropped += 1
        self.windows.append(window)


class Sampler:
    """Runs the timer thread while somebody consumes, so that each gets at least what it asked for.

    `add`, `remove`, `pause` and `resume` are called by one thread at a time; `take` by any.
    """

    def __init__(self) -> None:
        self._consumers: list[Consumer] = []
        self._distributing = Lock()

    def add(self, consumer: Consumer) -> None:
        """Sample for `consumer` from now on. RuntimeError where no thread can be had."""
        self._stop()
        self._consumers.append(consumer)
        try:
            self._start()
        except BaseException:  # a signal handler's included, which may come when all is done
            self._consumers.remove(consumer)
            self._stop()
            self._start()
            raise

    def remove(self, consumer: Consumer) -> None:
        """The end of `add`. The windows of `consumer` are complete afterwards."""
        if consumer in self._consumers:
            self._stop()
            self._consumers.remove(consumer)
            self._start()

    def pause(self) -> None:
        """End the timer thread for a fork. The window that it was filling stays open."""
        _native.pause()

    def resume(self) -> None:
        """Start it again after `pause`. RuntimeError where no thread can be had."""
        _native.resume()

    def _stop(self) -> None:
        _native.stop()
        self._distribute()

    def _start(self) -> None:
        wanted = self._consumers
        if wanted:
            _native.start(
                period_ns=min(consumer.period_ns for consumer in wanted),
                window_ns=round(_NS * min(consumer.interval for consumer in wanted)),
                max_frames=max(consumer.max_frames for consumer in wanted),
                ring_windows=max(consumer.max_windows or 1 for consumer in wanted),
                window_bytes=max(consumer.window_bytes for consumer in wanted),
                raw_walk=True,
                gilfree=all(consumer.engine != "current_frames" for consumer in wanted),
                max_overhead=max(consumer.max_overhead for consumer in wanted),
                gil=any(consumer.gil for consumer in wanted),
            )

    def take(self, consumer: Consumer, timeout: float) -> _native.Window | None:
        """The oldest window of `consumer`, waiting at most `timeout` seconds or until `_native.wake()`."""
        if not consumer.windows and _native.wait(timeout):
            self._distribute()
        try:
            return consumer.windows.popleft()
        except IndexError:
            return None

    def _distribute(self) -> None:
        with self._distributing:
            while (window := _native.take()) is not None:
                for consumer in self._consumers:
                    consumer.put(window)
