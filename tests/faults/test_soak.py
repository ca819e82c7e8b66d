"""``make faults``, the soak, at a smaller size."""

import pytest

from .soak import ATTACKS

TRIALS = {"triggers": 150, "restarts": 150}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda it: it.__name__)
def test_nothing_grows(attack):
    found = attack(TRIALS[attack.__name__])
    assert found.failures == []
    assert found.trials == TRIALS[attack.__name__]
