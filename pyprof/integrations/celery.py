"""Celery: labels for every task, and the start of the profiler in workers.

    app.conf["pyprof"] = {"server_url": "http://pyroscope:4040"}
    Pyprof(app, service_name="jobs")

Options given in code win over the environment, which wins over the configuration. A program that only sends
tasks starts nothing.
"""

from typing import Any

import celery
from celery import signals

import pyprof

from ._shared import guarded, start_once

_SCOPE = "_pyprof_labels"


class Pyprof:
    """Labels `task` and `queue` in every pool and for eager tasks.

    app: the application with the configuration; None: the current one.
    options: of `pyprof.start()`. What is wrong in them or in the configuration is said when a worker starts.
    """

    def __init__(self, app: celery.Celery | None = None, **options: object) -> None:
        self._app, self._options = app, options
        connect = {"weak": False, "dispatch_uid": "pyprof"}
        signals.worker_init.connect(self._start, **connect)
        signals.worker_process_init.connect(self._start, **connect)  # a child that was not forked
        signals.worker_process_shutdown.connect(_stop, **connect)
        signals.task_prerun.connect(_enter, **connect)
        signals.task_postrun.connect(_leave, **connect)

    def _start(self, **kwargs: object) -> None:
        app = self._app or celery.current_app
        start_once('app.conf["pyprof"]', app.conf.get("pyprof"), **self._options)


def _stop(**kwargs: object) -> None:
    """The children of a pool leave by os._exit: nobody else would deliver their last profile."""
    pyprof.stop()


@guarded
def _enter(task: Any, **kwargs: object) -> None:
    # The request is this one execution's, whatever thread or greenlet it has, and however often its id comes.
    request = task.request
    labels = pyprof.labels(task=task.name, queue=(request.delivery_info or {}).get("routing_key"))
    setattr(request, _SCOPE, labels)
    labels.__enter__()


@guarded
def _leave(task: Any, **kwargs: object) -> None:
    labels = getattr(task.request, _SCOPE, None)
    if labels is not None:
        setattr(task.request, _SCOPE, None)
        labels.__exit__(None, None, None)
