"""Autostart: `PYPROF_ENABLED=1` is all it takes, whatever else starts with the interpreter; nothing breaks.

Two ways in are told apart here: `installed` interpreters have the `.pth` file (this environment), `bare` ones
have no pyprof but what PYTHONPATH gives them, so that only the `sitecustomize` can start it.
"""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from pyprof import autostart

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="profiling is for Linux")

ROOT = Path(__file__).resolve().parents[2]
DIRECTORY = autostart.directory()
SITE_PACKAGES = Path(sysconfig.get_path("purelib"))
AUTOSTART_FILES = ("pyprof_autostart.pth", "pyprof_autostart.py", "pyprof.start")
ON = {"PYPROF_ENABLED": "1", "PYPROF_EXPORTER": "none"}
SAY = """
import sys
pyprof = sys.modules.get("pyprof")
print("running" if pyprof is not None and pyprof.is_running() else "off")
"""

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]
RunCommand = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a virtual environment with nothing in it."""
    directory = tmp_path_factory.mktemp("bare")
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", directory],
        check=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    return directory / "bin/python"


def python_path(*directories: object) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(map(str, directories))}


# The .pth file


def test_enabled_in_the_environment_is_all_it_takes(run_python: RunPython) -> None:
    result = run_python(SAY, env=ON)
    assert (result.stdout, result.stderr) == ("running\n", "")


@pytest.mark.parametrize("value", [None, "", "0", "false", "No", " off "])
def test_not_enabled_nothing_is_imported(run_python: RunPython, value: str | None) -> None:
    result = run_python("import sys; print([name for name in sys.modules if name.split('.')[0] == 'pyprof'])",
                        env={"PYPROF_ENABLED": value})  # fmt: skip
    assert (result.stdout, result.stderr) == ("[]\n", "")


@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_words_that_enable(run_python: RunPython, value: str) -> None:
    assert run_python(SAY, env={**ON, "PYPROF_ENABLED": value}).stdout == "running\n"


def test_a_bad_value_is_one_warning_and_off(run_python: RunPython) -> None:
    result = run_python(SAY, env={"PYPROF_ENABLED": "maybe"})
    assert result.stdout == "off\n"
    (line,) = result.stderr.splitlines()
    assert "PYPROF_ENABLED" in line
    assert "maybe" in line


def test_bad_options_are_warnings_and_the_program_is_profiled(run_python: RunPython) -> None:
    result = run_python(SAY, env={**ON, "PYPROF_SAMPLE_RATE": "fast"})
    assert result.stdout == "running\n"
    (line,) = result.stderr.splitlines()
    assert "PYPROF_SAMPLE_RATE" in line


@pytest.mark.parametrize(
    ("options", "expected"), [(["-I"], "running"), (["-E"], "running"), (["-s"], "running"), (["-S"], "off")]
)
def test_interpreter_options_with_the_pth_file(
    run_python: RunPython, options: list[str], expected: str
) -> None:
    """-I and -E switch PYTHON* variables off, not site-packages; without site (-S) nothing can start."""
    result = run_python(SAY, options=options, env=ON)
    assert (result.stdout, result.stderr) == (f"{expected}\n", "")


@pytest.fixture
def site_packages(bare: Path) -> Iterator[Path]:
    """Those of `bare`, emptied again afterwards."""
    (directory,) = bare.parents[1].glob("lib/python*/site-packages")
    yield directory
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def put_our_files(directory: Path) -> list[str]:
    """Those that this installation has; the names of what `site` reads of them."""
    for name in AUTOSTART_FILES:
        if (SITE_PACKAGES / name).exists():
            shutil.copy(SITE_PACKAGES / name, directory)
    return sorted(path.name for path in directory.iterdir() if path.suffix != ".py")


def test_unset_no_module_is_loaded_for_it(run_python: RunPython, bare: Path, site_packages: Path) -> None:
    """But a decoder that `site` loads for the first .pth file of any kind (3.13), were it a comment. For a
    .start file Python 3.15 would load pkgutil, re and more, if the .pth line did not take its entry back.
    """

    def loaded() -> set[str]:
        return set(run_python("import sys; print(*sys.modules)", interpreter=bare).stdout.split())

    empty = loaded()
    (site_packages / "other.pth").write_text("# of somebody else\n")
    other = loaded()
    (site_packages / "other.pth").unlink()
    assert "pyprof_autostart.pth" in put_our_files(site_packages)
    ours = loaded()
    assert ours == other
    assert ours - empty <= {"encodings.utf_8_sig"}


OPENED = """
import sys
events = []
def hook(event, details):
    if event in ("open", "import"):
        events.append((event, details[0]))
