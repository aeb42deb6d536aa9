"""How programs of tests begin that make other interpreters, by what each version of CPython has for that."""

import pytest

PRELUDE = """
try:
    import _interpreters
    def create(kind):
        return _interpreters.create("isolated" if kind == "isolated" else "legacy")
    def execute(interpreter, code):
        failure = _interpreters.exec(interpreter, code)
        assert failure is None, failure
    destroy = _interpreters.destroy
except ImportError:
    import _xxsubinterpreters as _interpreters
    def create(kind):
        return _interpreters.create(isolated=kind == "isolated")
    execute, destroy = _interpreters.run_string, _interpreters.destroy
"""

# With a GIL of its own (from 3.12 on), and with that of the main interpreter.
KINDS = pytest.mark.parametrize("kind", ["isolated", "legacy"])
