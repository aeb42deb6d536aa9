"""top, flame, convert and info as people call them: in processes of their own."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pyprof.pprof import Label, Location, Profile, Sample, read, save

from .profiles import CPU, ODD_NAMES, place, talk

Run = Callable[..., subprocess.CompletedProcess[str]]
PYPROF = [sys.executable, "-m", "pyprof"]


@pytest.fixture
def cli(run_process: Run) -> Run:
    """Call the command line with these words; further keywords as for `run_process`."""

    def call(*words: str | Path, **keywords: object) -> subprocess.CompletedProcess[str]:
        return run_process([*PYPROF, *map(str, words)], **keywords)

    return call


@pytest.fixture
def talk_file(tmp_path: Path) -> Path:
    save(talk(), tmp_path / "talk.pb.gz")
    return tmp_path / "talk.pb.gz"


def names_of(table: str) -> list[str]:
    return [line.split(maxsplit=5)[5] for line in table.splitlines()[1:]]


class TestTop:
    def test_prints_the_table_and_nothing_else(self, cli: Run, talk_file: Path) -> None:
        result = cli("top", talk_file, "-t", "samples")
        assert result.returncode == 0
        assert result.stderr == ""
        assert result.stdout.splitlines()[0].split() == ["Flat", "Flat%", "Sum%", "Cum", "Cum%", "Name"]
        assert [line.split() for line in result.stdout.splitlines()[1:]] == [
            ["20", "52.63%", "52.63%", "25", "65.79%", "__main__.doALot"],
            ["10", "26.32%", "78.95%", "10", "26.32%", "__main__.prepare"],
            ["5", "13.16%", "92.11%", "10", "26.32%", "__main__.doLittle"],
            ["3", "7.89%", "100%", "38", "100%", "__main__.main"],
        ]

    def test_type_defaults_to_the_profiles_own(self, cli: Run, talk_file: Path, tmp_path: Path) -> None:
        assert "200ms" in cli("top", talk_file).stdout
        profile = talk()
        profile.default_sample_type = ""
        profile.sample_types.reverse()
        save(profile, tmp_path / "reversed.pb.gz")
        assert "200ms" not in cli("top", tmp_path / "reversed.pb.gz").stdout

    def test_n_and_cum(self, cli: Run, talk_file: Path, tmp_path: Path) -> None:
        cut = cli("top", talk_file, "-n", "2", "--cum")
        assert names_of(cut.stdout) == ["__main__.main", "__main__.doALot"]
        assert cut.stderr == "pyprof: 2 of 4 functions shown; -n 0 shows all\n"
        many = Profile([CPU], [Sample((place(f"f{i}"),), (i + 1,)) for i in range(100)])
        save(many, tmp_path / "many.pb")
        assert len(names_of(cli("top", tmp_path / "many.pb").stdout)) == 30
        assert len(names_of(cli("top", "-n0", tmp_path / "many.pb").stdout)) == 100

    def test_label(self, cli: Run, tmp_path: Path) -> None:
        profile = talk()
        for number, sample in enumerate(profile.samples):
            sample.labels = (Label("endpoint", f"/{number}"), Label("pid", number % 2))
        save(profile, tmp_path / "p.pb.gz")
        file = tmp_path / "p.pb.gz"
        assert names_of(cli("top", file, "--label", "endpoint=/0").stdout) == ["__main__.main"]
        both = cli("top", file, "--label", "pid=1", "--label", "endpoint=/1")
        assert names_of(both.stdout) == ["__main__.doALot", "__main__.main"]
        nothing = cli("top", file, "--label", "endpoint=/nope")
        assert (nothing.returncode, nothing.stdout) == (1, "")
        assert nothing.stderr == (
            f"pyprof: {file}: no sample has the label endpoint=/nope; label keys there are: endpoint, pid\n"
        )
        page = tmp_path / "x.html"
        cli("flame", file, "-o", page, "--label", "endpoint=/1", "--label", "pid=1")
        assert "doALot" in page.read_text()
        assert "doLittle" not in page.read_text()

    def test_by_label(self, cli: Run, tmp_path: Path) -> None:
        profile = talk()
        for number, sample in enumerate(profile.samples):
            route = "/a" if number % 2 else "/ b"
            sample.labels = (Label("trace_id", f"{number // 2:032x}"),) + (
                () if number == 3 else (Label("endpoint", route),)
            )
        file = tmp_path / "p.pb.gz"
        save(profile, file)
        table = cli("top", file, "--by", "endpoint")
        assert (table.returncode, table.stderr) == (0, "")
        assert [line.split(maxsplit=2) for line in table.stdout.splitlines()] == [
            ["Flat", "Flat%", "endpoint"],
            ["200ms", "52.63%", "/a"],
            ["130ms", "34.21%", "/ b"],
            ["50ms", "13.16%", "[no endpoint]"],
        ]
        cut = cli("top", file, "-t", "samples", "--by", "endpoint", "-n1", "--label", f"trace_id={1:032x}")
        assert [line.split() for line in cut.stdout.splitlines()[1:]] == [["5", "50.00%", "/", "b"]]
        assert cut.stderr == "pyprof: 1 of 2 values shown; -n 0 shows all\n"
        nothing = cli("top", file, "--by", "route")
        assert (nothing.returncode, nothing.stdout) == (1, "")
        assert nothing.stderr == (
            f"pyprof: {file}: no sample has the label route; label keys there are: endpoint, trace_id\n"
        )

    def test_directory(self, cli: Run, talk_file: Path) -> None:
        save(talk(), talk_file.with_name("again.pb.gz"))
        assert re.search(r"^\s*40 ", cli("top", talk_file.parent, "-t", "samples").stdout, re.MULTILINE)

    def test_names_survive_any_terminal(self, cli: Run, tmp_path: Path) -> None:
        profile = Profile([CPU], [Sample((place(name),), (100 - i,)) for i, name in enumerate(ODD_NAMES)])
        save(profile, tmp_path / "p.pb.gz")
        assert names_of(cli("top", tmp_path / "p.pb.gz").stdout) == ODD_NAMES
        ascii_only = cli("top", tmp_path / "p.pb.gz", env={"PYTHONIOENCODING": "ascii", "NO_COLOR": "1"})
        assert ascii_only.returncode == 0
        assert "pkg.Gr\\xf6\\xdfe.\\u65e5\\u672c\\u8a9e" in ascii_only.stdout

    def test_a_profile_without_samples(self, cli: Run, tmp_path: Path) -> None:
        save(Profile([CPU]), tmp_path / "p.pb.gz")
        result = cli("top", tmp_path / "p.pb.gz")
        assert result.returncode == 0
        assert result.stdout.split() == ["Flat", "Flat%", "Sum%", "Cum", "Cum%", "Name"]
        assert result.stderr == "pyprof: the profile has no samples of type cpu\n"

    def test_a_reader_that_leaves_is_no_error(self, tmp_path: Path) -> None:
        many = Profile([CPU], [Sample((place("f" * 200 + str(i)),), (i + 1,)) for i in range(5000)])
        save(many, tmp_path / "many.pb")
        read_end, write_end = os.pipe()
        os.close(read_end)
        with subprocess.Popen(
            [*PYPROF, "top", "-n0", str(tmp_path / "many.pb")], stdout=write_end, stderr=subprocess.PIPE
        ) as process:
            os.close(write_end)
            _, stderr = process.communicate(timeout=60)
        assert (process.returncode, stderr) == (0, b"")

    def test_a_full_disk_is_one_line(self, talk_file: Path) -> None:
        with open("/dev/full", "w") as full:
            result = subprocess.run(
                [*PYPROF, "top", str(talk_file)], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
            )
        assert (result.returncode, result.stderr) == (
            1,
            b"pyprof: standard output: No space left on device\n",
        )


class TestConvert:
    def test_formats(self, cli: Run, talk_file: Path) -> None:
        def convert(name: str, *options: str) -> Path:
            output = talk_file.with_name(name)
            result = cli("convert", talk_file, "-o", output, *options)
            assert (result.returncode, result.stdout) == (0, "")
            assert result.stderr == f"pyprof: wrote {output}\n"
            return output

        assert read(convert("a.pb.gz")) == read(convert("a.pb")) == talk()
        assert "main;__main__.doALot 20\n" in convert("a.folded", "-t", "samples").read_text()
        assert "main;__main__.doALot 200000000\n" in convert("b.folded").read_text()
        document = json.loads(convert("a.speedscope.json").read_text())
        assert [part["name"] for part in document["profiles"]] == ["samples", "cpu"]
        assert document["name"] == str(talk_file)
        assert "doALot" in convert("a.html").read_text()

    def test_label(self, cli: Run, talk_file: Path) -> None:
        output = talk_file.with_name("a.folded")
        assert cli("convert", talk_file, "-o", output, "--label", "pid=9").returncode == 1
        assert not output.exists()
        assert cli("convert", talk_file, "-o", output, "--label", "pid=7").returncode == 0

    def test_output_is_named_properly(self, cli: Run, talk_file: Path) -> None:
        result = cli("convert", talk_file, "-o", "x.svg")
        assert result.returncode == 2
        assert (
            "must end in one of .pb.gz, .pb, .pprof, .gz, .folded, .speedscope.json, .html" in result.stderr
        )
        for suffix in (".pb.gz", ".pb", ".pprof", ".gz"):
            assert cli("convert", talk_file, "-o", f"x{suffix}", "-t", "cpu").returncode == 2
        assert cli("convert", talk_file).returncode == 2

    def test_a_source_that_is_empty_is_not_the_current_directory(self, cli: Run) -> None:
        result = cli("top", "")
        assert (result.returncode, result.stdout) == (2, "")
        assert "SRC: is empty" in result.stderr

    def test_the_page_does_not_replace_a_profile(self, cli: Run, talk_file: Path) -> None:
        before = talk_file.read_bytes()
        result = cli("flame", talk_file, "-o", talk_file)
        assert result.returncode == 2
        assert "this command writes a page (.html)" in result.stderr
        assert talk_file.read_bytes() == before

    def test_a_closed_standard_output_is_no_error(self, run_process: Any, talk_file: Path) -> None:
        command = 'exec "$0" -m pyprof top "$1" >&-'
        result = run_process(["sh", "-c", command, sys.executable, str(talk_file)])
        assert (result.returncode, result.stderr) == (0, "")

    def test_an_output_that_is_no_ordinary_file_is_written_to(self, cli: Run, talk_file: Path) -> None:
        link = talk_file.with_name("out.folded")
        link.symlink_to("/dev/stdout")
        result = cli("convert", talk_file, "-o", link, "-t", "samples")
        assert result.stdout.startswith("__main__.main 3\n")
        assert link.is_symlink()

    def test_replaces_a_file_and_keeps_its_mode(self, cli: Run, talk_file: Path) -> None:
        output = talk_file.with_name("a.folded")
        output.write_text("old")
        output.chmod(0o640)
        assert cli("convert", talk_file, "-o", output).returncode == 0
        assert "doALot" in output.read_text()
        assert output.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("command", ["flame", "convert"])
class TestOutputs:
    def test_page(self, cli: Run, talk_file: Path, command: str) -> None:
        output = talk_file.with_name("page.html")
        assert cli(command, talk_file, "-o", output).returncode == 0
        page = output.read_text()
        assert page.lower().startswith("<!doctype html>")
        assert "doLittle" in page
        assert sorted(entry.name for entry in talk_file.parent.iterdir()) == ["page.html", "talk.pb.gz"]

    def test_no_such_directory(self, cli: Run, talk_file: Path, command: str) -> None:
        output = talk_file.with_name("gone") / "x.html"
        result = cli(command, talk_file, "-o", output)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == f"pyprof: {output}: No such file or directory\n"

    def test_a_directory_in_the_way(self, cli: Run, talk_file: Path, command: str) -> None:
        output = talk_file.with_name("x.html")
        output.mkdir()
        result = cli(command, talk_file, "-o", output)
        assert (result.returncode, result.stderr) == (1, f"pyprof: {output}: Is a directory\n")

    def test_a_full_disk_leaves_nothing_behind(self, cli: Run, talk_file: Path, command: str) -> None:
        link = talk_file.with_name("full.html")
        link.symlink_to("/dev/full")
        result = cli(command, talk_file, "-o", link)
        assert (result.returncode, result.stderr) == (1, f"pyprof: {link}: No space left on device\n")

    def test_a_hostile_name_is_text(self, cli: Run, tmp_path: Path, command: str) -> None:
        save(
            Profile([CPU], [Sample((place("</script><img src=x onerror=alert(1)>"),), (1,))]),
            tmp_path / "p.pb",
        )
        assert cli(command, tmp_path / "p.pb", "-o", tmp_path / "x.html").returncode == 0
        assert "<img src=x" not in (tmp_path / "x.html").read_text()


class TestUsage:
    def test_version_and_help(self, cli: Run) -> None:
        from pyprof._version import __version__

        assert cli("--version").stdout == f"pyprof {__version__}\n"
        listing = cli("--help").stdout
        for command in ("run", "top", "flame", "convert", "info"):
            assert f"  {command} " in listing
            shown = cli(command, "--help")
            assert (shown.returncode, shown.stderr) == (0, "")
            assert shown.stdout.startswith(f"usage: pyprof {command}")

    def test_the_installed_command_is_this_one(self) -> None:
        from importlib.metadata import PackageNotFoundError, entry_points

        try:
            (script,) = entry_points(group="console_scripts", name="pyprof")
        except (PackageNotFoundError, ValueError):
            pytest.skip("pyprof is not installed")
        assert script.load() is __import__("pyprof.cli.main", fromlist=["main"]).main

    @pytest.mark.parametrize(
        "words",
        [
            [],
            ["--verbose"],
            ["bogus"],
            ["top"],
            ["top", "a", "b"],
            ["top", "x", "-n", "-1"],
            ["top", "x", "-n", "many"],
            ["top", "x", "--label", "novalue"],
            ["top", "x", "--label", "=v"],
            ["top", "x", "--by", "endpoint", "--cum"],
            ["flame", "x"],
        ],
        ids=" ".join,
    )
    def test_wrong_usage_is_two(self, cli: Run, words: Sequence[str]) -> None:
        result = cli(*words)
        assert (result.returncode, result.stdout) == (2, "")
        assert "usage: pyprof" in result.stderr

    def test_an_unknown_type_is_one_line(self, cli: Run, talk_file: Path) -> None:
        for words in (("top",), ("flame", "-o", "x.html"), ("convert", "-o", "x.folded")):
            result = cli(words[0], talk_file, "-t", "wall", *words[1:], cwd=talk_file.parent)
            assert (result.returncode, result.stdout) == (1, "")
            assert result.stderr == (
                f"pyprof: {talk_file}: no sample type 'wall' in the profile; there are: samples, cpu\n"
            )

    def test_version_is_quick_to_say(self, cli: Run) -> None:
        """By what it loads: time would depend on the machine."""
        result = cli("--version", env={"PYTHONPROFILEIMPORTTIME": "1"})
        loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
        assert "argparse" in loaded
        assert loaded.isdisjoint(
            {"google.protobuf", "requests", "json", "gzip", "pyprof.pprof", "pyprof.cli.run"}
        )


class TestProgress:
    """On a pseudo-terminal, with a source that takes its time."""

    SLOW = (
        "import sys, threading; from pyprof import pprof; from pyprof.cli import source\n"
        "def slow(name, *, progress):\n"
        "    progress(0.25)\n"
        "    print(*[thread.name for thread in threading.enumerate()])\n"
        "    sys.stdin.readline()\n"
        "    return pprof.read(name)\n"
        "source.read = slow\n"
        "from pyprof.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )

    def test_is_shown_and_taken_away(self, talk_file: Path) -> None:
        terminal, theirs = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-c", self.SLOW, "top", str(talk_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"},
        ) as process:
            os.close(theirs)
            seen = _until(terminal, b"25%")
            stdout, _ = process.communicate(b"\n", timeout=60)
            seen += _rest(terminal)
        assert process.returncode == 0
        assert f"] reading {talk_file}".encode()[:30] in seen
        assert stdout.startswith(b"MainThread pyprof-progress\n")
        assert b"doALot" in stdout
        assert b"\x1b" not in seen
        # Whatever was drawn is blanked, and the cursor stands at the start of the line.
        assert seen.endswith(b" \r")

    def test_is_not_shown_elsewhere(self, talk_file: Path, run_python: Run) -> None:
        result = run_python(self.SLOW, "top", str(talk_file), stdin="\n", env={"TERM": "xterm"})
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.splitlines()[0] == "MainThread"


def _until(terminal: int, expected: bytes) -> bytes:
    seen = b""
    deadline = time.monotonic() + 30
    while expected not in seen:
        assert select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0], seen
        seen += os.read(terminal, 4096)
    return seen


def _rest(terminal: int) -> bytes:
    seen = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # Linux's end of file on a terminal
            return seen
        if not piece:
            return seen
        seen += piece


def test_addresses_stand_for_functions_that_are_not_known(cli: Run, tmp_path: Path) -> None:
    save(Profile([CPU], [Sample((Location(address=0xBEEF),), (1,))]), tmp_path / "p.pb.gz")
    assert names_of(cli("top", tmp_path / "p.pb.gz").stdout) == ["0xbeef"]
