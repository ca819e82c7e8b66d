"""``mindscore demo --train``: the whole loop, with the real model in real processes."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from mindscore._util.errors import UsageError
from mindscore.cli.demo import TrainingDemo

MINDSCORE = str(Path(sys.executable).with_name("mindscore"))
NUMBER = r"(-?[\d.]+)"
GUARD = r"unrelated answers: [\d.]+ → [\d.]+ nats per token"


def rows(out, title, *names):
    """Before and after, of each row of a group of the table."""
    group = out.partition(title)[2]
    found = [re.search(rf"^ *{name} +{NUMBER} +{NUMBER}", group, re.MULTILINE) for name in names]
    return [tuple(map(float, row.groups())) for row in found]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rounds", "2"], "--rounds goes with --train"),
        (["--keep", "new"], "--keep goes with --train"),
        (["--train", "--keep", "."], "--keep .: is there already: name a new folder"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_done(cli, options, said):
    ran = cli("demo", *options)
    assert (ran.status, ran.error, ran.out) == (2, said, "")


async def test_the_adapter_that_is_kept_is_named_for_compare(tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    (made / "adapter_config.json").write_text("{}")
    console = Console(file=io.StringIO(), width=40)
    demo = TrainingDemo(None, None, {}, console, None)
    demo.adapter = str(made)
    await demo.keep(tmp_path / "kept")
    assert (tmp_path / "kept" / "adapter_config.json").is_file()
    assert console.file.getvalue().endswith(f"conversation.jsonl --with {tmp_path}/kept\n")
    demo.adapter = str(tmp_path / "nothing")
    with pytest.raises(UsageError, match="made/x: cannot be written"):
        await demo.keep(made / "x")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.model
def test_what_is_trained_on_is_internalised_and_what_is_unrelated_is_left_alone(tmp_path):
    kept = tmp_path / "adapter"
    ran = subprocess.run(
        [MINDSCORE, "demo", "--train", "--keep", str(kept)],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    # Both are files that the command for it takes.
    [file, adapter] = re.search(r"mindscore compare (\S+) --with (\S+)\n$", ran.stdout).groups()
    assert (Path(file).is_file(), adapter) == (True, str(kept))
    assert (kept / "adapter_config.json").is_file()
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
    assert len(re.findall(GUARD, ran.stdout)) == 1
    assert re.search(r"without memories, as asked +with +base +\w+ +state", ledger)
    assert "internalised" in ledger


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.model
def test_two_rounds_have_a_column_each_and_the_second_keeps_what_the_first_has_taught():
    ran = subprocess.run(
        [MINDSCORE, "demo", "--train", "--rounds", "2"],
        capture_output=True,
        text=True,
        check=True,
        timeout=1000,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert len(re.findall(GUARD, ran.stdout)) == 2
    [_, without, lost] = rows(
        ran.stdout, "answers trained on", "with the memories", "without them", "divergence"
    )
    assert without[1] > without[0]
    assert lost[1] <= lost[0] / 2
    ledger = ran.stdout.partition("5. The ledger")[2]
    assert re.search(r"without memories, as asked +with +base +\w+ +\w+ +state", ledger)
    states = re.findall(r" (internalised|as asked|no) *$", ledger, re.MULTILINE)
    assert len(states) >= 8
    assert states.count("no") < len(states) / 2
