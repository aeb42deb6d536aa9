"""What the flame graph pages of the tests show."""

from pyprof.pprof.model import Function, Line, Location, Profile, Sample, ValueType

HOSTILE = "</script><img src=x onerror=alert(1)>"
TYPES = [ValueType("samples", "count"), ValueType("cpu", "nanoseconds"), ValueType("wall", "nanoseconds")]


def sample(names: str, cpu: int, wall: int | None = None) -> Sample:
    """A stack, root first, with its values in hundredths of a second."""
    locations = tuple(
        Location((Line(Function(name, "", "/srv/talk.py", 10), 12),)) for name in reversed(names.split(" > "))
    )
    return Sample(locations, (cpu, cpu * 10_000_000, (cpu if wall is None else wall) * 10_000_000))


def talk() -> Profile:
    """The talk's program in its true shares, a thread that only waits, and a name that attacks the page."""
    main = "__main__.<module> > __main__.main"
    samples = [
        sample(main, 30),
        sample(f"{main} > __main__.doALot", 200),
        sample(f"{main} > __main__.doALot > __main__.prepare", 50),
        sample(f"{main} > __main__.doLittle", 50),
        sample(f"{main} > __main__.doLittle > __main__.prepare", 50),
        sample("queue.Queue.get", 0, 300),
        sample(f"queue.Queue.get > {HOSTILE}", 0, 80),
    ]
    return Profile(
        TYPES,
        samples,
        default_sample_type="cpu",
        time_ns=1_700_000_000_000_000_000,
        duration_ns=3_800_000_000,
        comments=["pid 42", HOSTILE],
    )
