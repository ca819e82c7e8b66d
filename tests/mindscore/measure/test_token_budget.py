"""``max_tokens``: what a scoring may send."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import MemoryScore, MindCommand, Outcome

SCORE, FULL, FINETUNE = MindCommand.SCORE, MindCommand.SCORE_FULL, MindCommand.SCORE_FINETUNE
COUNT = 3
"""The response window of these runs: short, so that there are several windows."""


def tables(most, repeats=0, **more):
    return {
        "memory": {
            "token_cutoff": 1.0,
            "interval_s": 0,
            "response_window": COUNT,
            "noise_repeats": repeats,
        },
        "plugins": {"settings": {"memory-scoring": {"max_tokens": most}}},
        **more,
    }


@pytest.fixture
def three(say):
    """Three memories of one, two and four tokens; the prompt with all of them has 13."""
    return say.talk(
        say.user(9),
        say.reply(1, 2, 3),
        identity=[say.memory("a", 1), say.memory("b", 2, 2), say.memory("c", 3, 3, 3, 3)],
    )


# What three costs, by hand: the prompt with all, and those without a, b and c.
ALL, A, B, C = 13, 12, 11, 9


# -- what fits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "scored"),
    [
        (1, ""),
        (ALL + C - 1, ""),
        # Later memories that cost less fit still.
        (ALL + C, "c"),
        (ALL + B - 1, "c"),
        (ALL + B, "b"),
        (ALL + A - 1, "b"),
        (ALL + A, "a"),
        (ALL + A + C - 1, "a"),
        (ALL + A + C, "ac"),
        (ALL + A + B - 1, "ac"),
        (ALL + A + B, "ab"),
        (ALL + A + B + C - 1, "ab"),
        (ALL + A + B + C, "abc"),
    ],
)
async def test_memories_are_taken_in_turn_as_long_as_they_fit(three, host, probe, most, scored):
    async with host(three, "probe", **tables(most)) as it:
        await it.run(SCORE)
        stats = it.state.memory_last_run
    assert [score.key for score in it.heard.scores] == list(scored)
    assert stats.outcomes == {
        key: Outcome("scored" if key in scored else "left-out") for key in "abc"
    }
    assert stats.error is None
    assert sum(len(prompt.tokens) for prompt in probe.asked) == stats.prompt_tokens <= most


async def test_0_is_no_limit(three, host, probe):
    async with host(three, "probe", **tables(0)) as it:
        await it.run(SCORE)
        assert it.outcomes == dict.fromkeys("abc", "scored")
    assert sum(len(prompt.tokens) for prompt in probe.asked) == ALL + A + B + C


async def test_what_was_scored_longest_ago_is_taken_first(three, host, clock):
    async with host(three, **tables(ALL + B + C)) as it:
        for key in "cba":
            await it.store.record_score(MemoryScore(key, 1.0, "incremental", ()), "toy", 0.3)
            clock.now += 10
        await it.run(SCORE)
        # Of those that come first in the conversation, a alone would have fitted.
        assert it.outcomes == {"a": "left-out", "b": "scored", "c": "scored"}
        assert [score.key for score in it.heard.scores] == ["c", "b"]


async def test_what_was_left_out_comes_first_the_next_time(three, host, clock):
    async with host(three, **tables(ALL + A)) as it:
        heard = []
        for _ in range(4):
            it.heard.scores = []
            await it.run(SCORE)
            heard.append("".join(score.key for score in it.heard.scores))
            clock.now += 10
    assert heard == ["a", "b", "c", "a"]


async def test_a_left_out_memory_keeps_its_score_and_its_turn(three, host):
    async with host(three, **tables(ALL + A)) as it:
        it.state.memory_scores["b"] = 5.0
        await it.run(SCORE)
        assert it.state.memory_scores["b"] == 5.0
        assert {memory.key for memory in await it.store.memories()} == {"a"}


async def test_a_baseline_counts_with_its_repetitions(three, host, probe):
    for most, scored in ((3 * ALL + C - 1, []), (3 * ALL + A - 1, ["b"]), (3 * ALL + A, ["a"])):
        probe.asked.clear()
        async with host(three, "probe", **tables(most, repeats=2)) as it:
            await it.run(SCORE)
        assert [score.key for score in it.heard.scores] == scored
        assert sum(len(prompt.tokens) for prompt in probe.asked) <= most


async def test_of_auto_only_a_noisy_scorer_s_baselines_count_twice(three, host, probe):
    for noisy, scored in ((True, []), (False, ["a"])):
        # What c costs with its baseline twice is more than what a costs with it once.
        assert 2 * ALL + C > ALL + A
        probe.noisy = noisy
        async with host(three, "probe", **tables(ALL + A, repeats="auto")) as it:
            await it.run(SCORE)
        assert [score.key for score in it.heard.scores] == scored


async def test_a_memory_that_costs_nothing_fits_always(say, host, probe):
    talk = say.talk(
        say.user(9), say.memory("empty"), say.reply(1, 2), identity=[say.memory("a", 1)]
    )
    async with host(talk, "probe", **tables(1)) as it:
        await it.run(SCORE)
        assert it.outcomes == {"a": "left-out", "empty": "scored"}
    assert probe.asked == []


async def test_nothing_is_sent_where_nothing_fits(three, host, probe):
    probe.self_tested = True
    async with host(three, "probe", **tables(1)) as it:
        await it.run(SCORE)
        assert it.outcomes == dict.fromkeys("abc", "left-out")
        assert it.state.memory_last_run.calls == 0
    assert probe.asked == []


async def test_memories_that_are_not_due_past_the_cutoff_or_without_a_response_are_no_candidates(
    say, host
):
    talk = say.talk(
        say.memory("a", 1),
        say.user(9),
        say.reply(1),
        say.memory("none", 1),
        identity=[say.memory("done", 1)],
    )
    limited = tables(1)
    limited["memory"] |= {"interval_s": 3600}
    async with host(talk, **limited) as it:
        await it.store.record_score(MemoryScore("done", 1.0, "incremental", ()), "toy", 0.3)
        await it.run(SCORE)
        assert it.outcomes == {"done": "not-due", "a": "left-out", "none": "no-response"}


async def test_finetune_scoring_has_no_limit(three, host, probe):
    async with host(three, "probe", **tables(1), finetune={"window_fraction": 1.0}) as it:
        await it.run(FINETUNE)
    assert len(probe.asked) == 2


async def test_a_matrix_leaves_out_what_does_not_fit(three, host, probe):
    async with host(three, "probe", **tables(1)) as it:
        await it.run(FULL)
    assert not probe.asked
    assert set(it.outcomes.values()) == {"left-out"}


# -- any conversation -----------------------------------------------------------------------------


def lengths(plain, indexes, gone, ids):
    """The prompt's length up to the last of the responses ``ids``."""
    owners = [owner for _, owner in plain.tokens(indexes, gone)]
    return max((number for number, owner in enumerate(owners, 1) if owner in ids), default=0)


