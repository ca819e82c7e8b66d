"""Rounds of training: what the ledger calls that of the adapter that a job goes on from."""

import pytest

from mindscore.cli.rounds import start_round


@pytest.mark.parametrize(
    ("adapter", "name"),
    [
        ("", "base"),
        ("/trained/c51a5eacfd46/adapter", "c51a5eacfd46"),
        # Of one that no job made, its folder's name is no name: another may lie beside it.
        ("/adapters/first", "/adapters/first"),
        ("/adapters/second", "/adapters/second"),
        ("/base/mine", "/base/mine"),
    ],
)
def test_each_adapter_has_a_round_of_its_own(adapter, name):
    assert start_round(adapter) == name
