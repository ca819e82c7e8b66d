"""The attacks on secrets, in small."""

import pytest

from .secrets import ATTACKS

TRIALS = {"key_leaks": 6, "memory_leaks": 44}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda it: it.__name__)
def test_no_secret_leaks(attack):
    found = attack(TRIALS[attack.__name__])
    assert found.failures == []
    assert found.trials == TRIALS[attack.__name__]
