"""What all memories together do, and by how much log-probabilities changed."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mindhooks import MindCommand, ScorerError
from mindscore.measure.leave_one_out import (
    Effect,
    mean_divergence,
    memory_effects,
    relative_change,
    response_totals,
)
from mindscore.scorers.toy import ToyScorer

NATS = st.floats(-1e3, -1e-3)


async def test_the_effects_are_what_finetune_scoring_finds(host, two):
    tables = {"finetune": {"threshold": 0.0, "window_fraction": 1.0}}
    async with host(two, **tables) as it:
        it.registry.dispatch(MindCommand.SCORE_FINETUNE)
        await it.registry.wait_idle()
        found = {c.node_id: c.divergence for c in it.heard.candidates}
    effects = await memory_effects(two.context(), ToyScorer({}))
    assert {it.node_id: it.divergence for it in effects} == pytest.approx(found)
    assert max(found.values()) > 0


async def test_totals_without_memories_are_those_of_the_prompt_without_them(two):
    effects = await memory_effects(two.context(), ToyScorer({}))
    totals = await response_totals(two.context(), ToyScorer({}))
    assert {it.node_id: it.with_ for it in effects} == totals


def test_a_memory_that_makes_a_response_less_likely_has_no_divergence():
    assert Effect("n", -9.0, -4.0).divergence == 0.0
    assert Effect("n", -4.0, -9.0).divergence == 5.0


def test_what_a_memory_harmed_does_not_lessen_the_mean():
    effects = [Effect(name, 0.0, -nats) for name, nats in (("a", 1.0), ("b", 5.0), ("c", -9.0))]
    assert mean_divergence(effects) == 2.0


@given(st.dictionaries(st.text(max_size=3), st.tuples(NATS, NATS), min_size=1))
def test_changes_in_both_directions_do_not_cancel(totals):
    before = {name: first for name, (first, _) in totals.items()}
    after = {name: second for name, (_, second) in totals.items()}
    change = relative_change(before, after)
    assert change >= abs(sum(after.values()) / sum(before.values()) - 1) - 1e-9
    assert relative_change(before, before) == 0
    largest = max(abs(after[name] / total - 1) for name, total in before.items())
    assert change <= largest * (1 + 1e-9)


@given(st.floats(0.1, 10), st.dictionaries(st.text(max_size=3), NATS, min_size=1))
def test_all_changed_by_a_fraction_is_that_fraction(factor, before):
    assume(not math.isclose(factor, 1.0))
    after = {name: total * factor for name, total in before.items()}
    assert relative_change(before, after) == pytest.approx(abs(factor - 1))


async def test_an_answer_that_lacks_a_response_is_refused(two):
    class Short(ToyScorer):
        async def score(self, prompts):
            return [answer[:-1] for answer in (await super().score(prompts)).ranges]

    with pytest.raises(ScorerError, match="asked for"):
        await response_totals(two.context(), Short({}))
