"""Servers that share their work among processes: which process does which part of it.

Nothing of theirs is imported here: who runs under one finds it loaded.
"""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, ModuleType

MAIN, WORKER, CHILD = "main", "worker", "child"
"""Roles. A worker is what a server has started to handle requests or tasks; a child is any other process that
a profiled one has forked, or multiprocessing has started."""

_ROOTS = {  # what a worker runs in from its fork to its end
    ("gunicorn.arbiter", "spawn_worker"),  # whatever the class of the worker
    ("gunicorn.dirty.arbiter", "spawn_worker"),
    ("billiard.popen_fork", "_launch"),  # Celery's prefork pool
}
_OF_MULTIPROCESSING = "from multiprocessing."  # in the code that its processes are started with, under -c
_TARGETS = ("uvicorn",)  # packages whose workers multiprocessing spawns


def role_of_starter() -> str:
    """That of the process which calls `pyprof.start()`, as far as it is known by then; see `role_now`."""
    return WORKER if _is_below_root(sys._getframe()) else MAIN


def role_of_child(parent: str) -> str:
    """That of the child of a fork, by the hook in that child. parent: the role of the process that forked."""
    return WORKER if parent != WORKER and _is_below_root(sys._getframe()) else CHILD


def role_now(role: str) -> str:
    """`role`, or what has come out since about a process that seemed to be the main one."""
    if role != MAIN:
        return role
    uwsgi = _uwsgi()
    if uwsgi is not None:
        return WORKER if _is_forked_by(uwsgi) else MAIN
    if not any(_OF_MULTIPROCESSING in argument for argument in sys.orig_argv):
        return MAIN
    process = sys.modules.get("multiprocessing.process")
    target = getattr(process and process.current_process(), "_target", None)
    return WORKER if getattr(target, "__module__", "").split(".")[0] in _TARGETS else CHILD


def _is_below_root(frame: "FrameType | None") -> bool:
    while frame is not None:
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) in _ROOTS:
            return True
        frame = frame.f_back
    return False


def _uwsgi() -> "ModuleType | None":
    module = sys.modules.get("uwsgi")
    return module if hasattr(module, "masterpid") else None  # there is nothing in it at first


def _is_forked_by(uwsgi: "ModuleType") -> bool:
    """Whether this process is a worker, a mule or a spooler by now."""
    return bool(uwsgi.worker_id() or uwsgi.mule_id() or uwsgi.i_am_the_spooler())


def awaits_workers() -> bool:
    """Whether this process is to become uWSGI's workers, or their master, and no thread may start before.

    It forks without Python's hooks, unless it is told to call them, and its master never lets go of the GIL:
    threads of ours would deliver nothing there, and be missing in the workers.
    """
    uwsgi = _uwsgi()
    return uwsgi is not None and not _is_forked_by(uwsgi)


def threads_obstacle() -> str | None:
    """What keeps profiles from being delivered under this server, and what to do."""
    uwsgi = _uwsgi()
    if uwsgi is None or uwsgi.has_threads:
        return None
    return (
        "uWSGI without its option enable-threads lets other threads run only while it handles a request: "
        "profiles are late, or dropped, where requests are rare; set enable-threads"
    )


def call_in_workers(begin: "Callable[[], None]") -> None:
    """Where `awaits_workers`: once in each worker, mule and spooler when it has been forked."""
    uwsgi = sys.modules["uwsgi"]
    # The module has room for one hook. `uwsgidecorators`, once imported, puts its chain of them there.
    former = getattr(uwsgi, "post_fork_hook", None)
    decorators = sys.modules.get("uwsgidecorators") or _decorators(uwsgi)
    if decorators is not None:
        decorators.postfork_chain.append(begin)
        return

    def hook() -> None:
        if former is not None:
            former()
        begin()

    vars(uwsgi)["post_fork_hook"] = hook


def _decorators(uwsgi: "ModuleType") -> "ModuleType | None":
    """`uwsgidecorators`, imported before the application does, which would take our hook away."""
    own = {name: vars(uwsgi)[name] for name in ("post_fork_hook", "spooler") if name in vars(uwsgi)}
    try:
        import importlib

        decorators = importlib.import_module("uwsgidecorators")
    except Exception:  # not installed, or no master: it raises Exception itself
        return None
    if "spooler" in own:
        vars(uwsgi)["spooler"] = own["spooler"]
    if "post_fork_hook" in own:
        decorators.postfork_chain.append(own["post_fork_hook"])
    return decorators
