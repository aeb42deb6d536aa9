"""The table of `top`: the talk's numbers, google/pprof's numbers, and what cum means."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyprof.pprof import (
    Label,
    Profile,
    ProfileError,
    Sample,
    by_label,
    format_by_label,
    format_top,
    save,
    top,
    with_label,
)
from pyprof.pprof.units import choose_scale, format_percent

from .profiles import CPU, SAMPLES, go_pprof, ordinary_profiles, place, talk

TALK_COUNTS = """\
Flat   Flat%    Sum%  Cum    Cum%  Name
  20  52.63%  52.63%   25  65.79%  __main__.doALot
  10  26.32%  78.95%   10  26.32%  __main__.prepare
   5  13.16%  92.11%   10  26.32%  __main__.doLittle
   3   7.89%    100%   38    100%  __main__.main
"""

TALK_TIMES_BY_CUM = """\
 Flat   Flat%    Sum%    Cum    Cum%  Name
 30ms   7.89%   7.89%  380ms    100%  __main__.main
200ms  52.63%  60.53%  250ms  65.79%  __main__.doALot
 50ms  13.16%  73.68%  100ms  26.32%  __main__.doLittle
100ms  26.32%    100%  100ms  26.32%  __main__.prepare
"""


def test_the_talks_table() -> None:
    assert format_top(top(talk(), "samples"), "count") == TALK_COUNTS
    assert format_top(top(talk(), by_cum=True), "nanoseconds") == TALK_TIMES_BY_CUM


@pytest.mark.slow
@given(ordinary_profiles(), st.booleans())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_table_is_google_pprofs(require: Any, tmp_path: Path, profile: Profile, by_cum: bool) -> None:
    go = require.tool("go")
    save(profile, tmp_path / "p.pb.gz")
    order = ["-cum"] if by_cum else []
    options = [*order, "-nodecount=100000", "-nodefraction=0", "-edgefraction=0", "-sample_index=amount"]
    printed = go_pprof(go, "-top", *options, "p.pb.gz", cwd=tmp_path).splitlines()
    header = next(
        i for i, line in enumerate(printed) if line.split() == ["flat", "flat%", "sum%", "cum", "cum%"]
    )
    theirs = [line.split(maxsplit=5) for line in printed[header + 1 :]]
    rows = top(profile, by_cum=by_cum)
    ours = [line.split(maxsplit=5) for line in format_top(rows, profile.value_type().unit).splitlines()[1:]]
    assert ours == theirs


def test_recursion_counts_once_for_cum() -> None:
    a, b = place("a"), place("b")
    rows = top(Profile([CPU], [Sample((a, b, a, a), (10,)), Sample((b, a), (1,))]))
    assert [(row.name, row.flat, row.cum) for row in rows] == [("a", 10, 11), ("b", 1, 11)]


def test_a_function_on_several_lines_is_one_row() -> None:
    rows = top(Profile([CPU], [Sample((place("f", line),), (1,)) for line in range(5)]))
    assert [(row.name, row.flat, row.cum) for row in rows] == [("f", 5, 5)]


def test_percent_is_of_the_whole_profile_also_in_a_cut_table() -> None:
    (row,) = top(talk(), "samples", limit=1)
    assert (row.name, row.total) == ("__main__.doALot", 38)
    assert round(row.flat_share, 3) == round(row.sum_share, 3) == 0.526
    assert round(row.cum_share, 3) == 0.658


def test_equal_values_stand_by_name() -> None:
    rows = top(Profile([CPU], [Sample((place(name),), (1,)) for name in "cab"]))
    assert [row.name for row in rows] == ["a", "b", "c"]


def labelled(*samples: tuple[int, tuple[Label, ...]]) -> Profile:
    return Profile([CPU], [Sample((place("f"),), (value,), labels) for value, labels in samples])


def test_by_label_adds_up_each_value_and_what_has_none() -> None:
    profile = labelled(
        (1_000, (Label("endpoint", "/a"), Label("pid", 7))),
        (3_000, (Label("endpoint", "/b"),)),
        (2_000, (Label("endpoint", "/a"), Label("method", "GET"))),
        (2_000, (Label("method", "/a"),)),
        (0, (Label("endpoint", "/idle"),)),
    )
    assert format_by_label(by_label(profile, "endpoint"), "endpoint", "nanoseconds") == (
        "Flat   Flat%  endpoint\n 3us  37.50%  /a\n 3us  37.50%  /b\n 2us  25.00%  [no endpoint]\n"
    )
    assert [(row.value, row.flat) for row in by_label(profile, "pid")] == [(None, 7_000), ("7", 1_000)]
    assert by_label(labelled(), "endpoint") == []
    assert format_by_label([], "endpoint", "count") == "Flat   Flat%  endpoint\n"
    with pytest.raises(ProfileError, match="no sample type 'walls'"):
        by_label(profile, "endpoint", "walls")


some_labels = st.lists(
    st.builds(Label, st.sampled_from("ab"), st.sampled_from(["x", "y", "7", 7])), max_size=4
).map(tuple)


@given(st.lists(st.tuples(st.integers(-3, 9), some_labels), max_size=6))
@settings(deadline=None)
def test_a_row_by_label_is_what_the_label_selects(samples: list[tuple[int, tuple[Label, ...]]]) -> None:
    """Seen to fail: with the first label of a key only; with samples without it left out."""
    profile = labelled(*samples)
    for key in "ab":
        rows = {row.value: row.flat for row in by_label(profile, key)}
        values = {str(label.value) for _, labels in samples for label in labels if label.key == key}
        assert rows.keys() <= {*values, None}
        for value in values:
            selected = with_label(profile, key, value)
            assert rows.get(value, 0) == sum(sample.values[0] for sample in selected.samples)
        without = sum(value for value, labels in samples if key not in {label.key for label in labels})
        assert rows.get(None, 0) == without


def test_zero_values_make_no_rows() -> None:
    profile = Profile([SAMPLES, CPU], [Sample((place("idle"),), (5, 0)), Sample((place("busy"),), (5, 9))])
    assert [row.name for row in top(profile, "cpu")] == ["busy"]
    assert len(top(profile, "samples")) == 2
    assert top(Profile([CPU])) == []
    assert format_top([], "count") == "Flat   Flat%    Sum%  Cum    Cum%  Name\n"


def test_which_type_is_shown() -> None:
    profile = talk()
    assert profile.value_type() == CPU
    profile.default_sample_type = "samples"
    assert profile.value_type() == SAMPLES
    for unusable in ("", "gone"):
        profile.default_sample_type = unusable
        assert profile.value_type() == profile.sample_types[-1]
    with pytest.raises(ProfileError, match=r"no sample type 'walls' .* there are: samples, cpu"):
        top(profile, "walls")


def test_a_name_cannot_steer_the_terminal_or_break_a_line() -> None:
    name = "evil\x1b[2J\nnext\u202egnp \u2028"
    printed = format_top(top(Profile([CPU], [Sample((place(name),), (1,))])), "count")
    assert printed.count("\n") == 2
    assert "evil\\x1b[2J\\nnext\\u202egnp \\u2028" in printed
    profile = labelled((1, (Label(name, name),)), (1, ()))
    printed = format_by_label(by_label(profile, name), name, "count")
    assert printed.count("\n") == 3
    assert printed.count("evil\\x1b[2J\\nnext\\u202egnp \\u2028") == 3


@pytest.mark.parametrize(
    ("unit", "value", "shown"),
    [
        ("nanoseconds", 1_200_000_000, "1.20s"),
        ("nanoseconds", 1, "1ns"),
        ("milliseconds", 90_000, "90s"),
        ("seconds", 7200, "2hrs"),
        ("bytes", 13_107_200, "12.50MB"),
        ("bytes", -2048, "-2kB"),
        ("count", 38, "38"),
        ("objects", 7, "7"),
        ("widgets", 7, "7widgets"),
        ("\x1b]0;", 7, "7\\x1b]0;"),
        ("", 1_234_567, "1234567"),
        ("bytes", 0, "0"),
    ],
)
def test_units(unit: str, value: int, shown: str) -> None:
    assert choose_scale(unit, [value], value).format(value) == shown


def test_one_scale_for_all_rows() -> None:
    values = [1_500_000_000, 20_000_000, 1_000_000]
    scale = choose_scale("nanoseconds", values, sum(values))
    # 1 ms is less than a hundredth of the total, so the scale is that of 100 ms.
    assert [scale.format(value) for value in values] == ["1500ms", "20ms", "1ms"]
    values = [9_000_000_000, 15_000_000]
    scale = choose_scale("nanoseconds", values, sum(values))
    assert [scale.format(value) for value in values] == ["9s", "0.01s"]


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (1, "  100%"),
        (0.99949, "99.95%"),
        (0.9994, "99.94%"),
        (0.01, " 1.00%"),
        (0.00123, " 0.12%"),
        (0, "    0%"),
    ],
)
def test_percent(share: float, shown: str) -> None:
    assert format_percent(share) == shown
