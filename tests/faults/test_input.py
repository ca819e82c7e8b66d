"""The attacks with broken input, in small."""

import pytest

from .input import ATTACKS

TRIALS = {"large": 1}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda it: it.__name__)
def test_broken_input_breaks_nothing(attack):
    found = attack(TRIALS.get(attack.__name__, 300))
    assert found.failures == []
    assert found.trials
