"""By how much a model's answers vary: baselines that are scored again."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import MindCommand, Outcome, WirePrompt
from mindscore.config.settings import ServerSettings
from mindscore.measure.cached_scorer import CachedScorer, ScoreCache
from mindscore.measure.leave_one_out import NoiseFloor
from mindscore.measure.retry import Retry
from mindscore.measure.usage import Usage
from mindscore.scorers.toy import ToyScorer

SCORE, FULL, FINETUNE = MindCommand.SCORE, MindCommand.SCORE_FULL, MindCommand.SCORE_FINETUNE
EVERY = pytest.mark.parametrize("command", [SCORE, FULL, FINETUNE])
TWO = WirePrompt((1, 2, 3, 2), (), ((1, 2), (3, 4)), ("first", "second"))


class Jittery(ToyScorer):
    """The toy, but each total is below the true one by a chance of its own, up to a nat.

    ``told`` has the totals of each response, in order, by what determines it.
    """

    noisy = True

    def __init__(self, seed=1):
        super().__init__()
        self.chance = random.Random(seed)
        self.told, self.asked = {}, []

    async def score(self, prompts):
        self.asked += prompts
        result = await super().score(prompts)
        for prompt, scores in zip(prompts, result.ranges, strict=True):
            for number, (start, end) in enumerate(prompt.ranges):
                total = scores[number].total - self.chance.random()
                self.told.setdefault((prompt.tokens[:end], start), []).append(total)
                scores[number] = type(scores[number])(total)
        return result


def spread(totals):
    return max(totals) - min(totals)


@pytest.fixture
def jittery(probe, monkeypatch):
    """The probe, jittery: it has ``told`` too."""
    jittery = Jittery()
    honest = probe.score

    async def score(prompts):
        await honest(prompts)
        return await jittery.score(prompts)

    monkeypatch.setattr(probe, "score", score)
    probe.told = jittery.told
    return probe


def settings(repeats, **tables):
    memory = {"token_cutoff": 1.0, "noise_repeats": repeats, "interval_s": 0}
    return {"memory": memory, "finetune": {"window_fraction": 1.0, "threshold": 0.0}, **tables}


def found(it):
    """Every divergence that was heard of, with what it was told of (a key, or ``None`` for all)."""
    rows = [(cell, score.key) for score in it.heard.scores for cell in score.divergences]
    return [*rows, *((candidate, None) for candidate in it.heard.candidates)]


def told_of(it, probe, command, key, node_id):
    """What the scorer told of a response, with and without what ``key`` names."""
    window = range(2, 5) if (command, key) == (SCORE, "b") else range(5)
    totals = []
    for skip in (lambda other: False, lambda other: key in (None, other)):
        prompt = it.mind.snapshot.wire_prompt(window, skip)
        start, end = prompt.ranges[prompt.node_ids.index(node_id)]
        totals.append(probe.told.get((prompt.tokens[:end], start)))
    return totals


# -- the floor itself -----------------------------------------------------------------------------


@pytest.mark.parametrize("repeats", [0, 1, 3])
async def test_the_noise_is_the_largest_total_less_the_smallest(repeats):
    scorer = Jittery()
    cached = CachedScorer(scorer, Usage(), ScoreCache(), Retry(ServerSettings()))
    floor = NoiseFloor(cached, repeats)
    totals = await cached.score(TWO)
    await floor.measure(TWO, totals)
    assert scorer.asked == [TWO] * (1 + repeats)
    assert (cached.usage.calls, cached.usage.prompt_tokens) == (1 + repeats, 4 * (1 + repeats))
    spreads = [spread(told) for told in scorer.told.values()]
    assert floor.spread == (dict(zip(TWO.node_ids, spreads, strict=True)) if repeats else {})
    assert (repeats > 0) == any(0 < it < 1 for it in spreads)


@given(seed=st.integers(), repeats=st.integers(1, 5))
def test_any_noise_is_the_spread_of_what_was_told(seed, repeats):
    async def go():
        scorer = Jittery(seed)
        cached = CachedScorer(scorer, Usage(), ScoreCache(), Retry(ServerSettings()))
        floor = NoiseFloor(cached, repeats)
        await floor.measure(TWO, await cached.score(TWO))
        return scorer, floor

    scorer, floor = asyncio.run(go())
    assert [len(told) for told in scorer.told.values()] == [1 + repeats] * 2
    assert list(floor.spread.values()) == [spread(told) for told in scorer.told.values()]


@pytest.mark.parametrize(("noisy", "repeats"), [(True, 1), (False, 0), (None, 0)])
async def test_auto_repeats_once_where_the_scorer_is_noisy_and_not_at_all_where_it_is_not(
    noisy, repeats
):
    scorer = ToyScorer()
    if noisy is not None:
        scorer.noisy = noisy
    cached = CachedScorer(scorer, Usage(), ScoreCache(), Retry(ServerSettings()))
    assert NoiseFloor(cached, "auto").repeats == repeats


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("repeats", [0, 1, 3])
async def test_a_number_is_taken_whatever_the_scorer_says(noisy, repeats):
    scorer = ToyScorer()
    scorer.noisy = noisy
    cached = CachedScorer(scorer, Usage(), ScoreCache(), Retry(ServerSettings()))
    assert NoiseFloor(cached, repeats).repeats == repeats


async def test_only_responses_that_were_not_repeated_yet_are_repeated():
    scorer = Jittery()
    cached = CachedScorer(scorer, Usage(), ScoreCache(), Retry(ServerSettings()))
    floor = NoiseFloor(cached, 1)
    first = WirePrompt((1, 2), (), ((1, 2),), ("first",))
    await floor.measure(first, await cached.score(first))
    before = dict(floor.spread)
    await floor.measure(TWO, await cached.score(TWO))
    await floor.measure(TWO, await cached.score(TWO))
    assert [(it.tokens, it.node_ids) for it in scorer.asked] == [
        ((1, 2), ("first",)),
        ((1, 2), ("first",)),
        (TWO.tokens, ("second",)),
        (TWO.tokens, ("second",)),
    ]
    assert floor.spread.keys() == {"first", "second"}
    assert floor.spread["first"] == before["first"]


# -- in the flows ---------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("repeats", [1, 3])
async def test_each_divergence_has_the_noise_of_its_response_and_the_first_answers_difference(
    two, host, jittery, command, repeats
):
    async with host(two, "probe", **settings(repeats), server={"concurrency": 1}) as it:
        await it.run(command)
    cells = found(it)
    assert {cell.node_id for cell, _ in cells} == {"c1", "c4"}
    noise = {}
    for cell, key in cells:
        if (command, key, cell.node_id) == (FULL, "b", "c1"):
            # It ends before the memory: it is compared with nothing.
            assert (cell.signed, cell.noise) == (0.0, 0.0)
            continue
        with_, without = told_of(it, jittery, command, key, cell.node_id)
        assert cell.divergence == max(0.0, with_[0] - without[0])
        noise.setdefault(cell.node_id, set()).add(cell.noise)
        if (command, key) != (SCORE, "b"):
            # Of b's own window c4 was not repeated: it had been, as part of a's.
            assert [len(with_), len(without)] == [1 + repeats, 1]
            assert 0 < cell.noise == spread(with_) < 1
    assert [len(values) for values in noise.values()] == [1, 1]
    assert max(cell.divergence for cell, _ in cells) > 1


@EVERY
async def test_the_baseline_alone_is_repeated_before_anything_is_left_out(
    two, host, jittery, command
):
    async with host(two, "probe", **settings(2), server={"concurrency": 1}) as it:
        await it.run(command)
    baseline = it.mind.snapshot.wire_prompt(range(5), lambda key: False).tokens[:-1]
    tokens = [prompt.tokens for prompt in jittery.asked]
    assert tokens[:3] == [baseline] * 3
    assert baseline not in tokens[3:]
    stats = it.state.finetune_last_run if command == FINETUNE else it.state.memory_last_run
    assert stats.calls == len(tokens)
    assert stats.prompt_tokens == sum(map(len, tokens))


@EVERY
@pytest.mark.parametrize(
    ("repeats", "noisy", "measured"),
    [("auto", True, True), ("auto", False, False), (0, True, False), (1, False, True)],
)
async def test_noise_is_none_where_it_is_not_measured(
    two, host, jittery, command, repeats, noisy, measured
):
    jittery.noisy = noisy
    async with host(two, "probe", **settings(repeats)) as it:
        await it.run(command)
    assert {cell.noise is not None for cell, _ in found(it)} == {measured}


async def test_a_scorer_that_does_not_say_whether_it_is_noisy_is_not(two, host, jittery):
    async with host(two, "probe", **settings("auto")) as it:
        await it.run(FULL)
    assert {cell.noise for cell, _ in found(it)} == {None}
    assert len(jittery.asked) == 3


async def test_a_response_before_the_first_token_that_goes_has_no_noise_in_a_scoring(
    say, host, jittery
):
    # k's window begins at 0, where it has no tokens.
    talk = say.talk(
        say.reply(5), say.memory("k", 1), say.reply(1), identity=[say.user(9), say.memory("k")]
    )
    async with host(talk, "probe", **settings(1)) as it:
        await it.run(SCORE)
    [score] = it.heard.scores
    before, after = score.divergences
    assert (before.node_id, before.signed, before.noise) == ("c0", 0.0, 0.0)
    assert (after.node_id, after.signed > 1, after.noise > 0) == ("c2", True, True)


async def test_a_response_is_repeated_once_in_a_run_though_several_windows_hold_it(
    say, host, jittery
):
    talk = say.talk(
        say.memory("a", 1),
        say.user(9),
        say.reply(1),
        say.memory("b", 2),
        say.user(9),
        say.reply(2),
        say.user(9),
        say.reply(2),
    )
    memory = {"token_cutoff": 1.0, "noise_repeats": 1, "response_window": 2}
    async with host(talk, "probe", memory=memory, server={"concurrency": 1}) as it:
        await it.run(SCORE)
    # Both windows hold c5; b's alone holds c7.
    asked = [prompt.node_ids for prompt in jittery.asked]
    assert asked == [("c2", "c5"), ("c2", "c5"), ("c2", "c5"), ("c5", "c7"), ("c7",), ("c5", "c7")]
    a, b = [{cell.node_id: cell.noise for cell in score.divergences} for score in it.heard.scores]
    assert a["c5"] == b["c5"]
    assert len({a["c2"], a["c5"], b["c7"]}) == 3
    async with host(talk, "probe", memory=memory) as it:
        # A new run repeats anew.
        jittery.asked.clear()
        await it.run(SCORE)
        assert sum("c7" in prompt.node_ids for prompt in jittery.asked) == 3


@EVERY
async def test_what_noise_was_measured_for_is_measured_anew_in_the_next_run(
    two, host, jittery, command
):
    async with host(two, "probe", **settings(1)) as it:
        await it.run(command)
        first = {cell.node_id: cell.noise for cell, _ in found(it) if cell.noise}
        it.heard.scores, it.heard.candidates = [], []
        await it.run(command)
        second = {cell.node_id: cell.noise for cell, _ in found(it) if cell.noise}
    assert first.keys() == second.keys()
    assert all(first[id_] != second[id_] for id_ in first)


# -- failures -------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("which", [2, 3])
async def test_a_repetition_that_fails_leaves_the_noise_unknown_and_the_score_stands(
    two, host, jittery, command, which, caplog
):
    def refuses(prompt):
        return [it.tokens for it in jittery.asked].count(prompt.tokens) == which

    jittery.refuses = refuses
    async with host(two, "probe", **settings(2), server={"concurrency": 1}) as it:
        await it.run(command)
    stats = it.state.finetune_last_run if command == FINETUNE else it.state.memory_last_run
    assert stats.error is None
    cells = [cell for cell, _ in found(it)]
    assert max(cell.divergence for cell in cells) > 1
    [line] = [record for record in caplog.records if record.name == "mindscore"]
    assert line.levelname == "WARNING"
    assert line.getMessage().endswith("not known: the probe refuses")
    if command == SCORE:
        # Of a's window both responses' noise is unknown, and c4 is not tried in b's again.
        assert line.getMessage().startswith("the noise of 2 responses")
    assert {cell.noise for cell in cells} == {None}
    if command != FINETUNE:
        assert set(stats.outcomes.values()) == {Outcome("scored")}
        assert [score.key for score in it.heard.scores] == (
            ["a", "b"] if command == SCORE else ["b", "a"]
        )
    else:
        assert {candidate.node_id for candidate in cells} == {"c1", "c4"}


async def test_a_repetition_that_fails_leaves_the_other_windows_theirs(say, host, jittery):
    talk = say.talk(
        say.memory("a", 1),
        say.user(9),
        say.reply(1),
        say.user(8),
        say.memory("b", 2),
        say.reply(2),
    )
    jittery.refuses = lambda prompt: (
        [it.tokens for it in jittery.asked].count(prompt.tokens) == 2 and prompt.tokens[0] == 1
    )
    memory = {"token_cutoff": 1.0, "noise_repeats": 1, "response_window": 1}
    async with host(talk, "probe", memory=memory, server={"concurrency": 1}) as it:
        await it.run(SCORE)
        assert it.outcomes == {"a": "scored", "b": "scored"}
    noise = {score.key: [cell.noise for cell in score.divergences] for score in it.heard.scores}
    assert noise["a"] == [None]
    assert noise["b"][0] > 0


async def test_a_run_that_is_cancelled_while_it_repeats_ends(two, host, jittery):
    jittery.waits = lambda prompt: len(jittery.asked) == 2
    async with host(two, "probe", **settings(1)) as it:
        it.registry.dispatch(FULL)
        await jittery.waiting.wait()
        await it.registry.task_handle("memory-scoring").cancel()
        assert it.state.memory_last_run.error == "cancelled"
    assert it.heard.scores == []


async def test_a_repetition_that_fails_in_the_scorers_own_way_leaves_the_score(caplog):
    class Once(Jittery):
        async def score(self, prompts):
            if self.asked:
                return 1 / 0
            return await super().score(prompts)

    cached = CachedScorer(Once(), Usage(), ScoreCache(), Retry(ServerSettings()))
    floor = NoiseFloor(cached, "auto")
    totals = await cached.score(TWO)
    await floor.measure(TWO, totals)
    assert floor.spread == {}
    assert "ZeroDivisionError" in caplog.text
