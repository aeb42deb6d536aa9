"""What the autostart files cost each start of an interpreter, where PYPROF_ENABLED is unset.

CPU time of fresh processes at the first statement of `-c`, in a virtual environment that holds nothing but

    empty   nothing
    other   a .pth file of somebody else, a comment. From 3.13 on the first .pth file of any kind makes `site`
            import a decoder, encodings.utf_8_sig: that is the interpreter's, and no .pth file avoids it
    ours    the autostart files

one after the other, round by round. `ours` above `other` is what is ours; `ours` above `empty` is what it
comes to where no other package brings a .pth file (setuptools does, and every editable installation).
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .harness import Estimate

NAMES = ("pyprof_autostart.pth", "pyprof_autostart.py", "pyprof.start")
PROGRAM = "import time; print(time.process_time())"  # built in: no file is read for it
WARM_UP = 5


def installed_files() -> dict[str, str]:
    """Those of this environment, by name."""
    paths = [Path(sysconfig.get_path("purelib"), name) for name in NAMES]
    return {path.name: path.read_text() for path in paths if path.exists()}


def measure(contents: Mapping[str, Mapping[str, str]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each round's process, for each content of site-packages (file name → text)."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "PYPROF"))}
    with tempfile.TemporaryDirectory() as directory:
        pythons = {}
        for content, files in contents.items():
            place = Path(directory, content)
            # Of the interpreter itself, not of the environment that the benchmark runs in.
            base = getattr(sys, "_base_executable", sys.executable)
            subprocess.run([base, "-m", "venv", "--without-pip", place], check=True, env=environ)
            pythons[content] = place / "bin" / "python"
            (site_packages,) = place.glob("lib/python*/site-packages")
            for name, text in files.items():
                (site_packages / name).write_text(text)
        taken: dict[str, list[float]] = {content: [] for content in contents}
        for _ in range(WARM_UP + rounds):
            for content, python in pythons.items():
                done = subprocess.run(
                    [python, "-c", PROGRAM], check=True, env=environ, stdout=subprocess.PIPE
                )
                taken[content].append(1000 * float(done.stdout))
    return {content: values[WARM_UP:] for content, values in taken.items()}


def compare(rounds: int) -> dict[str, Estimate]:
    """What is named above, round by round, in milliseconds."""
    contents = {"empty": {}, "other": {"other.pth": "# of somebody else\n"}, "ours": installed_files()}
    taken = measure(contents, rounds)
    result = {"a bare interpreter": Estimate.of(taken["empty"])}
    for one, base in (("other", "empty"), ("ours", "other"), ("ours", "empty")):
        pairs = zip(taken[one], taken[base], strict=True)
        result[f"{one} above {base}"] = Estimate.of([value - before for value, before in pairs])
    return result
