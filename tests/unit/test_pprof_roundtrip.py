"""What is written is read again, by us and by google/pprof, and means the same."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyprof.pprof import Label, Location, Profile, ProfileError, Sample, merge, read, save, write
from pyprof.pprof.proto import profile_messages

from .profiles import (
    CPU,
    FUNCTION,
    LOCATION,
    ODD_NAMES,
    SAMPLE,
    STRINGS,
    TYPE,
    VALID,
    go_pprof,
    ordinary_profiles,
    place,
    profiles,
    talk,
)

quickly = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(profiles())
@settings(deadline=None)
def test_everything_a_profile_can_say_survives(profile: Profile) -> None:
    assert read(write(profile)) == profile


@given(profiles())
@settings(max_examples=25, deadline=None)
def test_same_profile_same_bytes(profile: Profile) -> None:
    compressed = write(profile, compress=True)
    assert compressed == write(read(compressed), compress=True)
    assert gzip.decompress(compressed) == write(profile)


@given(profiles())
@settings(max_examples=50, deadline=None)
def test_ids_count_from_one_in_order_and_tables_have_no_equal_entries(profile: Profile) -> None:
    message = profile_messages()["Profile"].FromString(write(profile))
    for table in (message.mapping, message.location, message.function):
        assert [entry.id for entry in table] == list(range(1, len(table) + 1))
        for entry in table:
            entry.id = 0
        assert len({entry.SerializeToString(deterministic=True) for entry in table}) == len(table)
    assert message.string_table[0] == b""
    assert len(set(message.string_table)) == len(message.string_table)


def test_the_message_means_what_the_profile_says() -> None:
    """Against the fields of profile.proto one by one: a round trip alone could swap two of them both ways."""
    profile = talk()
    profile.samples[0].labels = (Label("endpoint", "/x"), Label("size", 5, "bytes"))
    message = profile_messages()["Profile"].FromString(write(profile))
    strings = [entry.decode() for entry in message.string_table]
    assert [(strings[t.type], strings[t.unit]) for t in message.sample_type] == [
        ("samples", "count"),
        ("cpu", "nanoseconds"),
    ]
    second = message.sample[1]
    assert list(second.value) == [20, 200_000_000]
    names = {f.id: strings[f.name] for f in message.function}
    located = {entry.id: names[entry.line[0].function_id] for entry in message.location}
    assert [located[number] for number in second.location_id] == ["__main__.doALot", "__main__.main"]
    text, number = message.sample[0].label
    assert (strings[text.key], strings[text.str], text.num) == ("endpoint", "/x", 0)
    assert (strings[number.key], number.num, strings[number.num_unit], number.str) == ("size", 5, "bytes", 0)
    assert message.time_nanos == profile.time_ns
    assert message.duration_nanos == profile.duration_ns
    assert message.period == 10_000_000
    assert strings[message.period_type.type] == "cpu"
    assert [strings[index] for index in message.comment] == ["pid 7"]
    assert strings[message.default_sample_type] == "cpu"
    assert strings[message.mapping[0].filename] == "/usr/bin/python3"
    assert message.mapping[0].has_functions
    assert not message.mapping[0].has_inline_frames
    assert {strings[f.filename] for f in message.function} == {"/srv/app.py"}
    assert {f.start_line for f in message.function} == {1}


@given(st.permutations([TYPE, SAMPLE, LOCATION, FUNCTION, STRINGS]))
@settings(max_examples=30, deadline=None)
def test_fields_come_in_any_order(parts: list[bytes]) -> None:
    assert read(b"".join(parts)) == read(VALID)


def test_unknown_fields_are_passed_over() -> None:
    odd = b"\xf9\x06" + bytes(8) + b"\xfd\x06" + bytes(4) + b"\xf8\x06\x05" + b"\xfa\x06\x02hi"
    assert read(odd + VALID + odd) == read(VALID)


def test_names_that_are_not_utf8_can_be_read() -> None:
    profile = read(VALID.replace(b"f", b"\xff"))
    assert [function.name for function in profile.functions()] == ["\\xff"]


def test_lone_surrogates_can_be_written() -> None:
    profile = Profile([CPU], [Sample((place("bad\ud800name"),), (1,))])
    assert [function.name for function in read(write(profile)).functions()] == ["bad\\ud800name"]


def test_a_label_without_text_is_left_out() -> None:
    profile = Profile([CPU], [Sample((), (1,), (Label("empty", ""), Label("kept", "x")))])
    assert read(write(profile)).samples[0].labels == (Label("kept", "x"),)


@pytest.mark.parametrize(
    "profile",
    [
        Profile([CPU], [Sample((), (1 << 63,))]),
        Profile([CPU], [Sample((), (0,), (Label("n", 1 << 64),))]),
        Profile([CPU], duration_ns=1 << 63),
        Profile([CPU], [Sample((Location(address=-1),), (0,))]),
    ],
    ids=["value", "label", "duration", "address"],
)
def test_numbers_over_64_bits_are_an_error(profile: Profile) -> None:
    with pytest.raises(ProfileError, match="64 bits"):
        write(profile)


def test_values_must_match_the_sample_types() -> None:
    with pytest.raises(ProfileError, match="2 values for 1 sample types"):
        write(Profile([CPU], [Sample((), (1, 2))]))


@pytest.mark.slow
@given(ordinary_profiles())
@quickly
def test_go_reads_what_we_write_and_we_read_what_go_writes(
    require: Any, tmp_path: Path, profile: Profile
) -> None:
    go = require.tool("go")
    save(profile, tmp_path / "ours.pb.gz")
    go_pprof(go, "-proto", "-output=theirs.pb.gz", "ours.pb.gz", cwd=tmp_path)
    # Go merges equal stacks and leaves out samples of zeros, as merge does.
    theirs, ours = merge([read(tmp_path / "theirs.pb.gz")]), merge([profile])
    assert _meaning(theirs) == _meaning(ours)
    assert theirs.sample_types == ours.sample_types
    assert (theirs.period_type, theirs.period, theirs.time_ns) == (
        ours.period_type,
        ours.period,
        ours.time_ns,
    )


def test_go_sees_names_labels_and_header(require: Any, tmp_path: Path) -> None:
    go = require.tool("go")
    profile = talk()
    profile.samples = [
        Sample((place(name, 7),), (1, 10 + number), (Label("endpoint", "/ü"), Label("pid", 7)))
        for number, name in enumerate(ODD_NAMES)
    ]
    save(profile, tmp_path / "p.pb.gz")
    raw = go_pprof(go, "-raw", "p.pb.gz", cwd=tmp_path)
    for name in ODD_NAMES:
        assert f" {name} /srv/app.py:7" in raw
    assert "cpu/nanoseconds[dflt]" in raw
    assert "endpoint:[/ü]" in raw
    assert "pid:[7]" in raw
    assert "Comment: pid 7" in raw
    assert "Duration: 10" in raw


def test_save_goes_by_the_ending(tmp_path: Path) -> None:
    save(talk(), tmp_path / "a.pb")
    save(talk(), tmp_path / "a.pb.gz")
    assert (tmp_path / "a.pb").read_bytes() == write(talk())
    assert (tmp_path / "a.pb.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert read(tmp_path / "a.pb") == read(tmp_path / "a.pb.gz") == talk()
    with pytest.raises(ValueError, match=r"must end in one of \.pb\.gz"):
        save(talk(), tmp_path / "a.svg")
    with pytest.raises(ValueError, match="all sample types"):
        save(talk(), tmp_path / "b.pb", sample_type="cpu")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.pb", "a.pb.gz"]


def _meaning(profile: Profile) -> dict[Any, tuple[int, ...]]:
    return {
        tuple(
            (line.function, line.line) for location in sample.locations for line in location.lines
        ): sample.values
        for sample in profile.samples
    }
