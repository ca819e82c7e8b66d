"""What a memory did to each token of a response, where that is asked for."""

import math

import pytest

from mindhooks import MindCommand, RangeScore, WirePrompt
from mindscore.config.settings import ServerSettings
from mindscore.measure.cached_scorer import CachedScorer, ScoreCache
from mindscore.measure.retry import Retry
from mindscore.measure.usage import Usage
from mindscore.scorers.toy import ToyScorer

FULL, SCORE = MindCommand.SCORE_FULL, MindCommand.SCORE
TOKENS = {"settings": {"memory-scoring": {"tokens": True}}}
PROMPT = WirePrompt((1, 2, 3, 1, 2, 3), (), ((3, 6),), ("r",))


class Answering(ToyScorer):
    """Gives the values of single tokens as ``change`` makes them of the toy's."""

    def __init__(self, change):
        super().__init__()
        self.change = change
        self.asked = 0

    async def score(self, prompts):
        self.asked += len(prompts)
        return [
            [RangeScore(it.total, self.change(it.values)) for it in answer]
            for answer in (await super().score(prompts)).ranges
        ]


def cached(scorer, known=None, **options):
    return CachedScorer(scorer, Usage(), known or ScoreCache(), Retry(ServerSettings()), **options)


def cells(host):
    return [cell for score in host.heard.scores for cell in score.divergences]


@pytest.mark.parametrize("command", [SCORE, FULL])
async def test_the_tokens_of_a_response_add_up_to_what_was_done_to_it(two, host, command):
    memory = {"interval_s": 0, "token_cutoff": 1.0}
    async with host(two, plugins=TOKENS, memory=memory) as it:
        await it.run(command)
        found = cells(it)
    told = [cell for cell in found if cell.tokens is not None]
    assert len(told) == 3
    for cell in told:
        first, last = two.conversation[cell.entry_idx].body
        assert len(cell.tokens) == last - first
        assert sum(cell.tokens) == pytest.approx(cell.signed, abs=1e-9)
        assert any(cell.tokens)


async def test_a_response_before_a_memory_has_no_tokens(two, host):
    async with host(two, plugins=TOKENS) as it:
        await it.run(FULL)
        [before] = [cell for cell in cells(it) if cell.tokens is None]
    assert (before.node_id, before.signed) == ("c1", 0.0)


@pytest.mark.parametrize("command", [SCORE, FULL])
async def test_nothing_is_told_of_tokens_unless_it_is_asked_for(two, host, command):
    async with host(two) as it:
        await it.run(command)
        assert cells(it)
        assert {cell.tokens for cell in cells(it)} == {None}


async def test_tokens_cost_no_calls(two, host, probe):
    async with host(two, "probe") as it:
        await it.run(FULL)
    asked = len(probe.asked)
    async with host(two, "probe", plugins=TOKENS) as it:
        await it.run(FULL)
    assert len(probe.asked) == 2 * asked


async def test_what_a_memory_does_alone_is_not_told_by_token(two, host):
    options = {"settings": {"memory-scoring": {"tokens": True, "hold": True}}}
    async with host(two, plugins=options) as it:
        await it.run(FULL)
        holds = [cell for score in it.heard.scores for cell in score.hold]
    assert holds
    assert {cell.tokens for cell in holds} == {None}


async def test_rows_that_are_resumed_have_no_tokens(two, host, tmp_path):
    file = tmp_path / "one.sqlite3"
    async with host(two, file=file, plugins=TOKENS) as it:
        await it.run(FULL)
    options = {"settings": {"memory-scoring": {"tokens": True, "resume": True}}}
    async with host(two, file=file, plugins=options) as it:
        await it.run(FULL)
        assert it.state.memory_last_run.calls == 0
        assert {cell.tokens for cell in cells(it)} == {None}


async def test_values_are_kept_only_where_they_were_asked_for():
    known, scorer = ScoreCache(), Answering(lambda values: values)
    totals = await cached(scorer, known).score(PROMPT)
    asking = cached(scorer, known, tokens=True)
    assert cached(scorer, known).token_logprobs(PROMPT) == asking.token_logprobs(PROMPT) == {}
    # Its total is known, its values are not.
    assert await asking.score(PROMPT) == totals
    assert scorer.asked == 2
    assert math.fsum(asking.token_logprobs(PROMPT)["r"]) == pytest.approx(totals["r"])


@pytest.mark.parametrize(
    "change",
    [
        lambda values: None,
        lambda values: values[1:],
        lambda values: (*values, 0.0),
        lambda values: (values[0] - 1, *values[1:]),
        lambda values: (math.nan, *values[1:]),
        lambda values: (-math.inf, *values[1:]),
    ],
    ids=["none", "too few", "too many", "another sum", "nan", "infinity"],
)
async def test_values_that_do_not_make_up_the_total_are_not_used(change):
    scorer = Answering(change)
    asking = cached(scorer, tokens=True)
    expected = await cached(ToyScorer()).score(PROMPT)
    assert await asking.score(PROMPT) == expected
    assert asking.token_logprobs(PROMPT) == {}
    # Nor asked for again and again.
    assert await asking.score(PROMPT) == expected
    assert scorer.asked == 1


async def test_values_go_with_the_totals_that_are_too_many(monkeypatch):
    monkeypatch.setattr(ScoreCache, "MAX_ENTRIES", 1)
    known = ScoreCache()
    asking = cached(ToyScorer(), known, tokens=True)
    await asking.score(PROMPT)
    assert asking.token_logprobs(PROMPT)
    await asking.score(WirePrompt((9, 9), (), ((1, 2),), ("other",)))
    assert asking.token_logprobs(PROMPT) == {}
