"""Merging: sums, headers, and what happens to profiles of different kinds."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyprof.pprof import (
    Label,
    Mapping,
    Profile,
    ProfileError,
    Sample,
    ValueType,
    merge,
    read,
    save,
    top,
    write,
)
from pyprof.pprof.merge import Merger

from .profiles import CPU, SAMPLES, go_pprof, ordinary_profiles, place, talk


def counts(profile: Profile, sample_type: str) -> dict[tuple[str, ...], int]:
    index = profile.sample_type_index(sample_type)
    return {
        tuple(name for location in sample.locations for name in location.names()): sample.values[index]
        for sample in profile.samples
    }


def test_equal_stacks_add_up() -> None:
    merged = merge([talk(), read(write(talk()))])
    assert len(merged.samples) == 5
    assert [sample.values for sample in merged.samples][1] == (40, 400_000_000)
    assert len(merged.locations()) == len(merged.functions()) == 4
    assert merged.mappings == talk().mappings


def test_merging_one_profile_changes_nothing() -> None:
    assert merge([talk()]) == talk()


def test_sources_stay_as_they_are() -> None:
    one, two = talk(), talk()
    merge([one, two])
    assert one == two == talk()


@pytest.mark.slow
@given(st.lists(ordinary_profiles(unit="bytes"), min_size=2, max_size=4))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_sum_is_google_pprofs(require: Any, tmp_path: Path, parts: list[Profile]) -> None:
    go = require.tool("go")
    names = [f"{number}.pb.gz" for number in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        part.time_ns -= len(name) * 5
        part.duration_ns = 1_000_000_000
        part.period = len(name)
        save(part, tmp_path / name)
    go_pprof(go, "-proto", "-output=sum.pb", *names, cwd=tmp_path)
    theirs, ours = read(tmp_path / "sum.pb"), merge(parts)
    assert (ours.time_ns, ours.duration_ns, ours.period) == (
        theirs.time_ns,
        theirs.duration_ns,
        theirs.period,
    )
    for value_type in ours.sample_types:
        assert top(ours, value_type.type) == top(theirs, value_type.type)


def test_headers() -> None:
    early, late, unknown = talk(), talk(), talk()
    late.time_ns += 5
    late.period *= 2
    late.comments = ["pid 8", "pid 7"]
    late.default_sample_type = "samples"
    late.mappings = [Mapping(filename="/other")]
    unknown.time_ns = 0
    merged = merge([unknown, late, early])
    assert merged.time_ns == early.time_ns
    assert merged.duration_ns == 3 * early.duration_ns
    assert merged.period == late.period
    assert merged.comments == ["pid 7", "pid 8"]
    assert merged.default_sample_type == "cpu"
    assert merged.mappings == [*early.mappings, Mapping(filename="/other")]


def test_different_kinds_stand_side_by_side() -> None:
    wall = ValueType("wall", "nanoseconds")
    cpu_only = Profile([SAMPLES, CPU], [Sample((place("f"),), (2, 20))])
    wall_only = Profile([wall, SAMPLES], [Sample((place("f"),), (70, 7)), Sample((place("g"),), (30, 3))])
    merged = merge([cpu_only, wall_only])
    assert merged.sample_types == [SAMPLES, CPU, wall]
    assert [sample.values for sample in merged.samples] == [(9, 20, 70), (3, 0, 30)]
    again = merge([merged, cpu_only])
    assert counts(again, "cpu") == {("f",): 40, ("g",): 0}


def test_labels_keep_samples_apart() -> None:
    def labelled(*labels: Label) -> Profile:
        return Profile([CPU], [Sample((place("f"),), (1,), labels)])

    merged = merge(
        [
            labelled(Label("a", "x"), Label("b", 1)),
            labelled(Label("b", 1), Label("a", "x")),
            labelled(Label("a", "y"), Label("b", 1)),
            labelled(Label("a", "x"), Label("b", 1, "bytes")),
        ]
    )
    assert sorted(sample.values for sample in merged.samples) == [(1,), (1,), (2,)]


def test_lines_keep_samples_apart() -> None:
    merged = merge([Profile([CPU], [Sample((place("f", line),), (1,))]) for line in (1, 2, 1)])
    assert [sample.values for sample in merged.samples] == [(2,), (1,)]


def test_what_adds_up_to_nothing_disappears() -> None:
    plus, minus = (
        Profile([CPU], [Sample((place("f"),), (5,))]),
        Profile([CPU], [Sample((place("f"),), (-5,))]),
    )
    assert merge([plus, minus]).samples == []
    assert merge([Profile([CPU], [Sample((place("f"),), (0,))])]).samples == []


def test_nothing_to_merge() -> None:
    with pytest.raises(ProfileError, match="no profiles to merge"):
        merge([])


def test_sums_over_64_bits_are_an_error_when_written() -> None:
    huge = Profile([CPU], [Sample((place("f"),), ((1 << 63) - 1,))])
    with pytest.raises(ProfileError, match="64 bits"):
        write(merge([huge, huge]))


def test_the_sum_is_bounded() -> None:
    merger = Merger()
    merger._room = 100_000
    merger.add(Profile([CPU], [Sample((place("f", line),), (1,)) for line in range(50)]))
    with pytest.raises(ProfileError, match="too large; merge fewer files"):
        merger.add(Profile([CPU], [Sample((place("f", line),), (1,)) for line in range(50, 100)]))
