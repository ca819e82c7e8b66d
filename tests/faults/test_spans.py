"""The attack with hostile spans, in small."""

from .spans import hostile_spans


def test_hostile_spans_are_refused_or_read():
    found = hostile_spans(300)
    assert found.failures == []
    assert found.trials == 300