sys.addaudithook(hook)
import os, site
for directory in sys.argv[1:]:
    del events[:]
    site.addsitedir(directory)
print([event for event in events if event[0] == "import"])
print(sorted(os.path.basename(path) for event, path in events if event == "open"))
"""


def test_unset_no_file_is_opened_but_those_that_site_looks_for(run_python: RunPython, tmp_path: Path) -> None:
    """The module beside the .pth file is not even looked for. A .pth file of somebody else is read before."""
    for name in ("other", "ours"):
        (tmp_path / name).mkdir()
    (tmp_path / "other/other.pth").write_text("# of somebody else\n")
    expected = put_our_files(tmp_path / "ours")
    directories = [str(tmp_path / name) for name in ("other", "ours")]
    result = run_python(OPENED, *directories, options=["-S"], check=True)
    assert result.stdout.splitlines() == ["[]", str(expected)]


@pytest.mark.skipif(sys.version_info < (3, 15), reason="PEP 829 is new in 3.15")
def test_the_start_entry_works_without_the_pth_line(run_python: RunPython, tmp_path: Path) -> None:
    """As it will from 3.18 on, when import lines in .pth files are ignored."""
    for name in ("pyprof_autostart.py", "pyprof.start"):
        (tmp_path / name).write_bytes((SITE_PACKAGES / name).read_bytes())
    code = f"import site; site.addsitedir({str(tmp_path)!r})"
    result = run_python(code + SAY, options=["-S"], env={**ON, **python_path(ROOT)})
    assert (result.stdout, result.stderr) == ("running\n", "")


# The sitecustomize


def test_on_the_path_it_starts_and_leaves_the_path_as_it_was(run_python: RunPython, bare: Path) -> None:
    code = SAY + "print(sys.path)"
    result = run_python(code, interpreter=bare, env={**ON, **python_path(DIRECTORY, ROOT)})
    without = run_python(code, interpreter=bare, env=python_path(ROOT))
    assert result.stderr == ""
    assert result.stdout.splitlines() == ["running", without.stdout.splitlines()[1]]


@pytest.mark.parametrize(
    ("options", "expected"), [(["-I"], "off"), (["-E"], "off"), (["-S"], "off"), (["-s"], "running")]
)
def test_interpreter_options_with_the_sitecustomize(
    run_python: RunPython, bare: Path, options: list[str], expected: str
) -> None:
    result = run_python(SAY, interpreter=bare, options=options, env={**ON, **python_path(DIRECTORY, ROOT)})
    assert (result.stdout, result.stderr) == (f"{expected}\n", "")


USERS = [
    "import sys\nprint('user', 'pyprof' in sys.modules)\nvalue = 1\n",
    "raise RuntimeError('from the user')\n",
    "import no_such_module_anywhere\n",
    "raise ImportError('nameless')\n",
    "import sys\nsys.exit(7)\n",
    "def broken(:\n",
    "import sys\nsys.stderr.write('noise\\n')\nraise KeyError\n",
]


@pytest.mark.parametrize("verbose", ["", "1"])
@pytest.mark.parametrize("user", USERS)
def test_the_users_own_sitecustomize_runs_first_and_as_ever(
    run_python: RunPython, bare: Path, tmp_path: Path, user: str, verbose: str
) -> None:
    """Output, exit code and what site says of its error are the same as without pyprof, but that it runs."""
    (tmp_path / "sitecustomize.py").write_text(user)
    code = "import sys\nprint(getattr(sys.modules.get('sitecustomize'), 'value', None), sys.flags.verbose)\n"
    environ = {"PYTHONVERBOSE": verbose or None, "PYTHONDONTWRITEBYTECODE": "1"}
    plain = run_python(code, interpreter=bare, env={**environ, **python_path(tmp_path, ROOT)})
    profiled = run_python(
        code + SAY, interpreter=bare, env={**environ, **ON, **python_path(DIRECTORY, tmp_path, ROOT)}
    )
    running = [] if plain.returncode else ["running"]
    assert profiled.returncode == plain.returncode
    assert profiled.stdout.splitlines() == plain.stdout.splitlines() + running
    if plain.returncode:  # a fatal error, with tracebacks and modules that differ
        assert {"SystemExit: 7"} <= set(plain.stderr.splitlines()) & set(profiled.stderr.splitlines())
    elif not verbose:
        assert profiled.stderr == plain.stderr
    else:
        last = [line for line in plain.stderr.splitlines() if "from the user" in line or "nameless" in line]
        assert set(last) <= set(profiled.stderr.splitlines())


def test_another_agents_sitecustomize_that_chains_like_ours_is_no_loop(
    run_python: RunPython, bare: Path, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sitecustomize.py").write_text(
            "import os, sys\n"
            f"print({name!r})\n"
            "here = os.path.dirname(__file__)\n"
            "sys.path = [entry for entry in sys.path if entry != here]\n"
            "me = sys.modules.pop('sitecustomize', None)\n"
            "try:\n"
            "    import sitecustomize\n"
            "except ImportError:\n"
            "    sys.modules['sitecustomize'] = me\n"
        )
    (tmp_path / "link").symlink_to(DIRECTORY)
    path = python_path(tmp_path / "first", DIRECTORY, tmp_path / "link", tmp_path / "second", ROOT)
    result = run_python(SAY, interpreter=bare, env={**ON, **path})
    assert (result.stdout, result.stderr) == ("first\nsecond\nrunning\n", "")


# Both, and elsewhere


def test_pth_and_sitecustomize_together_start_once(run_python: RunPython) -> None:
    """A second start is a warning; seen to fail without the flag in `autostart.start`."""
    result = run_python(SAY, env={**ON, **python_path(DIRECTORY), "PYPROF_LOG_LEVEL": "debug"})
    assert result.stdout == "running\n"
    assert "already" not in result.stderr


def test_an_environment_without_pyprof_is_not_bothered(run_python: RunPython, bare: Path) -> None:
    result = run_python(SAY, interpreter=bare, env={**ON, **python_path(DIRECTORY)})
    assert (result.stdout, result.stderr, result.returncode) == ("off\n", "", 0)


def test_a_broken_pyprof_is_one_line(run_python: RunPython, bare: Path, tmp_path: Path) -> None:
    package = tmp_path / "pyprof"
    package.mkdir()
    for code in ("raise RuntimeError('two\\nlines')", "import no_such_module_anywhere", "def broken(:"):
        (package / "__init__.py").write_text(code)
        result = run_python(SAY, interpreter=bare, env={**ON, **python_path(DIRECTORY, tmp_path)})
        assert (result.stdout, result.returncode) == ("off\n", 0)
        assert result.stderr.startswith("pyprof: not started: ")
        assert len(result.stderr.splitlines()) == 1, result.stderr


def test_another_package_called_pyprof_is_left_alone(
    run_python: RunPython, bare: Path, tmp_path: Path
) -> None:
    (tmp_path / "pyprof.py").write_text("name = 'another'")
    result = run_python("print(1)", interpreter=bare, env={**ON, **python_path(DIRECTORY, tmp_path)})
    assert (result.stdout, result.stderr) == ("1\n", "")


def test_closed_standard_streams_do_no_harm(run_process: RunCommand, tmp_path: Path) -> None:
    environ = {**ON, "PYPROF_SAMPLE_RATE": "fast"}
    code = f"open({str(tmp_path / 'done')!r}, 'w')"
    result = run_process(["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code], env=environ)
    assert result.returncode == 0
    assert (tmp_path / "done").exists()


def test_files_that_any_python_may_run_have_old_syntax() -> None:
    """Python 2.7's and 3.4's common part as far as a parser of today can check it; no annotations either."""
    for name in ("sitecustomize.py", "pyprof_autostart.py"):
        tree = ast.parse((DIRECTORY / name).read_text(), feature_version=(3, 4))
        for node in ast.walk(tree):
            assert not isinstance(node, (ast.AnnAssign, ast.JoinedStr, ast.NamedExpr, ast.Nonlocal)), node
            assert not isinstance(node, ast.FunctionDef) or node.returns is None
            assert not isinstance(node, ast.Raise) or node.cause is None


# Processes and interpreters


def test_child_processes_are_profiled_too(run_python: RunPython) -> None:
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {SAY!r}], check=True)\n"
    result = run_python(code, env=ON)
    assert (result.stdout, result.stderr) == ("running\n", "")


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_multiprocessing_children_are_profiled_too(
    run_python: RunPython, tmp_path: Path, method: str
) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import multiprocessing, sys\n"
        "def say():\n"
        "    import pyprof\n"
        "    print('running' if pyprof.is_running() else 'off', flush=True)\n"
        "if __name__ == '__main__':\n"
        "    child = multiprocessing.get_context(sys.argv[1]).Process(target=say)\n"
        "    child.start()\n"
        "    child.join()\n"
        "    sys.exit(child.exitcode)\n"
    )
    result = run_python(script, method, env=ON)
    assert (result.stdout, result.stderr, result.returncode) == ("running\n", "", 0)


SUBINTERPRETER = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import pyprof
assert pyprof.is_running()
code = '''
import sys
pyprof = sys.modules.get("pyprof")
assert pyprof is None or not pyprof.is_running()
import pyprof
pyprof.autostart.start() if hasattr(pyprof, "autostart") else None
assert not pyprof.is_running()
'''
for _ in range(3):
    number = interpreters.create()
    failure = interpreters.run_string(number, code)
    assert failure is None, failure
    interpreters.destroy(number)
assert pyprof.is_running()
print("done")
"""


def test_subinterpreters_start_nothing_and_end(run_python: RunPython) -> None:
    """A thread of ours in one makes its end abort the process (3.12, 3.13)."""
    result = run_python(SUBINTERPRETER, env=ON)
    assert (result.stdout, result.stderr, result.returncode) == ("done\n", "", 0)


def _has_own_tests() -> bool:
    try:
        return importlib.util.find_spec("test.test_threading") is not None
    except ImportError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not _has_own_tests(), reason="this Python came without its own test suite")
def test_cpythons_own_threading_tests_pass_under_autostart(run_process: RunCommand, tmp_path: Path) -> None:
    """All but those that fail on this machine without pyprof as well."""

    def failing(environ: Mapping[str, str]) -> set[str]:
        command = [sys.executable, "-m", "test", "-v", "test_threading"]
        result = run_process(command, env=environ, timeout=600, cwd=tmp_path)
        lines = result.stdout.splitlines() + result.stderr.splitlines()
        assert any(line.startswith("Ran ") for line in lines), "\n".join(lines[-50:])
        return {line.split(":")[1] for line in lines if line.startswith(("FAIL:", "ERROR:"))}

    with_pyprof = failing(ON)
    assert not with_pyprof or with_pyprof <= failing({})