def naive_choice(plain, keys, most, repeats):
    """Which of ``keys``, in order, fit, each window's baseline counted for what it is asked."""
    judged, chosen, spent = {}, [], 0
    for key in keys:
        window = tuple(plain.window(plain.positions()[key], COUNT))
        asked = set(plain.after_removal(window, {key}))
        before = judged.get(window, set())
        longer = lengths(plain, window, set(), before | asked)
        longer -= lengths(plain, window, set(), before)
        cost = (1 + repeats) * longer + lengths(plain, window, {key}, asked)
        if spent + cost <= most:
            chosen.append(key)
            spent += cost
            judged[window] = before | asked
    return chosen, spent


@given(
    data=st.data(),
    most=st.integers(1, 200),
    repeats=st.integers(0, 2),
    concurrency=st.sampled_from([1, 4]),
)
def test_no_more_is_sent_than_max_tokens_and_the_oldest_come_first(
    host, talks, naive, data, most, repeats, concurrency
):
    talk = data.draw(talks)
    plain = naive(talk)
    scored = data.draw(st.permutations(sorted(plain.positions())))
    scored = scored[: data.draw(st.integers(0, len(scored)))]

    async def go():
        now = 1_700_000_000.0
        server = {"concurrency": concurrency}
        async with host(talk, **tables(most, repeats, server=server)) as it:
            with pytest.MonkeyPatch.context() as patch:
                for number, key in enumerate(scored):
                    patch.setattr("time.time", lambda number=number: now - 1000 + number)
                    score = MemoryScore(key, 1.0, "incremental", ())
                    await it.store.record_score(score, "toy", 0.3)
                patch.setattr("time.time", lambda: now)
                await it.run(SCORE)
            return it

    it = asyncio.run(go())
    statuses = {key: plain.status(key, {}, 0, 1.0, COUNT) for key in plain.positions()}
    ages = {key: number for number, key in enumerate(scored)}
    ready = [key for key, status in statuses.items() if status == "scored"]
    ready.sort(key=lambda key: (ages.get(key, -1), plain.positions()[key]))
    heard = [score.key for score in it.heard.scores]
    stats = it.state.memory_last_run
    assert stats.prompt_tokens <= most
    # Of those that were never scored and stand at the same place, either may come first.
    turns = Counter((ages.get(key, -1), plain.positions()[key]) for key in ready)
    if len(turns) == len(ready):
        chosen, spent = naive_choice(plain, ready, most, repeats)
        assert heard == chosen
        assert stats.prompt_tokens <= spent <= most
    assert it.outcomes == {
        key: "left-out" if key in ready and key not in heard else status
        for key, status in statuses.items()
    }
    assert stats.error is None
    for score in it.heard.scores:
        expected = [signed for _, _, signed in plain.measured(score.key, COUNT)]
        assert [cell.signed for cell in score.divergences] == pytest.approx(expected, abs=1e-6)


async def test_a_baseline_that_failed_is_not_paid_for_again(three, host, probe):
    probe.refuses = lambda prompt: len(prompt.tokens) == ALL
    async with host(three, "probe", **tables(ALL + A + B + C)) as it:
        await it.run(SCORE)
        stats = it.state.memory_last_run
    assert {outcome.status for outcome in stats.outcomes.values()} == {"failed"}
    assert [len(prompt.tokens) for prompt in probe.asked] == [ALL]
    assert stats.prompt_tokens == ALL
