"""The Django application: starts the profiler when Django is ready."""

import os
import sys

from django.apps import AppConfig

from . import start


class PyprofConfig(AppConfig):
    name = "pyprof.integrations.django"
    label = "pyprof"
    verbose_name = "pyprof"

    def ready(self) -> None:
        if not is_reloader():
            start()


def is_reloader() -> bool:
    """Whether this is the process of `runserver` that only watches files and starts the other one."""
    return (
        sys.argv[1:2] == ["runserver"]
        and "--noreload" not in sys.argv
        and os.environ.get("RUN_MAIN") != "true"
    )
