"""``score --full --resume`` on the command line."""

import pytest

FULL = ["--full", "--json"]


def test_a_matrix_that_was_interrupted_goes_on(score, numbered):
    whole = score(numbered, *FULL).document
    assert whole["stats"]["calls"] > 0
    again = score(numbered, *FULL, "--resume").document
    assert again["stats"]["calls"] == 0
    assert {**again, "stats": None} == {**whole, "stats": None}


def test_plan_counts_only_what_is_left(score, cli, numbered):
    score(numbered, *FULL, "--memory", "a")
    toy = ["--full", "--json", "--set", "server.scorer=toy"]
    assert cli("plan", numbered, *toy).document["calls"] == 3
    assert cli("plan", numbered, *toy, "--resume").document["calls"] == 2


@pytest.mark.parametrize("other", [[], ["--finetune"]], ids=str)
def test_resume_goes_with_full_only(other, score, numbered):
    ran = score(numbered, "--resume", *other)
    assert ran.status == 2
    assert "--resume goes with --full" in ran.error
