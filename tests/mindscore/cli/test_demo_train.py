"""``mindscore demo --train``: the whole loop, with the real model in real processes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

MINDSCORE = str(Path(sys.executable).with_name("mindscore"))


@pytest.mark.model
def test_what_is_trained_on_is_internalised_and_what_is_unrelated_is_left_alone():
    ran = subprocess.run(
        [MINDSCORE, "demo", "--train"], capture_output=True, text=True, check=True, timeout=600
    )
    rows = {
        name: re.search(rf"{name} +(-?[\d.]+) +(-?[\d.]+) +([+-]?[\d.]+)%", ran.stdout)
        for name in ("answers trained on", "in other words", "unrelated answers")
    }
    assert all(rows.values()), ran.stdout
    trained, held_out, unrelated = (
        tuple(map(float, row.groups())) for row in rows.values() if row is not None
    )
    assert trained[0] > 5
    assert trained[1] <= trained[0] / 2
    assert trained[2] == pytest.approx(100 * (trained[1] / trained[0] - 1), abs=1)
    # Whatever it is, it is told; here it falls, too.
    assert held_out[1] < held_out[0]
    assert unrelated[0] < 0
    assert unrelated[2] < 5
    # What is said of three questions, before and after.
    assert ran.stdout.count("  before  ") == ran.stdout.count("  after   ") == 3
    assert ran.stderr == ""
