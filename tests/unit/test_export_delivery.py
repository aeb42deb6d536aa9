"""What is said and counted of deliveries."""

import pytest

from pyprof.export import delivery as module
from pyprof.export.delivery import Delivery, Parcel
from pyprof.export.series import Series
from pyprof.export.target import Outcome

OK = Outcome(True, bytes=1)
DOWN = Outcome(False, "nobody listens there", retriable=True)
REFUSED = Outcome(False, "HTTP 401 at 12:00", retriable=False, cause="HTTP 401")


class Scripted:
    combined = stores = False
    imports = "log"
    name = "server"

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)

    def prepare(self):
        return self.outcomes.pop(0)

    def send(self, series, deadline):
        return self.outcomes.pop(0)


def run(caplog, *outcomes):
    """Deliver one window an outcome; the log's lines and the counters."""
    caplog.clear()
    delivery = Delivery([Scripted(*outcomes)], lambda window, combined: [Series("x", {}, b"", 0, 0)], 10)
    for _ in outcomes:
        assert delivery.deliver(Parcel(object()), float("inf"))
    return [(r.levelname, r.getMessage()) for r in caplog.records], delivery.counters


def test_nobody_listening_is_one_warning(caplog):
    lines, counters = run(caplog, *[DOWN] * 50)
    [(level, line)] = lines
    assert level == "WARNING"
    assert "server: nobody listens there" in line
    assert (counters.upload_failures, counters.undelivered, counters.uploads) == (50, 50, 0)


def test_recovery_is_said_with_what_was_lost(caplog):
    lines, counters = run(caplog, DOWN, DOWN, OK, OK)
    assert len(lines) == 2
    assert "server works again; profiles lost: 2" in lines[1][1]
    assert (counters.upload_failures, counters.undelivered, counters.uploads) == (2, 2, 2)


def test_another_cause_is_another_line_and_permanent_ones_are_errors(caplog):
    lines, _ = run(caplog, DOWN, REFUSED, DOWN, REFUSED)
    assert [level for level, _ in lines] == ["WARNING", "ERROR"]


def test_a_reason_that_changes_its_words_is_still_one_cause(caplog):
    lines, _ = run(caplog, *[Outcome(False, f"HTTP 401 at {n}", cause="HTTP 401") for n in range(9)])
    assert len(lines) == 1


def test_a_cause_that_comes_and_goes_is_not_a_line_each_time(caplog, monkeypatch):
    assert len(run(caplog, *[DOWN, OK] * 20)[0]) == 2
    monkeypatch.setattr(module, "REPEAT_AFTER", 0.0)
    assert len(run(caplog, *[DOWN, OK] * 20)[0]) == 40


def test_prepare_says_it_and_the_first_window_does_not_repeat_it(caplog):
    target = Scripted(REFUSED, REFUSED, OK)
    delivery = Delivery([target], lambda window, combined: [Series("x", {}, b"", 0, 0)], 10)
    assert delivery.prepare() == [REFUSED]
    delivery.deliver(Parcel(object()), float("inf"))
    assert len(caplog.records) == 1
    delivery.deliver(Parcel(object()), float("inf"))
    assert "works again; profiles lost: 1" in caplog.records[1].getMessage()


@pytest.mark.parametrize("left", [0, 1, 2])
def test_given_up_windows_are_counted(caplog, left):
    delivery = Delivery([], lambda window, combined: [], 10)
    delivery.give_up(left, "why")
    assert delivery.counters.undelivered == left
    assert len(caplog.records) == min(left, 1)


def test_an_interval_without_profiles_is_neither_an_upload_nor_a_loss(caplog):
    delivery = Delivery([Scripted(OK)], lambda window, combined: [], 10)
    delivery.deliver(Parcel(object()), float("inf"))
    assert (delivery.counters.uploads, delivery.counters.undelivered) == (0, 0)
