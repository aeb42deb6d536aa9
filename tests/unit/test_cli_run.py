"""`pyprof run`: which program is meant, what it is given, and that it runs as it would without."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyprof.cli import run
from pyprof.config import OPTIONS

from ..conftest import RunCommand
from .conftest import PYPROF_RUN

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="profiling is for Linux")

# Says when its handlers are there, then waits for a signal; `received` are the numbers of those that came.
HANDLING = """
import os, signal, sys
received, wakeup = os.pipe()
os.set_blocking(wakeup, False)
signal.set_wakeup_fd(wakeup)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, lambda *_: None)
print("ready", flush=True)
"""
REPORTING = HANDLING + "sys.exit(os.read(received, 1)[0])"


@contextlib.contextmanager
def started(*words: object, **keywords: object) -> Iterator["subprocess.Popen[str]"]:
    """A `pyprof run` whose program has said that it is ready."""
    process = subprocess.Popen(
        [*PYPROF_RUN, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **keywords
    )  # type: ignore[call-overload]
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


# Arguments


@pytest.mark.parametrize(
    ("words", "options", "target"),
    [
        (["app.py"], [], ["app.py"]),
        (["-o", "x.pb.gz", "app.py", "-o", "y"], ["-o", "x.pb.gz"], ["app.py", "-o", "y"]),
        (["--sample-rate", "7", "--no-wall", "a", "-m"], ["--sample-rate", "7", "--no-wall"], ["a", "-m"]),
        (["--sample-rate=7", "--", "--odd"], ["--sample-rate=7"], ["--odd"]),
        (["-ox.pb.gz", "-m", "pkg", "-c"], ["-ox.pb.gz"], ["-m", "pkg", "-c"]),
        (["-mpkg", "-c"], [], ["-m", "pkg", "-c"]),
        (["--cpu"], ["--cpu"], []),
    ],
)
def test_options_end_where_the_program_begins(
    words: list[str], options: list[str], target: list[str]
) -> None:
    assert run.split(words) == (options, target)


def test_every_option_is_a_flag_and_becomes_its_variable() -> None:
    given = {
        "service_name": "shop", "exporter": "none", "server_url": "http://127.0.0.1:1", "output": "x/",
        "sample_rate": "50", "upload_interval": "5", "engine": "auto", "memory": "off",
        "memory_period": "1024",
        "memory_oom_threshold": "0.8", "max_frames": "9",
        "max_overhead": "0.02", "label_values_max": "500",
        "ring_windows": "2", "tags": "a=b", "auth_token": "t", "basic_auth_user": "u",
        "basic_auth_password": "p",
        "tenant_id": "t", "headers": "A=b", "timeout": "3", "exit_timeout": "1", "log_level": "error",
    }  # fmt: skip
    switches = {
        "cpu",
        "wall",
        "gil",
        "thread_labels",
        "task_labels",
        "task_wall",
        "flush_on_sigterm",
        "strict",
    }
    assert {option.name for option in OPTIONS} - {"enabled"} == given.keys() | switches
    flags = [word for name, value in given.items() for word in ("--" + name.replace("_", "-"), value)]
    flags += ["--no-cpu", "--no-wall", "--no-gil", "--no-flush-on-sigterm", "--strict"]
    flags += ["--thread-labels", "--task-labels", "--no-task-wall"]
    parsed = run.chosen(run.argument_parser().parse_args(flags))
    assert parsed == {
        **{"PYPROF_" + name.upper(): value for name, value in given.items()},
        "PYPROF_CPU": "0",
        "PYPROF_WALL": "0",
        "PYPROF_GIL": "0",
        "PYPROF_FLUSH_ON_SIGTERM": "0",
        "PYPROF_STRICT": "1",
        "PYPROF_THREAD_LABELS": "1",
        "PYPROF_TASK_LABELS": "1",
        "PYPROF_TASK_WALL": "0",
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--sample-rate", "fast", "x.py"], "sample_rate"),
        (["--no-such-option", "x.py"], "--no-such-option"),
        (["--sample", "7", "x.py"], "--sample"),
        (["--cpu"], "what shall be run"),
        (["-m"], "-m needs"),
        (["-o"], "-o"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(
    pyprof_run: RunCommand, words: list[str], says: str, tmp_path: Path
) -> None:
    (tmp_path / "x.py").write_text("open('it-ran', 'w')")
    result = pyprof_run(*words, cwd=tmp_path)
    assert result.returncode == 2
    assert says in result.stderr.splitlines()[-1]
    assert not (tmp_path / "it-ran").exists()


def test_python_path_begins_with_the_autostart_directory_once() -> None:
    once = run.child_environment({"PYTHONPATH": "/a::/b"}, {"PYPROF_TAGS": "a=b"})
    directory, rest = once["PYTHONPATH"].split(os.pathsep, 1)
    assert Path(directory, "sitecustomize.py").is_file()
    assert rest == "/a::/b"
    assert once["PYPROF_ENABLED"] == "1"
    assert once["PYPROF_TAGS"] == "a=b"
    assert run.child_environment(once, {})["PYTHONPATH"] == once["PYTHONPATH"]


# The program


def test_scripts_directories_and_zip_files_run_with_this_python(
    pyprof_run: RunCommand, tmp_path: Path
) -> None:
    code = "import sys; print(sys.executable, *sys.argv[1:])"
    (tmp_path / "script.py").write_text(code)
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory/__main__.py").write_text(code)
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr("__main__.py", code)
    for word in ("script.py", "directory", "archive"):
        result = pyprof_run("-o", "out.pb.gz", word, "-o", "--", "x y", cwd=tmp_path)
        assert result.stdout == f"{sys.executable} -o -- x y\n", result.stderr
        assert result.returncode == 0


def test_modules_run_with_this_python(pyprof_run: RunCommand, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("import sys; print(__name__, sys.argv[1:])")
    result = pyprof_run("-o", "out.pb.gz", "-m", "module", "-m", "a", cwd=tmp_path)
    assert result.stdout == "__main__ ['-m', 'a']\n", result.stderr


def test_other_words_are_commands_of_the_path(pyprof_run: RunCommand, tmp_path: Path) -> None:
    command = tmp_path / "bin/greet"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\necho "$0 $@"\n')
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    result = pyprof_run("--", "greet", "-m", "--", env={"PATH": path}, cwd=tmp_path)
    assert result.stdout == f"{command} -m --\n"


def test_what_cannot_run_is_one_line_and_the_code_of_a_shell(pyprof_run: RunCommand, tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "garbage").write_bytes(b"\0\1\2")
    (tmp_path / "garbage").chmod(0o755)
    for words, code, says in [
        (["no-such-command-anywhere"], 127, "no-such-command-anywhere"),
        (["no-such-script.py"], 127, "no-such-script.py"),
        (["./plain.txt"], 126, "plain.txt"),
        (["./folder"], 126, "folder"),
        (["./garbage"], 126, "garbage"),
        (["--server-url", "http://127.0.0.1:1", "./garbage"], 126, "garbage"),
    ]:
        result = pyprof_run(*words, cwd=tmp_path)
        assert result.returncode == code, words
        assert says in result.stderr
        assert len(result.stderr.splitlines()) == 1, result.stderr


# Exit codes and signals


@pytest.mark.parametrize("options", [["-o", "out.pb.gz"], ["--server-url", "http://127.0.0.1:1"]])
def test_exit_codes_pass_through(
    pyprof_run: RunCommand, script: Callable[[str], Path], options: list[str], tmp_path: Path
) -> None:
    path = script("import sys; sys.exit(37)")
    assert pyprof_run(*options, path, cwd=tmp_path).returncode == 37


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV, signal.SIGUSR2]
)
def test_a_program_killed_by_a_signal_kills_its_runner_the_same_way(
    pyprof_run: RunCommand, script: Callable[[str], Path], number: signal.Signals, tmp_path: Path
) -> None:
    path = script(f"import os; os.kill(os.getpid(), {int(number)})")
    assert pyprof_run("-o", "out.pb.gz", path, cwd=tmp_path).returncode == -number


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGQUIT]
)
def test_signals_sent_to_the_runner_reach_the_program(
    script: Callable[[str], Path], number: signal.Signals, tmp_path: Path
) -> None:
    with started("-o", tmp_path / "out.pb.gz", script(REPORTING), start_new_session=True) as process:
        process.send_signal(number)
        assert process.wait(30) == number


def test_ctrl_c_at_the_terminal_reaches_the_program_once(
    script: Callable[[str], Path], tmp_path: Path
) -> None:
    """Seen to fail with every signal forwarded: the terminal sends SIGINT to the program too: it got two."""
    # Another SIGINT, had one been forwarded, would come before the SIGTERM: both come through the runner.
    code = (
        HANDLING
        + "got = list(os.read(received, 1))\n"
        + "os.kill(os.getppid(), signal.SIGTERM)\n"
        + "while got[-1] != signal.SIGTERM:\n"
        + "    got += os.read(received, 1)\n"
        + "print(*got)\n"
    )
    controller, terminal = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        import fcntl
        import termios

        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    with started(
        "-o", tmp_path / "out.pb.gz", script(code), stdin=terminal, preexec_fn=take_terminal
    ) as process:
        os.write(controller, b"\x03")
        assert process.wait(30) == 0
        assert process.stdout is not None
        assert process.stdout.read() == f"{signal.SIGINT:d} {signal.SIGTERM:d}\n"
    os.close(controller)
    os.close(terminal)


def test_the_program_inherits_the_signal_state_as_it_was(pyprof_run: RunCommand) -> None:
    def signal_state(text: str) -> dict[str, int]:
        of_the_c_library = 0b11 << 31  # its two own signals, which posix_spawn leaves ignored
        return {
            name: int(value, 16) & ~of_the_c_library
            for name, _, value in (line.partition(":") for line in text.splitlines())
            if name in ("SigBlk", "SigIgn")
        }

    # In `cat`: Python changes dispositions when it starts.
    direct = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True)
    for options in (["--server-url", "http://127.0.0.1:1"], []):
        result = pyprof_run(*options, "cat", "/proc/self/status")
        assert signal_state(result.stdout) == signal_state(direct.stdout)
