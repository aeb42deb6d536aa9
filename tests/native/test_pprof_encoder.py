"""What `Window.encode` writes, against a plain model; read by protobuf and by go tool pprof."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyprof import _native
from pyprof.pprof.proto import profile_messages

INT64_MAX = 2**63 - 1
COLUMNS = ("samples", "cpu_samples", "cpu_ns", "wall_ns", "gil_held_ns", "gil_wait_ns")
COLUMN_NUMBERS = tuple(getattr(_native, name.upper()) for name in COLUMNS)

Function = tuple[str, str, int]  # qualname or shown name, file name, first line
Frame = tuple[str, str, int, int]  # the same and the line


def escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True)
class Addition:
    stack: tuple[Frame, ...]
    values: tuple[int, ...]
    """As many as COLUMNS."""
    truncated: bool = False


@dataclass
class Decoded:
    """A message with every reference followed, and checked on the way."""

    message: Any
    samples: dict[tuple[Frame, ...], tuple[int, ...]] = field(default_factory=dict)
    labels: set[tuple[tuple[str, int, str], ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        message = self.message
        self.strings = [raw.decode("utf-8") for raw in message.string_table]  # strict: all of it is UTF-8
        self.used_strings = {0}
        assert self.strings[0] == ""
        assert len(set(self.strings)) == len(self.strings)
        (mapping,) = message.mapping
        assert mapping.id == 1
        assert mapping.has_functions
        assert mapping.has_filenames
        assert mapping.has_line_numbers
        self.mapping = self.text(mapping.filename)
        functions = self.check_functions()
        locations = self.check_locations(functions)
        self.read_samples(locations)
        self.sample_types = [(self.text(t.type), self.text(t.unit)) for t in message.sample_type]
        self.period_type = (self.text(message.period_type.type), self.text(message.period_type.unit))
        self.comments = [self.text(number) for number in message.comment]
        self.default_sample_type = self.text(message.default_sample_type)
        assert self.used_strings == set(range(len(self.strings)))

    def text(self, number: int) -> str:
        self.used_strings.add(number)
        return self.strings[number]

    def check_functions(self) -> list[Function]:
        found = [(self.text(f.name), self.text(f.filename), f.start_line) for f in self.message.function]
        assert [f.id for f in self.message.function] == list(range(1, len(found) + 1))
        assert all(f.system_name == 0 for f in self.message.function)
        assert len(set(found)) == len(found)
        return found

    def check_locations(self, functions: Sequence[Function]) -> list[Frame]:
        found: list[Frame] = []
        used = set()
        for location in self.message.location:
            (line,) = location.line
            used.add(line.function_id)
            found.append((*functions[line.function_id - 1], line.line))
            assert location.mapping_id == 1
        assert [location.id for location in self.message.location] == list(range(1, len(found) + 1))
        assert len(set(found)) == len(found)
        assert used == set(range(1, len(functions) + 1))
        return found

    def read_samples(self, locations: Sequence[Frame]) -> None:
        used = set()
        for sample in self.message.sample:
            used.update(sample.location_id)
            stack = tuple(locations[number - 1] for number in sample.location_id)
            assert stack not in self.samples
            assert any(sample.value)
            assert len(sample.value) == len(self.message.sample_type)
            self.samples[stack] = tuple(sample.value)
            self.labels.add(tuple((self.text(x.key), x.num, self.text(x.num_unit)) for x in sample.label))
            assert all(label.str == 0 for label in sample.label)  # text labels: test_labels_of_samples
        assert used == set(range(1, len(locations) + 1))


def decode(encoded: bytes) -> Decoded:
    message = profile_messages()["Profile"].FromString(encoded)
    # protobuf writes packed fields and the shortest numbers: nothing is longer than it has to be.
    assert len(message.SerializeToString()) == len(encoded)
    return Decoded(message)


def expected_samples(
    additions: Iterable[Addition], columns: Sequence[int], files: Mapping[str, tuple[str, str]] | None
) -> dict[tuple[Frame, ...], tuple[int, ...]]:
    """The straightforward way: name the frames, add up, leave out what is zero."""
    in_window: dict[tuple[tuple[Frame, ...], bool], list[int]] = {}
    for addition in additions:
        key = (
            tuple((escaped(q), escaped(f), start, line) for q, f, start, line in addition.stack),
            addition.truncated,
        )
        row = in_window.setdefault(key, [0] * len(COLUMNS))
        for i, value in enumerate(addition.values):
            row[i] = min(row[i] + value, INT64_MAX)
    samples: dict[tuple[Frame, ...], tuple[int, ...]] = {}
    for (stack, truncated), row in in_window.items():
        shown = []
        for qualname, filename, start, line in stack:
            path, module = (escaped(x) for x in files[filename]) if files is not None else (filename, "")
            shown.append((f"{module}.{qualname}" if module else qualname, path, start, line))
        if truncated:
            shown.append(("[truncated]", "", 0, 0))
        selected = tuple(row[column] for column in columns)
        if any(selected):
            before = samples.get(tuple(shown), (0,) * len(columns))
            samples[tuple(shown)] = tuple(
                min(a + b, INT64_MAX) for a, b in zip(before, selected, strict=True)
            )
    return samples


def fill(additions: Iterable[Addition], **options: int) -> _native.Window:
    window = _native.Window(2**26, **options)
    for addition in additions:
        values = dict(zip(COLUMNS, addition.values, strict=True))
        window.add(iter(addition.stack), truncated=addition.truncated, **values)
    return window


# Few names, so that functions, lines and whole stacks meet again; and any name at all, surrogates included.
any_text = st.text(st.characters(), max_size=12)
names = st.sampled_from(["", "f", "g", "m.f", "C.<lambda>", "é", "\ud800", "a\0b"]) | any_text
numbers = st.integers(0, 3) | st.integers(0, 2**31 - 1)
values = st.integers(0, 3) | st.integers(0, INT64_MAX)
functions = st.lists(st.tuples(names, names, numbers), min_size=1, max_size=6)


@st.composite
def windows(draw: st.DrawFn) -> list[Addition]:
    pool = draw(functions)
    frame = st.builds(lambda function, line: (*function, line), st.sampled_from(pool), numbers)
    short = st.lists(frame, max_size=6)
    deep = st.builds(
        lambda part, times: part * times, st.lists(frame, min_size=1, max_size=6), st.integers(1, 300)
    )
    addition = st.builds(
        Addition, (short | deep).map(tuple), st.tuples(*[values] * len(COLUMNS)), st.booleans()
    )
    stacks = draw(st.lists(addition, max_size=12))
    return stacks + draw(st.lists(st.sampled_from(stacks), max_size=12) if stacks else st.just([]))


@given(
    additions=windows(),
    columns=st.lists(st.sampled_from(COLUMN_NUMBERS), min_size=1, max_size=5),
    described=st.none() | st.lists(st.tuples(names, names), min_size=1, max_size=3),
    texts=st.tuples(names, names, names, names, names),
    labels=st.dictionaries(
        any_text.map(escaped), st.tuples(st.integers(-(2**63), INT64_MAX), names), max_size=3
    ),
    comments=st.lists(names, max_size=3),
    times=st.tuples(values, values, values),
)
@settings(max_examples=100, deadline=None)
def test_message_means_what_the_model_says(
    additions: list[Addition],
    columns: list[int],
    described: list[tuple[str, str]] | None,
    texts: tuple[str, str, str, str, str],
    labels: dict[str, tuple[int, str]],
    comments: list[str],
    times: tuple[int, int, int],
) -> None:
    window = fill(additions, start_ns=times[0], duration_ns=times[1])
    files = window.files
    assert files == list(dict.fromkeys(escaped(frame[1]) for a in additions for frame in a.stack))
    shown = None if described is None else [described[i % len(described)] for i in range(len(files))]
    type_name, unit, period_unit, default, mapping = texts
    encoded = window.encode(
        [(type_name, unit, column) for column in columns],
        period_type=(type_name, period_unit),
        period=times[2],
        files=shown,
        labels=labels,
        comments=comments,
        default_sample_type=default,
        mapping=mapping,
    )
    decoded = decode(encoded)
    by_name = None if shown is None else dict(zip(files, shown, strict=True))
    assert decoded.samples == expected_samples(additions, columns, by_name)
    assert decoded.sample_types == [(escaped(type_name), escaped(unit))] * len(columns)
    assert decoded.period_type == (escaped(type_name), escaped(period_unit))
    assert decoded.comments == [escaped(comment) for comment in comments]
    assert decoded.default_sample_type == escaped(default)
    assert decoded.mapping == escaped(mapping)
    expected_labels = tuple((name, number, escaped(unit)) for name, (number, unit) in labels.items())
    assert decoded.labels == ({expected_labels} if decoded.samples else set())
    message = decoded.message
    assert (message.time_nanos, message.duration_nanos, message.period) == times


def encode_samples(window: _native.Window, **keywords: Any) -> Decoded:
    return decode(
        window.encode(
            [("samples", "count", _native.SAMPLES)], period_type=("s", "count"), period=1, **keywords
        )
    )


def test_stacks_that_names_make_equal_are_one_sample() -> None:
    window = _native.Window()
    window.add([("f", "/a/x.py", 1, 2), ("<module>", "/a/x.py", 0, 9)], samples=3)
    window.add([("f", "/b/x.py", 1, 2), ("<module>", "/b/x.py", 0, 9)], samples=4)
    window.add([("f", "/c/x.py", 1, 2), ("<module>", "/b/x.py", 0, 9)], samples=INT64_MAX)
    assert len(encode_samples(window).samples) == 3
    assert window.files == ["/a/x.py", "/b/x.py", "/c/x.py"]
    decoded = encode_samples(window, files=[("x.py", "x"), ("x.py", "x"), ("x.py", "x")])
    assert decoded.samples == {(("x.f", "x.py", 1, 2), ("x.<module>", "x.py", 0, 9)): (INT64_MAX,)}
    # The dot may come from either side: it is the name that counts.
    window = _native.Window()
    window.add([("b.c", "1", 1, 1)], samples=1)
    window.add([("c", "2", 1, 1)], samples=1)
    assert encode_samples(window, files=[("f", "a"), ("f", "a.b")]).samples == {(("a.b.c", "f", 1, 1),): (2,)}


def test_selected_values_decide_what_is_written() -> None:
    window = _native.Window()
    window.add([("idle", "idle.py", 1, 1)], samples=1, wall_ns=5)
    window.add([("busy", "busy.py", 1, 1)], samples=1, cpu_ns=7)
    encoded = window.encode(
        [("cpu", "nanoseconds", _native.CPU_NS)], period_type=("cpu", "nanoseconds"), period=1
    )
    assert decode(encoded).samples == {(("busy", "busy.py", 1, 1),): (7,)}
    assert b"idle" not in encoded
    nothing = window.encode(
        [("c", "count", _native.CPU_SAMPLES)], period_type=("cpu", "nanoseconds"), period=1
    )
    assert decode(nothing).samples == {}


def test_overflow_and_truncated_are_visible_and_have_no_module() -> None:
    window = _native.Window(40_000)
    for line in range(5_000):
        window.add([("f", "x.py", 1, line)] * 3, samples=2, truncated=True)
    decoded = encode_samples(window, files=[("x.py", "module")])
    overflow = (("[overflow]", "", 0, 0),)
    assert window.counters["overflowed"] == decoded.samples[overflow][0]
    assert sum(value for (value,) in decoded.samples.values()) == 10_000
    kept = [stack for stack in decoded.samples if stack != overflow]
    assert len(kept) == window.stacks
    assert kept[0] == (*[("module.f", "x.py", 1, kept[0][0][3])] * 3, ("[truncated]", "", 0, 0))


def test_labels_of_samples() -> None:
    """Samples are apart by what is shown of their labels, and those that show the same are one."""
    window = _native.Window()
    stack = [("f", "x.py", 1, 2)]
    window.add(stack, samples=1)
    window.add(stack, samples=2, labels={"b": "2", "a": "1"})
    window.add(stack, samples=4, labels={"a": "1", "b": "2"})
    window.add(stack, samples=8, labels={"a": "1", "b": "é"})
    window.add(stack, samples=16, labels={"a": None})
    assert window.stacks == 1
    assert window.labels == [("a", "1"), ("b", "2"), ("b", "é")]

    def encoded(values: Sequence[str | None] | None) -> dict[tuple[tuple[str, str], ...], int]:
        data = window.encode(
            [("samples", "count", _native.SAMPLES)],
            period_type=("s", "count"),
            period=1,
            labels={"pid": 7},
            label_values=values,
        )
        message = profile_messages()["Profile"].FromString(data)
        texts = message.string_table
        found: dict[tuple[tuple[str, str], ...], int] = {}
        for sample in message.sample:
            assert [label.num for label in sample.label if label.num] == [7]
            key = tuple(
                (texts[label.key].decode(), texts[label.str].decode()) for label in sample.label if label.str
            )
            assert key not in found
            found[key] = sample.value[0]
        return found

    assert encoded(None) == {(): 17, (("a", "1"), ("b", "2")): 6, (("a", "1"), ("b", "é")): 8}
    assert encoded(["1", "other", "other"]) == {(): 17, (("a", "1"), ("b", "other")): 14}
    assert encoded(["1", None, None]) == {(): 17, (("a", "1"),): 14}
    with pytest.raises(ValueError, match="label_values must have one for each"):
        encoded(["1", "2"])
    with pytest.raises(ValueError, match="label names"):
        window.add(stack, labels={"a-b": "1"})
    with pytest.raises(TypeError):
        window.add(stack, labels=5)  # type: ignore[arg-type]


def test_labels_may_be_plain_numbers() -> None:
    window = _native.Window()
    window.add([("f", "x.py", 1, 1)], samples=1)
    assert encode_samples(window, labels={"pid": 7, "rss": (9, "bytes")}).labels == {
        (("pid", 7, ""), ("rss", 9, "bytes"))
    }


GOOD: Mapping[str, Any] = {"sample_types": [("s", "count", 0)], "period_type": ("s", "count"), "period": 1}


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"sample_types": []}, ValueError, "sample_types"),
        ({"sample_types": "cpu"}, TypeError, "sample_types"),
        ({"sample_types": 7}, TypeError, "not iterable"),
        ({"sample_types": [("s", "count")]}, TypeError, "sample_types"),
        ({"sample_types": [("s", "count", 10)]}, ValueError, "column must be from 0 to 9"),
        ({"sample_types": [("s", "count", -1)]}, ValueError, "column"),
        ({"sample_types": [(b"s", "count", 0)]}, TypeError, "type must be str, not bytes"),
        ({"sample_types": [("s", None, 0)]}, TypeError, "unit must be str"),
        ({"period_type": "cpu"}, TypeError, "period_type"),
        ({"period_type": ("a", 1)}, TypeError, "period_type: unit"),
        ({"period": 1.5}, TypeError, "period must be an integer, not float"),
        ({"period": 2**63}, ValueError, "period must be from 0"),
        ({"period": -1}, ValueError, "period"),
        ({"files": []}, ValueError, "files"),
        ({"files": [("a", ""), ("b", "")]}, ValueError, "files"),
        ({"files": ["ab"]}, TypeError, "files"),
        ({"files": [("a", None)]}, TypeError, "files: module"),
        ({"labels": {"a": "b"}}, TypeError, "labels: value"),
        ({"labels": {1: 1}}, TypeError, "labels: name"),
        ({"labels": {"a": 2**63}}, ValueError, "labels: value"),
        ({"labels": {"a": (1, 2)}}, TypeError, "labels: unit"),
        ({"labels": [("a", 1)]}, TypeError, "labels must be a mapping, not list"),
        ({"labels": "a"}, TypeError, "labels must be a mapping, not str"),
        ({"comments": "text"}, TypeError, "comments"),
        ({"comments": [b"x"]}, TypeError, "comments must be str"),
        ({"default_sample_type": None}, TypeError, "default_sample_type"),
        ({"mapping": b"/bin"}, TypeError, "mapping must be str"),
        ({"nonsense": 1}, TypeError, "nonsense"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    window = _native.Window()
    window.add([("f", "x.py", 1, 1)], samples=1)
    with pytest.raises(error, match=re.escape(says)):
        window.encode(**{**GOOD, **arguments})
    assert decode(window.encode(**GOOD)).samples  # nothing is stuck or spoilt


def test_missing_arguments_are_named() -> None:
    for name in ("period_type", "period"):
        with pytest.raises(TypeError, match=name):
            _native.Window().encode(**{k: v for k, v in GOOD.items() if k != name})


RAW_SAMPLE = re.compile(r"^ +(\d+) +(\d+): ([\d ]+)$")


def test_go_tool_pprof_reads_it(tmp_path: Path, require: Any, run_process: Callable[..., Any]) -> None:
    go = require.tool("go")
    names = [
        "<module>",
        "C.<lambda>",
        "f.<locals>.<listcomp>",
        "größe",
        "operator()",
        "a b\tc",
        "{weird}::<T>",
    ]
    window = _native.Window(start_ns=1_700_000_000_000_000_000, duration_ns=10_000_000_000)
    for i, name in enumerate(names):
        window.add(
            [(name, "/app/m.py", i, i + 1), ("main", "/app/m.py", 1, 2)], samples=i + 1, cpu_ns=1000 * (i + 1)
        )
    path = tmp_path / "profile.pb"
    path.write_bytes(
        window.encode(
            [("samples", "count", _native.SAMPLES), ("cpu", "nanoseconds", _native.CPU_NS)],
            period_type=("cpu", "nanoseconds"),
            period=10_000_000,
            files=[("/app/m.py", "m")],
            labels={"pid": 17},
            comments=["made by a test"],
            default_sample_type="samples",
            mapping="/usr/bin/python3",
        )
    )
    raw = run_process([go, "tool", "pprof", "-raw", path], timeout=120)
    assert raw.returncode == 0, raw.stderr
    locations = dict(re.findall(r"^ +(\d+): 0x0 M=1 (.+?) /app/m\.py:", raw.stdout, re.MULTILINE))
    found = Counter()
    for line in raw.stdout.splitlines():
        if match := RAW_SAMPLE.match(line):
            stack = tuple(locations[number] for number in match[3].split())
            found[stack] = (int(match[1]), int(match[2]))
    assert found == {(f"m.{name}", "m.main"): (i + 1, 1000 * (i + 1)) for i, name in enumerate(names)}
    assert "Comment: made by a test" in raw.stdout
    assert "/usr/bin/python3" in raw.stdout
    assert "[FN][FL][LN]" in raw.stdout

    top = run_process([go, "tool", "pprof", "-top", "-nodecount=100", path], timeout=120)
    assert top.returncode == 0, top.stderr
    total = len(names) * (len(names) + 1) // 2
    assert re.search(rf"^Showing nodes accounting for {total}, 100%", top.stdout, re.MULTILINE)
    for i, name in enumerate(names):
        assert re.search(rf"^ +{i + 1} .* m\.{re.escape(name)}$", top.stdout, re.MULTILINE), top.stdout
