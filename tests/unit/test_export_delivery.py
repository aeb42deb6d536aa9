"""What is said and counted of deliveries."""

import pytest

from pyprof.export import delivery as module
from pyprof.export.delivery import Delivery, Parcel
from pyprof.export.series import Series
from pyprof.export.target import Outcome

OK = Outcome(True, bytes=1)
DOWN = Outcome(False, "nobody listens there", retriable=True)
CUT = Outcome(False, "given up", cut=True)
REFUSED = Outcome(False, "HTTP 401 at 12:00", retriable=False, cause="HTTP 401")


class Scripted:
    combined = stores = False
    imports = "log"
    name = "server"

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)

    def prepare(self):
        return self.outcomes.pop(0)

    def portions(self, series):
        return [series] if series else []

    def send(self, portion, deadline):
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


class Portioned(Scripted):
    """Sends each series for itself; an outcome that is an exception is raised."""

    def __init__(self, *outcomes):
        super().__init__(*outcomes)
        self.sent = []

    def portions(self, series):
        return [[one] for one in series]

    def send(self, portion, deadline):
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        self.sent += [(one.name, outcome) for one in portion]
        return outcome


def four(window, combined):
    return [Series(name, {}, b"", 0, 0) for name in "abcd"]


def test_of_portions_only_the_one_that_was_handed_over_is_not_sent_again(caplog):
    handed_over = Outcome(False, "given up", bytes=1, cut=True, unconfirmed=True)
    target = Portioned(OK, handed_over, CUT, OK, OK)
    delivery = Delivery([target], four, 10)
    parcel = Parcel(object())
    assert [delivery.deliver(parcel, float("inf")) for _ in range(3)] == [False, False, True]
    assert [name for name, _ in target.sent] == ["a", "b", "c", "c", "d"]
    counters = delivery.counters
    assert (counters.uploads, counters.unconfirmed, counters.uploaded_bytes) == (1, 1, 4)


def test_no_answer_does_not_say_that_a_server_works_again(caplog):
    handed_over = Outcome(False, "given up", bytes=1, cut=True, unconfirmed=True)
    delivery = Delivery([Portioned(*[DOWN] * 4, *[handed_over] * 4, *[OK] * 4)], four, 10)
    parcels = [Parcel(object()) for _ in range(3)]
    assert delivery.deliver(parcels[0], float("inf"))
    while not delivery.deliver(parcels[1], float("inf")):
        pass
    assert len(caplog.records) == 1
    assert delivery.deliver(parcels[2], float("inf"))
    assert "works again" in caplog.records[1].getMessage()


def test_a_window_in_portions_is_one_upload_or_one_loss(caplog):
    delivery = Delivery([Portioned(OK, DOWN, OK, REFUSED, *[OK] * 4)], four, 10)
    counters = delivery.counters
    assert delivery.deliver(Parcel(object()), float("inf"))
    assert (counters.uploads, counters.upload_failures, counters.undelivered) == (0, 1, 1)
    assert counters.uploaded_bytes == 2
    assert delivery.deliver(Parcel(object()), float("inf"))
    assert (counters.uploads, counters.upload_failures, counters.undelivered) == (1, 1, 1)
    assert counters.uploaded_bytes == 6
    lines = [r.getMessage() for r in caplog.records]
    assert len(lines) == 2
    assert "server: nobody listens there; 2 of 4 parts of a profile lost; this is said once" in lines[0]
    assert "works again; profiles lost: 1" in lines[1]


def test_what_was_sent_before_a_cut_is_not_sent_again(caplog):
    target, other = Portioned(OK, DOWN, CUT, CUT, OK, OK), Portioned(OK, CUT, OK, OK, OK)
    delivery, parcel = Delivery([target, other], four, 10), Parcel(object())
    for done in (False, False, False, True):
        assert delivery.deliver(parcel, float("inf")) is done
    assert target.sent == [("a", OK), ("b", DOWN), ("c", CUT), ("c", CUT), ("c", OK), ("d", OK)]
    assert other.sent == [("a", OK), ("b", CUT), ("b", OK), ("c", OK), ("d", OK)]
    counters = delivery.counters
    assert (counters.uploads, counters.upload_failures, counters.undelivered) == (1, 1, 1)
    assert "1 of 4 parts" in caplog.records[0].getMessage()


def test_a_fault_in_the_middle_is_a_loss_and_ends_the_window(caplog):
    target, other = Portioned(OK, ValueError("bug")), Portioned(OK, OK, CUT, OK, OK)
    delivery, parcel = Delivery([target, other], four, 10), Parcel(object())
    assert not delivery.deliver(parcel, float("inf"))
    assert delivery.deliver(parcel, float("inf"))
    assert [name for name, _ in target.sent] == ["a"]
    assert delivery.counters.undelivered == 1
    assert len(caplog.records) == 1
