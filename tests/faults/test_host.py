"""``make faults``, the host's part, at a smaller size."""

import pytest

from .host import ATTACKS

TRIALS = {"dispatch_time": 500, "event_loop": 2, "plugins": 6, "threads": 400, "interrupted": 3}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda it: it.__name__)
def test_the_host_is_never_harmed(attack, monkeypatch):
    # How late a tick is, make faults shows on an idle machine. Here others have the cores: that
    # nothing stalls, and what the loop's thread itself computes between two ticks.
    monkeypatch.setattr("tests.faults.host.LAG_S", 10.0)
    monkeypatch.setattr("tests.faults.host.WORK_S", 0.25)
    monkeypatch.setattr("tests.faults.host.CTRL_C_S", 20.0)
    monkeypatch.setattr("tests.faults.host.TOKENS", 40_000)
    found = attack(TRIALS[attack.__name__])
    assert found.failures == []
    assert found.trials == TRIALS[attack.__name__]
