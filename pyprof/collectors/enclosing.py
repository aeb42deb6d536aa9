"""Which function a line belongs to, for those who know only file and line."""

import re
from bisect import bisect_right

_MAX_KNOWN = 2_000
_MAX_CHARACTERS = 4 * 1024 * 1024


class EnclosingFunctions:
    """Reads each file once, by its indentation: while tracemalloc is on, to parse or tokenize takes long."""

    def __init__(self) -> None:
        self._known: dict[str, _Functions] = {}

    def find(self, filename: str, line: int) -> tuple[str, int]:
        """Qualified name and first line of the innermost `def` or class around a line.

        Outside of all, and where no file can be read, as for `<string>`, `<module>` and 0.
        """
        functions = self._known.get(filename)
        if functions is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            functions = self._known[filename] = _read(filename)
        return functions.find(line)


class _Functions:
    """Of one file: from each line on, until the next one here, what a line belongs to."""

    def __init__(self) -> None:
        self._lines = [0]
        self._found = [("<module>", 0)]

    def note(self, line: int, name: str, first_line: int) -> None:
        if self._lines[-1] == line:
            self._found[-1] = (name, first_line)
        else:
            self._lines.append(line)
            self._found.append((name, first_line))

    def find(self, line: int) -> tuple[str, int]:
        return self._found[bisect_right(self._lines, line) - 1]


_PIECES = re.compile(
    r"""
    ^(?P<indent>[ \t]*)  # of a line that is code, and closes no bracket
    (?:(?:async[ \t]+)?(?P<kind>def|class)[ \t]+(?P<name>\w+)|(?P<decorator>@)|(?=[^\s\#)\]}]))
    |"{3}(?:[^"\\]|\\.|"(?!""))*"{3}
    |'{3}(?:[^'\\]|\\.|'(?!''))*'{3}
    |"(?:[^"\\\n]|\\.)*"
    |'(?:[^'\\\n]|\\.)*'
    |\#[^\n]*
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
_BLOCK_ON_THE_LINE = re.compile(r"[^\n]*:[ \t]*[^\s#:\])}][^\n]*[^:\n]$", re.MULTILINE)


class _Scope:
    def __init__(self, indent: int, name: str, first_line: int, is_class: bool) -> None:
        self.indent, self.name, self.first_line, self.is_class = indent, name, first_line, is_class

    def inner(self, name: str) -> str:
        """The qualified name of what is declared here."""
        return f"{self.name}.{name}" if self.is_class else f"{self.name}.<locals>.{name}"


def _read(filename: str) -> _Functions:
    functions = _Functions()
    if filename.startswith("<"):
        return functions
    try:
        import tokenize

        with tokenize.open(filename) as file:
            text = file.read(_MAX_CHARACTERS)
    except (OSError, SyntaxError, UnicodeError, ValueError):
        return functions
    _scan(text, functions)
    return functions


def _scan(text: str, functions: _Functions) -> None:
    scopes: list[_Scope] = []
    line, counted = 1, 0
    decorated_from = 0
    for piece in _PIECES.finditer(text):
        if piece["indent"] is None:
            continue  # a string or a comment: what looks like code in it is none
        line += text.count("\n", counted, piece.start())
        counted = piece.start()
        indent = len(piece["indent"].expandtabs())
        while scopes and scopes[-1].indent >= indent:
            scopes.pop()
        _note(functions, line, scopes)
        if piece["decorator"]:
            decorated_from = decorated_from or line
        elif piece["kind"]:
            name = scopes[-1].inner(piece["name"]) if scopes else piece["name"]
            scopes.append(_Scope(indent, name, decorated_from or line, piece["kind"] == "class"))
            # The declaration belongs to who declares, unless the block is on its line.
            _note(functions, line + (not _BLOCK_ON_THE_LINE.match(text, piece.end())), scopes)
            decorated_from = 0


def _note(functions: _Functions, line: int, scopes: list[_Scope]) -> None:
    if scopes:
        functions.note(line, scopes[-1].name, scopes[-1].first_line)
    else:
        functions.note(line, "<module>", 0)
