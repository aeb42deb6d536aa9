"""What an import of pyprof does to the process, and does not; what a stop leaves.

Seen to fail, each with one line changed:
- `import socket` on top of `profiler`, `ssl` in `export.pyroscope`: `test_what_is_heavy_…`;
- a hook, a signal handler, a thread or a patched `os.fork` at import: `test_an_import_changes_nothing`;
- a signal handler in `start`: `test_a_stop_undoes_…`; a module `pyprof/profile.py`: `test_no_submodule_…`.
"""

from pathlib import Path
from typing import Any

import pytest

import pyprof


def test_no_submodule_bears_the_name_of_a_public_function(run_python: Any) -> None:
    """`pyprof.profile` is the function for good, whatever is imported afterwards."""
    program = """
import ast, importlib, pkgutil, sys, types
import pyprof
for module in pkgutil.walk_packages(pyprof.__path__, "pyprof."):
    if module.name != "pyprof.autostart.sitecustomize":  # not a module of the package: it ends up elsewhere
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:  # a framework that is not there
            if not module.name.startswith("pyprof.integrations.") or error.name.startswith("pyprof"):
                raise
assert len([name for name in sys.modules if name.startswith("pyprof.")]) > 30
for name in pyprof.__all__:
    assert not isinstance(getattr(pyprof, name), types.ModuleType), name
    assert f"pyprof.{name}" not in sys.modules, name
for statement in ast.parse(open(pyprof.__file__).read()).body:
    if isinstance(statement, ast.ImportFrom):
        source = sys.modules["pyprof." + statement.module]
        for alias in statement.names:
            assert getattr(pyprof, alias.name) is getattr(source, alias.name), alias.name
functions = {"flush", "is_running", "profile", "start", "stats", "stop"}
for name in pyprof.__all__:
    value = getattr(pyprof, name)
    if name in functions:
        kind = types.FunctionType
    else:
        kind = {"set_labels": types.BuiltinFunctionType, "__version__": str}.get(name, type)
    assert type(value) is kind, (name, value)
    assert kind is str or value.__name__ == name, (name, value)
assert functions <= set(pyprof.__all__)
"""
    assert run_python(program, check=True).stderr == ""


HEAVY = """
import sys
before = set(sys.modules)
def loaded():
    heavy = {"google", "requests", "wrapt", "greenlet", "gevent", "urllib3", "ssl", "_ssl", "socket",
             "_socket", "asyncio", "logging", "threading", "dataclasses", "inspect", "http", "email",
             "concurrent", "pathlib", "annotationlib"}
    return sorted({name.split(".")[0] for name in set(sys.modules) - before} & heavy)
"""


@pytest.mark.parametrize(
    "how",
    [
        "import pyprof",
        "import pyprof; pyprof.start()",
        "import pyprof; pyprof.start(exporter='none')",
        "import pyprof; pyprof.start(output='out', auth_token='x')",
        "from pyprof import autostart; autostart.start(); import pyprof; assert pyprof.is_running()",
    ],
)
def test_what_is_heavy_is_not_loaded(how: str, run_python: Any, tmp_path: Path, closed_port: str) -> None:
    program = f"{HEAVY}\n{how}\nprint(*loaded(), flush=True)\nimport os; os._exit(0)"
    ours = str(Path(pyprof.__file__).parents[1])
    env = {"PYPROF_EXIT_TIMEOUT": "0", "PYPROF_SERVER_URL": closed_port, "PYTHONPATH": ours}
    if "autostart" in how:
        env["PYPROF_ENABLED"] = "1"
    # Without site: what its .pth files load would hide what we load, and start pyprof before we look.
    result = run_python(program, options=["-S"], env=env, cwd=tmp_path, check=True)
    assert (result.stdout, result.stderr) == ("\n", "")


@pytest.mark.parametrize("module", ["pyprof", "pyprof.integrations.wsgi", "pyprof.integrations.asgi"])
def test_no_integration_is_loaded_that_was_not_asked_for(module: str, run_python: Any) -> None:
    """And none loads another one, or a framework. Seen to fail: `asgi` that imports starlette."""
    program = f"""
import sys
import {module}
frameworks = {{"django", "flask", "celery", "rq", "dramatiq", "opentelemetry", "starlette", "asgiref"}}
print(*sorted(frameworks & sys.modules.keys()))
ours = {{name for name in sys.modules if name.startswith("pyprof.integrations")}}
assert ours <= {{"pyprof.integrations", "pyprof.integrations._shared", {module!r}}}, ours
assert ours or {module!r} == "pyprof"
"""
    assert run_python(program, check=True).stdout == "\n"


UNTOUCHED = """
import atexit, builtins, os, signal, sys, _thread
{imports}
def look():
    modules = {{name: sys.modules[name] for name in looked_at}}
    state = {{
        (name, attribute): value if isinstance(value, (int, str)) else id(value)
        for name, module in modules.items() for attribute, value in vars(module).items()
        if (name, attribute) not in {{("sys", "modules"), ("sys", "path_importer_cache")}}
        and not isinstance(value, type(sys))  # a package gets its submodules as they are loaded
    }}
    state["handlers"] = [signal.getsignal(number) for number in signal.valid_signals()]
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    # But for the two signals that glibc takes for itself with a process's first thread.
    state["kernel"] = [int(status[name], 16) & ~(7 << 31) for name in ("SigCgt", "SigIgn", "SigBlk")]
    state["threads"] = os.listdir("/proc/self/task")
    state["descriptors"] = sorted(os.listdir("/proc/self/fd"))
    state["profile"] = (sys.getprofile(), sys.gettrace(), sys.getswitchinterval(), sys.flags)
    state["hooks"] = [list(map(id, hooks)) for hooks in (sys.meta_path, sys.path_hooks)] + [list(sys.path)]
    return state
looked_at = [name for name in sys.modules if not name.startswith(("pyprof", "__"))]
fork_hooks = []
real = os.register_at_fork
os.register_at_fork = lambda **hooks: (fork_hooks.append(hooks), real(**hooks))
callbacks = atexit._ncallbacks()
look()
before = look()
"""
HOST_IMPORTS = ["pass", "import threading, socket, ssl, logging, subprocess, multiprocessing.util, selectors"]


@pytest.mark.parametrize("imports", HOST_IMPORTS)
def test_an_import_changes_nothing(imports: str, run_python: Any) -> None:
    program = (
        UNTOUCHED.format(imports=imports)
        + """
import pyprof
after = look()
changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
assert not changed, {key: (before.get(key), after.get(key)) for key in changed}
assert fork_hooks == [] and atexit._ncallbacks() == callbacks
pid = os.fork()
if pid == 0:
    os._exit(0 if os.listdir("/proc/self/task") == [str(os.getpid())] else 1)
assert os.waitpid(pid, 0)[1] == 0
"""
    )
    assert run_python(program, check=True, options=["-W", "error"]).stderr == ""


@pytest.mark.parametrize("imports", HOST_IMPORTS)
def test_a_stop_undoes_a_start(imports: str, run_python: Any) -> None:
    """But for the one registration of hooks, which then do nothing, and modules that stay loaded."""
    program = (
        UNTOUCHED.format(imports=imports)
        + """
import pyprof
for _ in range(3):
    pyprof.start(exporter="none", sample_rate=1000, max_overhead=1)
    sum(range(2_000_000))
    pyprof.stop()
after = look()
changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
assert not changed, {key: (before.get(key), after.get(key)) for key in changed}
assert len(fork_hooks) <= 2 and atexit._ncallbacks() <= callbacks + 1
"""
    )
    assert run_python(program, check=True, options=["-W", "error"]).stderr == ""
