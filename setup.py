"""The C extension, and the autostart files that both wheels and editable installs bring along."""

import os
import sys
from glob import glob

from setuptools import Extension, setup

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
            else ["-std=c11", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra", "-pthread"]
        ),
        extra_link_args=[] if msvc else ["-pthread"],
    )


extension = native_extension()
setup(ext_modules=[extension] if extension.sources else [])
