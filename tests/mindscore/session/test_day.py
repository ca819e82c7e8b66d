"""A part of the day of ``tests/bench/day.py``: what grows, what is sent, what is decided."""

import time

from ...bench.day import Day

TURNS = 24


def test_a_day_is_within_its_tokens_and_keeps_every_decision(tmp_path, monkeypatch):
    day = Day(tmp_path, TURNS, limit=12_000, retention_days=90.0, every=(5, 9, 7))
    monkeypatch.setattr(time, "time", lambda: day.clock.wall)
    for _, mind in day.live():
        assert day.reappeared(mind) == []
        assert len(mind._live._searched) + len(mind._live._waiting) <= TURNS
    assert day.restarts == 3
    assert 0 < day.most <= 12_000
    assert {"rejected", "accepted", "sent"} <= set(day.decisions.values())
    assert day.lost() == []
    assert len(day.decisions) == day.made
    assert day.clock._sleeping == []
