"""The C extension, and the autostart files that wheels and editable installs put beside the package."""

import base64
import hashlib
import os
import sys
import zipfile
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

PORTABLE = os.environ.get("PYPROF_PORTABLE") == "1" or not sys.platform.startswith("linux")


def native_extension() -> Extension:
    msvc = sys.platform == "win32"
    return Extension(
        "pyprof._native",
        sources=sorted(glob("_native/**/*.c", recursive=True)),
        depends=sorted(glob("_native/**/*.h", recursive=True)),
        include_dirs=["_native"],
        define_macros=[("PYPROF_PORTABLE", "1")] if PORTABLE else [],
        extra_compile_args=(
            ["/std:c11", "/O2"]
            if msvc
            else ["-std=c11", "-O2", "-g1", "-fvisibility=hidden", "-Wall", "-Wextra", "-pthread"]
        ),
        # Before glibc 2.34 timers are in librt.
        extra_link_args=[] if msvc else ["-pthread", *([] if PORTABLE else ["-lrt", "-lm"])],
    )


def autostart_files() -> dict[str, str]:
    """Files for the top of site-packages, by name."""
    pth = 'import os; "PYPROF_ENABLED" in os.environ and __import__("pyprof_autostart").main()'
    module = Path("pyprof/autostart/pyprof_autostart.py").read_text(encoding="utf-8")
    if sys.version_info < (3, 15):
        return {"pyprof_autostart.py": module, "pyprof_autostart.pth": pth + "\n"}
    # From 3.18 the import lines of .pth files are ignored and PEP 829's .start takes over. Until then both
    # are read, and any .start entry at all makes site import pkgutil and re, 7 ms in every process of the
    # environment; a .start of the same name would moreover switch the cheap .pth line off. So its name is
    # another, and while the .pth line still runs, it takes the entry, whose work it does, off site's list.
    pth += (
        '; getattr(locals().get("self"), "_entrypoints", {}).pop(os.path.join(sitedir, "pyprof.start"), None)'
    )
    return {
        "pyprof_autostart.py": module,
        "pyprof_autostart.pth": pth + "\n",
        "pyprof.start": "pyprof_autostart:main\n",
    }


class BuildWithAutostart(build_py):
    """Wheels: the files go the way of the package's own."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for name, text in autostart_files().items():
                Path(self.build_lib, name).write_text(text, encoding="utf-8")

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = list(super().get_outputs(include_bytecode))
        if not self.editable_mode:
            outputs += [os.path.join(self.build_lib, name) for name in autostart_files()]
        return outputs


class EditableWithAutostart(editable_wheel):
    """Editable installs: setuptools has no way to bring more files along, so the finished wheel gets them."""

    def run(self) -> None:
        super().run()
        wheels = Path(self.dist_dir).glob("*.whl")
        add_to_wheel(max(wheels, key=lambda path: path.stat().st_mtime_ns), autostart_files())


def add_to_wheel(wheel: Path, files: dict[str, str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        content = {info: archive.read(info) for info in archive.infolist()}
    rows = []
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(text.encode())}\n")
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        for info, data in content.items():
            if info.filename.endswith(".dist-info/RECORD"):
                data = "".join(rows).encode() + data
            archive.writestr(info, data)


extension = native_extension()
setup(
    ext_modules=[extension] if extension.sources else [],
    cmdclass={"build_py": BuildWithAutostart, "editable_wheel": EditableWithAutostart},
)
