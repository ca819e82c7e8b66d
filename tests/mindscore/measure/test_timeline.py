"""What a memory did in each week or month."""

from datetime import UTC, datetime

import numpy as np
from tests.mindscore.measure.planted import columns

from mindscore.measure.evidence import MemoryVersion, judged_cells
from mindscore.measure.timeline import timeline


def at(*date):
    return datetime(*date, tzinfo=UTC).timestamp()


def shown(*times, versions=None):
    """The timeline of one memory that helps by 2 nats at each time, in a response each."""
    rows = [(0, n, n, 2.0, np.nan, 1.0, when) for n, when in enumerate(times)]
    cells = judged_cells(columns([MemoryVersion("k")], rows))
    return timeline(cells, cells.time, {0: "k"} if versions is None else versions)


def test_weeks_begin_on_monday():
    period, found = shown(at(2026, 3, 2), at(2026, 3, 8, 23, 59), at(2026, 3, 9), at(2026, 3, 22))
    assert period == "week"
    begins = [(it.begins, it.judged) for it in found["k"]]
    assert begins == [(at(2026, 3, 2), 2), (at(2026, 3, 9), 1), (at(2026, 3, 16), 1)]
    assert [it.helped for it in found["k"]] == [2, 1, 1]
    assert [it.nats for it in found["k"]] == [4.0, 2.0, 2.0]


def test_a_long_time_is_shown_in_months():
    period, found = shown(at(2024, 1, 31), at(2024, 2, 1), at(2024, 2, 29), at(2026, 1, 1))
    assert period == "month"
    begins = [(it.begins, it.judged) for it in found["k"]]
    assert begins == [(at(2024, 1, 1), 1), (at(2024, 2, 1), 2), (at(2026, 1, 1), 1)]


def test_what_has_no_time_and_what_is_not_asked_for_is_not_shown():
    assert shown(np.nan, np.nan) == ("week", {})
    assert shown(at(2026, 3, 2), versions={}) == ("week", {})
    _, found = shown(at(2026, 3, 2), np.nan)
    assert [it.judged for it in found["k"]] == [1]
