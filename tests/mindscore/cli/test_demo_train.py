"""``mindscore demo --train``: the whole loop, with the real model in real processes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

MINDSCORE = str(Path(sys.executable).with_name("mindscore"))
NUMBER = r"(-?[\d.]+)"


def rows(out, title, *names):
    """Before and after, of each row of a group of the table."""
    group = out.partition(title)[2]
    found = [re.search(rf"^ *{name} +{NUMBER} +{NUMBER}", group, re.MULTILINE) for name in names]
    return [tuple(map(float, row.groups())) for row in found]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.model
def test_what_is_trained_on_is_internalised_and_what_is_unrelated_is_left_alone():
    ran = subprocess.run(
        [MINDSCORE, "demo", "--train"], capture_output=True, text=True, check=True, timeout=600
    )
    both = ("with the memories", "without them", "divergence")
    with_, without, lost = rows(ran.stdout, "answers trained on", *both)
    assert lost[0] > 5
    assert lost[1] <= lost[0] / 2
    # By what the answers gained without memories, and not because these do nothing any more.
    assert without[1] - without[0] > (lost[0] - lost[1]) / 2
    assert with_[1] > with_[0]
    # Whatever it is, it is told; here it falls, too.
    *_, held_out = rows(ran.stdout, "asked in other words", *both)
    assert held_out[1] < held_out[0]
    [unrelated] = rows(ran.stdout, "unrelated answers", "without memories")
    assert unrelated[0] < 0
    assert float(re.search(r"([\d.]+)% \*", ran.stdout)[1]) < 5
    # What is said of three questions, before and after.
    said, _, ledger = ran.stdout.partition("4. What it says")[2].partition("5. The ledger")
    assert said.count("\n  before  ") == said.count("\n  after   ") == 3
    assert ran.stderr == ""
    # Two rounds, each with the guard's figures, and a state for each memory.
    guards = re.findall(r"unrelated answers: [\d.]+ → [\d.]+ nats per token", ran.stdout)
    assert len(guards) == 2
    assert re.search(r"without memories, as asked +with +base +\w+ +\w+ +state", ledger)
    assert "internalised" in ledger
