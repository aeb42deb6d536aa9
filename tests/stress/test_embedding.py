"""A program that begins and ends Python again and again, with pyprof in it.

Seen to fail: what the hook for libraries kept of an interpreter was let go of in the next one, SIGSEGV.
"""

import shlex
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from ..conftest import ROOT, run_process

HOST = """
#include <Python.h>
#include <stdio.h>

int main(int argc, char **argv) {
    for (int round = 0; round < 4; round++) {
        Py_Initialize();
        if (PyRun_SimpleString(argv[argc - 1]) != 0) {
            return 1;
        }
        if (Py_FinalizeEx() != 0) {
            return 2;
        }
        puts("ended");
    }
    return 0;
}
"""


def python_library() -> list[str]:
    """What links a program to this interpreter; nothing where there is no such library."""
    names = ("LIBDIR", "LDLIBRARY", "LIBPL", "LIBRARY", "LIBS", "SYSLIBS", "LINKFORSHARED")
    values = {name: str(sysconfig.get_config_var(name) or "") for name in names}
    shared, static = Path(values["LIBDIR"], values["LDLIBRARY"]), Path(values["LIBPL"], values["LIBRARY"])
    if shared.suffix == ".so" and shared.is_file():
        return [str(shared), f"-Wl,-rpath,{shared.parent}"]
    if static.is_file():
        return [str(static), *shlex.split(f"{values['LIBS']} {values['SYSLIBS']} {values['LINKFORSHARED']}")]
    return []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="profiling is for Linux")
def test_python_begins_and_ends_again_and_again(tmp_path: Path, require: Any) -> None:
    library = python_library()
    if not library:
        pytest.skip("this interpreter comes without a library to link to")
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")
    compiler[0] = require.tool(compiler[0], "cc", "gcc", "clang")
    source, host = tmp_path / "host.c", tmp_path / "host"
    source.write_text(HOST)
    include = f"-I{sysconfig.get_path('include')}"
    built = run_process([*compiler, include, "-o", str(host), str(source), *library])
    if "@GLIBC_" in built.stderr:
        pytest.skip("this interpreter's library was made for another C library than is linked to here")
    assert built.returncode == 0, built.stderr
    program = """
import pyprof
pyprof.start(exporter="none", memory_period=64)
kept = [bytes(1000) for _ in range(1000)]
assert pyprof.stats().memory_samples > 0
pyprof.stop()
"""
    paths = f"{ROOT}:{sysconfig.get_path('purelib')}:{sysconfig.get_path('platlib')}"
    environment = {"PYTHONHOME": sys.base_prefix, "PYTHONPATH": paths}
    result = run_process([str(host), program], env=environment, timeout=120)
    assert (result.returncode, result.stdout) == (0, "ended\n" * 4), result.stderr
