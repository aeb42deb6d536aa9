"""Functions whose names are not ASCII: Latin-1, CJK, beyond the basic plane; methods, closures, lambdas."""

from collections.abc import Callable
from pathlib import Path
from time import thread_time

from recording import Truth, record

SECONDS = 0.4


def größe_é(truth: Truth) -> None:
    begin = thread_time()
    while thread_time() < begin + SECONDS:
        for _ in range(200):
            pass
    truth.add_flat("__main__.größe_é", thread_time() - begin)


class 注文:
    def 計算する(self, truth: Truth) -> None:
        begin = thread_time()
        while thread_time() < begin + SECONDS:
            for _ in range(200):
                pass
        truth.add_flat("__main__.注文.計算する", thread_time() - begin)


def 𠀋部(truth: Truth) -> None:
    begin = thread_time()
    while thread_time() < begin + SECONDS:
        for _ in range(200):
            pass
    truth.add_flat("__main__.𠀋部", thread_time() - begin)


def enclosing() -> Callable[[Truth], None]:
    def вложенная(truth: Truth) -> None:
        begin = thread_time()
        while thread_time() < begin + SECONDS:
            for _ in range(200):
                pass
        truth.add_flat("__main__.enclosing.<locals>.вложенная", thread_time() - begin)

    return вложенная


SOURCE = """
def gemacht(truth):
    begin = thread_time()
    while thread_time() < begin + SECONDS:
        for _ in range(200):
            pass
    truth.add_flat(NAME, thread_time() - begin)
"""
FILE = str(Path(__file__).with_name("öffnung_模块_𠀋.py"))


def run(truth: Truth) -> None:
    größe_é(truth)
    注文().計算する(truth)
    𠀋部(truth)
    enclosing()(truth)
    # No module has this file: its stem stands for one.
    names = {"thread_time": thread_time, "SECONDS": SECONDS, "NAME": f"{Path(FILE).stem}.gemacht"}
    exec(compile(SOURCE, FILE, "exec"), names)
    names["gemacht"](truth)  # type: ignore[operator]
    truth.notes["file"] = FILE


record(run)
