"""C functions that take turns, called from one line; and Python functions that C functions call."""

import hashlib
import json
import random
import re
import zlib
from collections.abc import Callable
from time import thread_time
from typing import Any

from recording import Truth, record

RANDOM = random.Random(1)
BYTES = RANDOM.randbytes(100_000)
NUMBERS = [RANDOM.random() for _ in range(8_000)]
CALLS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "zlib.compress": (zlib.compress, BYTES),
    "_hashlib.openssl_sha256": (hashlib.sha256, BYTES * 15),
    "re.Pattern.search": (re.compile("(ab|ba)+c").search, "ab" * 150),
    "builtins.sorted": (sorted, NUMBERS),
}


def call(function: Callable[[Any], Any], argument: Any) -> None:
    function(argument)  # line: call


def key(number: float) -> float:
    for _ in range(200):
        number = -number
    return number


def take_turns(truth: Truth) -> None:
    while sum(truth.flat.values()) < 4:
        for name, (function, argument) in CALLS.items():
            begin = thread_time()
            call(function, argument)
            truth.add_flat(name, thread_time() - begin)


def sort_by_key(truth: Truth) -> None:
    begin = thread_time()
    while thread_time() < begin + 0.5:
        sorted(NUMBERS, key=key)
    truth.add_cum("__main__.sort_by_key", thread_time() - begin)


def encode(truth: Truth) -> None:
    begin = thread_time()
    while thread_time() < begin + 0.5:
        json.dumps(NUMBERS)
    truth.add_cum("__main__.encode", thread_time() - begin)


class Called:
    def __call__(self) -> None:
        for _ in range(1000):
            pass


def call_object(truth: Truth) -> None:
    called = Called()
    begin = thread_time()
    while thread_time() < begin + 0.5:
        called()
    truth.add_cum("__main__.call_object", thread_time() - begin)


def run(truth: Truth) -> None:
    take_turns(truth)
    sort_by_key(truth)
    encode(truth)
    call_object(truth)


record(run)
