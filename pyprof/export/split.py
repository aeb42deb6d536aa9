"""Profiles too large for one push, in parts that a Pyroscope server takes."""

from collections.abc import Iterator

from .series import Series

MAX_SAMPLES = 16_000
_SMALLEST_SAMPLE = 12
_SAMPLE_TAG = 0x12  # field 2, length-delimited
_MILLISECOND = 1_000_000


def split(series: Series, max_bytes: int) -> Iterator[Series]:
    """The series itself, or parts that add up to it, of so many bytes before compression.

    The parts lie a millisecond apart: servers may take profiles of one series and one time for replicas.
    """
    size = len(series.pprof)
    if size <= min(max_bytes, MAX_SAMPLES * _SMALLEST_SAMPLE):
        yield series
        return
    samples = count_samples(series.pprof)
    if samples < 2 or (size <= max_bytes and samples <= MAX_SAMPLES):
        yield series
        return
    from dataclasses import replace

    from .. import pprof

    try:
        profile = pprof.read(series.pprof)
    except pprof.ProfileError:  # a name of 300 KB, say: the server may still take it
        yield series
        return
    waiting = [profile.samples]
    part = 0
    while waiting:
        some = waiting.pop()
        one = replace(profile, samples=some, time_ns=series.start_ns + part * _MILLISECOND)
        # A half has more than half of the tables: how large it is, only writing it tells.
        data = pprof.write(one) if len(some) <= MAX_SAMPLES else b""
        if len(some) > 1 and (not data or len(data) > max_bytes):
            middle = len(some) // 2
            waiting += [some[middle:], some[:middle]]
            continue
        yield Series(series.name, series.labels, data, one.time_ns, series.duration_ns)
        part += 1


def count_samples(message: bytes) -> int:
    """The samples of a pprof message of our encoder, which writes them one after the other."""
    count = position = 0
    end = len(message)
    while position < end:
        tag = message[position]
        if count and tag != _SAMPLE_TAG:
            break
        position += 1
        length = shift = 0
        while True:
            byte = message[position]
            position += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        if tag & 7 == 2:  # otherwise a plain number, which has just been read
            position += length
        count += tag == _SAMPLE_TAG
    return count
