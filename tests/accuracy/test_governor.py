"""The rate gives way to `max_overhead` and comes back; what the profile says stays true.

Seen to fail: without the governor (the rate does not change); with one that never raises the rate again (it
does not recover); with a sample charged with the period that was asked for, instead of the thread's clock
(shares are 15 points off); with a timer that goes to the end of the queue for the GIL every 50 µs (one CPU,
`current_frames` on 3.11: seven snapshots a second of the crowd, shares 3 to 15 points off).
"""

import pytest

from .conftest import Record
from .reading import FREE_THREADED

pytestmark = pytest.mark.accuracy

MAX_OVERHEAD = 0.01


def test_own_cpu_stays_within_its_share_and_the_profile_true(recorded: Record) -> None:
    # The crowd has a tenth of the ticks that one thread alone has: where weights went by how often ticks
    # come, shares would be off by tens of points.
    recording = recorded("crowd", sample_rate=1000, max_overhead=MAX_OVERHEAD)
    notes = recording.truth["notes"]
    # Without a GIL all sixteen are presumed to be on a CPU; of one CPU few ticks in all find each there.
    recording.check(points=4 if FREE_THREADED else 2)
    assert notes["rate_changes"] >= 3
    # In these ten seconds not all is saved yet that was too much before the rate gave way; without a governor
    # it is 4 to 5 %, on free-threaded builds 7 to 8. bench_governor has 30 s.
    assert notes["own_share"] <= (4.5 if FREE_THREADED else 2) * MAX_OVERHEAD
    assert notes["recovered_rate"] >= 0.5 * notes["first_rate"]
