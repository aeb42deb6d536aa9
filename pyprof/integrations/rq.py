"""RQ: labels for every job.

    rq worker --worker-class pyprof.integrations.rq.PyprofWorker

The profiler starts as in any program: `pyprof.start()`, or PYPROF_ENABLED=1.
"""

from typing import Any

from rq import SimpleWorker, Worker
from rq.job import Job

import pyprof

from ._shared import UNMATCHED, guarded


class PyprofMixin:
    """For a worker class of your own, before RQ's: runs jobs with the labels `task` and `queue`."""

    def perform_job(self, job: Job, queue: Any, *args: Any, **kwargs: Any) -> bool:
        try:
            with pyprof.labels(task=_function(job) or UNMATCHED, queue=queue.name):
                return bool(super().perform_job(job, queue, *args, **kwargs))  # type: ignore[misc]
        finally:
            if getattr(self, "is_horse", False):
                pyprof.stop()  # a child that has done its job leaves by os._exit


class PyprofWorker(PyprofMixin, Worker):
    """RQ's worker, which forks a child for every job."""


class PyprofSimpleWorker(PyprofMixin, SimpleWorker):
    """RQ's worker without children."""


@guarded
def _function(job: Job) -> str | None:
    return job.func_name
