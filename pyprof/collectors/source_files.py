"""Which module a source file belongs to: code objects know their file, not their module."""

import os
import sys
from collections.abc import Sequence

_MAX_KNOWN = 20_000


class SourceFiles:
    """Remembers the answer for each `co_filename` it was asked about."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, str]] = {}
        self._script = _script()

    def describe(self, filenames: Sequence[str]) -> list[tuple[str, str]]:
        """For each file name the path to show (absolute where there is such a file) and the module that
        prefixes its functions: `__main__` for the script, else the entry of `sys.modules` that was loaded
        from it, else the stem; none for code that came from no file, such as `<string>`.
        """
        unknown = [name for name in filenames if name not in self._known]
        if unknown:
            if len(self._known) > _MAX_KNOWN:
                self._known.clear()
                unknown = list(filenames)
            modules = _modules_by_file(self._script)
            for name in unknown:
                self._known[name] = _describe(name, modules)
        return [self._known[name] for name in filenames]


def _script() -> str:
    """The program's file as its code objects spell it; "" where there is none.

    At the start: Python takes `__main__.__file__` away again before it calls what atexit has. Before the
    program itself runs, as in autostart, there is only the command line.
    """
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if isinstance(file, str):
        return file
    words = getattr(sys, "argv", None) or [""]
    file = "" if words[0] in ("", "-", "-c", "-m") else words[0]
    if not file or os.path.isabs(file):
        return file
    try:
        return f"{os.getcwd()}/{file}"  # as Python does it: `/./`, `/../` and a second `/` stay
    except OSError:  # the directory is gone
        return file


def _describe(filename: str, modules: dict[str, str]) -> tuple[str, str]:
    if filename.startswith("<"):
        frozen = filename.startswith("<frozen ") and filename.endswith(">")
        return filename, filename[len("<frozen ") : -1] if frozen else ""
    path = filename
    if filename and not os.path.isabs(filename) and os.path.exists(filename):
        path = os.path.abspath(filename)
    module = modules.get(filename) or modules.get(path)
    if module is None:
        module = os.path.splitext(os.path.basename(filename))[0]
    return path, module


def _modules_by_file(script: str) -> dict[str, str]:
    modules: dict[str, str] = {}
    main = sys.modules.get("__main__")
    for module in (*sys.modules.copy().values(), main):  # `__main__` last: it wins
        # Not getattr: lazy modules load at the first attribute that is asked of them.
        try:
            names = object.__getattribute__(module, "__dict__")
            name = names.get("__name__")
            origin = getattr(names.get("__spec__"), "origin", None)
        except Exception:  # anything can stand in sys.modules
            continue
        for file in (origin, names.get("__file__")):
            if isinstance(file, str) and isinstance(name, str):
                modules[_spelled(file)] = name
    if script:
        modules[_spelled(script)] = "__main__"
    return modules


def _spelled(file: str) -> str:
    """As in a window, where undecodable bytes of a name (lone surrogates) are escapes."""
    return file if file.isascii() else file.encode("utf-8", "backslashreplace").decode()
