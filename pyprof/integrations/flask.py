"""Flask: labels for every request, and the start of the profiler.

    app.config["PYPROF"] = {"server_url": "http://pyroscope:4040"}
    Pyprof(app, service_name="shop")    # or Pyprof().init_app(app)

Options given in code win over the environment, which wins over the configuration.
"""

import os
from typing import Any

import flask

from ._shared import RequestLabels, guarded, start_once
from .wsgi import KEY, PyprofMiddleware


class Pyprof:
    """The extension.

    options: of `pyprof.start()`. `init_app` raises ValueError for what is wrong in them or the configuration.
    """

    def __init__(self, app: flask.Flask | None = None, **options: object) -> None:
        self._options = options
        self._is_started = False
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask) -> None:
        """Label the requests of `app`, and start the profiler unless it runs."""
        if "pyprof" in app.extensions:
            return
        app.extensions["pyprof"] = self
        app.wsgi_app = PyprofMiddleware(app.wsgi_app)  # type: ignore[method-assign]
        # First, and before what runs before a request: what they do belongs to the route too.
        app.url_value_preprocessors.setdefault(None, []).insert(0, self._begin_request)
        if not _is_reloader():
            self._start(app)

    def _start(self, app: flask.Flask) -> None:
        self._is_started = True
        start_once('app.config["PYPROF"]', app.config.get("PYPROF"), **self._options)

    @guarded
    def _begin_request(self, endpoint: str | None, values: dict[str, Any] | None) -> None:
        request = flask.request._get_current_object()  # type: ignore[attr-defined]
        if not self._is_started:
            self._start(flask.current_app)
        labels: RequestLabels | None = request.environ.get(KEY)
        rule = request.url_rule
        if labels is not None and rule is not None:
            labels.set_endpoint(rule.rule)


def _is_reloader() -> bool:
    """Whether this may be the process of `flask run --debug` that only starts the one which serves.

    That one, if it is not a child, starts the profiler with its first request.
    """
    return (
        os.environ.get("FLASK_RUN_FROM_CLI") == "true"
        and flask.helpers.get_debug_flag()
        and os.environ.get("WERKZEUG_RUN_MAIN") != "true"
    )
