"""Which function a line belongs to, for those who know only file and line."""

import tokenize
from bisect import bisect_right
from collections.abc import Callable

_MAX_KNOWN = 2_000
_MAX_BYTES = 4 * 1024 * 1024


class EnclosingFunctions:
    """Reads each file once, with `tokenize`, which lets other threads run; parsing at once does not."""

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


class _Scope:
    def __init__(self, name: str, first_line: int, is_class: bool) -> None:
        self.name, self.first_line, self.is_class = name, first_line, is_class


def _read(filename: str) -> _Functions:
    functions = _Functions()
    if filename.startswith("<"):
        return functions
    try:
        with tokenize.open(filename) as file:
            if file.seek(0, 2) <= _MAX_BYTES:
                file.seek(0)
                _scan(file.readline, functions)
    except (OSError, SyntaxError, UnicodeError, ValueError, tokenize.TokenError):
        pass  # what was found up to there is right
    return functions


def _scan(readline: Callable[[], str], functions: _Functions) -> None:
    """One pass over the tokens. A scope lasts from its `def` to the dedent that ends its block."""
    scopes: list[tuple[int, _Scope]] = []  # with the depth of indentation that it is declared at
    depth = decorated_from = begins = 0
    at_start = True  # of a logical line
    opening: _Scope | None = None  # declared, its block is still to come
    words: list[str] = []  # the first ones of the logical line
    last = ""  # of its tokens
    for token in tokenize.generate_tokens(readline):
        kind = token.type
        if kind == tokenize.INDENT:
            depth += 1
        elif kind == tokenize.DEDENT:
            depth -= 1
            while scopes and scopes[-1][0] >= depth:
                scopes.pop()
        if kind in (tokenize.INDENT, tokenize.DEDENT, tokenize.NL, tokenize.COMMENT):
            continue
        line = token.start[0]
        if at_start:
            at_start, words, begins = False, [], line
            while scopes and scopes[-1][0] >= depth:  # its block was on its own line
                scopes.pop()
            _note(functions, line, scopes)
            if token.string == "@" and not decorated_from:
                decorated_from = line
        if kind == tokenize.NEWLINE:
            at_start = True
            if opening is not None:
                scopes.append((depth, opening))
                opening = None
                # The declaration belongs to who declares, unless the block is on its line.
                _note(functions, line + 1 if last == ":" else begins, scopes)
            elif words[:1] != ["@"]:
                decorated_from = 0
            continue
        last = token.string
        if len(words) < 3:
            words.append(token.string)
            declared = words[-2:] if words[:1] == ["async"] else words
            if len(declared) == 2 and declared[0] in ("def", "class") and kind == tokenize.NAME:
                first_line = decorated_from or line
                opening = _Scope(_qualified(scopes, token.string), first_line, declared[0] == "class")
                decorated_from = 0


def _qualified(scopes: list[tuple[int, _Scope]], name: str) -> str:
    if not scopes:
        return name
    outer = scopes[-1][1]
    return f"{outer.name}.{name}" if outer.is_class else f"{outer.name}.<locals>.{name}"


def _note(functions: _Functions, line: int, scopes: list[tuple[int, _Scope]]) -> None:
    if scopes:
        functions.note(line, scopes[-1][1].name, scopes[-1][1].first_line)
    else:
        functions.note(line, "<module>", 0)
