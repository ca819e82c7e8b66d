"""``make faults``, the wire's part, at a smaller size."""

import pytest

from .wire import ATTACKS

TRIALS = {"every_fault": 6, "thirty_percent": 6, "slow_clients": 60}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda it: it.__name__)
def test_faults_on_the_wire_pass_or_are_told(attack):
    found = attack(TRIALS[attack.__name__])
    assert found.failures == []
    assert found.trials >= TRIALS[attack.__name__]
