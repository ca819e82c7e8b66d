"""``make faults``, the host's part, at a smaller size."""

import pytest

from .host import ATTACKS

TRIALS = {"dispatch_time": 500, "event_loop": 2, "plugins": 15, "threads": 400, "interrupted": 6}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda it: it.__name__)
def test_the_host_is_never_harmed(attack, monkeypatch):
    # How fast it is, make faults shows on an idle machine: here it is that nothing stalls.
    monkeypatch.setattr("tests.faults.host.LAG_S", 0.5)
    monkeypatch.setattr("tests.faults.host.CTRL_C_S", 6.0)
    monkeypatch.setattr("tests.faults.host.TOKENS", 40_000)
    found = attack(TRIALS[attack.__name__])
    assert found.failures == []
    assert found.trials == TRIALS[attack.__name__]
