"""Dramatiq: labels for every message.

    broker.add_middleware(PyprofMiddleware())

The profiler starts as in any program: `pyprof.start()` where the broker is made, or PYPROF_ENABLED=1.
"""

from typing import Any

import dramatiq

import pyprof

from ._shared import guarded

_SCOPE = "_pyprof_labels"


class PyprofMiddleware(dramatiq.Middleware):
    """Runs actors with the labels `task` and `queue`."""

    @guarded
    def before_process_message(self, broker: dramatiq.Broker, message: Any) -> None:
        labels = pyprof.labels(task=message.actor_name, queue=message.queue_name)
        setattr(message, _SCOPE, labels)
        labels.__enter__()

    @guarded
    def after_process_message(
        self,
        broker: dramatiq.Broker,
        message: Any,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        labels = message.__dict__.pop(_SCOPE, None)
        if labels is not None:
            labels.__exit__(None, None, None)

    def after_skip_message(self, broker: dramatiq.Broker, message: Any) -> None:
        self.after_process_message(broker, message)
