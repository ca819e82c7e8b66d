"""What each memory does alone: ``score-full`` with ``hold``."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import Context, MindCommand, Node, Outcome, Part, Role
from mindscore.config.settings import ServerSettings
from mindscore.display.documents import document
from mindscore.measure.cached_scorer import CachedScorer, ScoreCache
from mindscore.measure.interactions import redundant_candidates
from mindscore.measure.leave_one_out import LeaveOneOut, NoiseFloor
from mindscore.measure.memories import skip_only
from mindscore.measure.retry import Retry
from mindscore.measure.usage import Usage
from mindscore.scorers.toy import ToyScorer
from mindscore.session.result import Result

SCORE, FULL, FINETUNE = MindCommand.SCORE, MindCommand.SCORE_FULL, MindCommand.SCORE_FINETUNE
HOLD = {"settings": {"memory-scoring": {"hold": True}}}


@pytest.fixture
def three(say):
    """Three memories, the last of them between two responses."""
    return say.talk(
        say.user(9),
        say.reply(1, 2, 3),
        say.memory("c", 3),
        say.user(9),
        say.reply(1, 2, 3),
        identity=[say.memory("a", 1), say.memory("b", 2)],
    )


def naive_hold(plain, key):
    """Index, id and what ``key`` does alone, of each response that is no memory."""
    everything = range(plain.length)
    all_but = plain.everything() - {key}
    alone, bare = plain.tokens(everything, all_but), plain.tokens(everything, plain.everything())
    return [
        (index, id_, plain.total(alone, id_) - plain.total(bare, id_))
        for index, id_ in plain.responses(everything)
        if plain.talk.conversation[index].key is None
    ]


@st.composite
def some_replies_are_memories(draw, talks):
    """A conversation, and some of its assistant nodes are memories themselves."""
    talk, keys = draw(talks), st.none() | st.none() | st.sampled_from("abcd")
    said = [
        replace(it, key=draw(keys)) if it.role == "assistant" else it for it in talk.conversation
    ]
    return replace(talk, conversation=tuple(said))


# -- values ---------------------------------------------------------------------------------------


async def test_a_hold_is_with_the_memory_alone_less_with_none(three, host, naive):
    async with host(three, plugins=HOLD) as it:
        await it.run(FULL)
        assert it.outcomes == dict.fromkeys("abc", "scored")
    assert [score.key for score in it.heard.scores] == ["c", "b", "a"]
    for score in it.heard.scores:
        expected = naive_hold(naive(three), score.key)
        assert [(cell.entry_idx, cell.node_id) for cell in score.hold] == [(1, "c1"), (4, "c4")]
        assert [cell.signed for cell in score.hold] == pytest.approx(
            [signed for _, _, signed in expected], abs=1e-9
        )
        assert [cell.divergence for cell in score.hold] == [
            max(0.0, cell.signed) for cell in score.hold
        ]
    c, _, a = it.heard.scores
    assert (c.hold[0].divergence, c.hold[0].signed) == (0.0, 0.0)
    assert a.hold[0].signed > 1


async def test_the_score_is_the_largest_drop_whatever_the_holds_are(three, host):
    async with host(three) as plain, host(three, plugins=HOLD) as it:
        await plain.run(FULL)
        await it.run(FULL)
    for without, with_ in zip(plain.heard.scores, it.heard.scores, strict=True):
        assert without.hold is None
        assert with_ == replace(without, hold=with_.hold)
    assert it.state.response_scores == plain.state.response_scores


@given(data=st.data(), least=st.sampled_from([0.01, 3.0]))
def test_any_matrix_with_holds_is_the_naive_one(host, talks, naive, data, least):
    talk = data.draw(some_replies_are_memories(talks))
    plain = naive(talk)
    everything = range(plain.length)

    async def go():
        async with host(talk, plugins=HOLD, memory={"min_divergence": least}) as it:
            await it.run(FULL)
            return it

    it = asyncio.run(go())
    assert it.state.memory_last_run.error is None
    for score in it.heard.scores:
        drop = plain.row(everything, {score.key})
        assert [(cell.entry_idx, cell.node_id) for cell in score.divergences] == [
            row[:2] for row in drop
        ]
        assert [cell.signed for cell in score.divergences] == pytest.approx(
            [row[2] for row in drop], abs=1e-6
        )
        hold = naive_hold(plain, score.key)
        assert [(cell.entry_idx, cell.node_id) for cell in score.hold] == [row[:2] for row in hold]
        assert [cell.signed for cell in score.hold] == pytest.approx(
            [row[2] for row in hold], abs=1e-6
        )
        assert [cell.divergence for cell in score.hold] == [
            max(0.0, cell.signed) for cell in score.hold
        ]
    confirming = len(redundant_candidates(it.heard.scores))
    assert it.state.memory_last_run.calls <= 2 * (len(it.heard.scores) + 1) + confirming


async def test_a_response_that_is_a_memory_itself_has_no_hold(say, host):
    talk = say.talk(
        say.reply(1), say.reply(1, key="k"), say.reply(1), identity=[say.memory("a", 1)]
    )
    async with host(talk, plugins=HOLD) as it:
        await it.run(FULL)
    for score in it.heard.scores:
        assert [cell.node_id for cell in score.hold] == ["c0", "c2"]
    result = Result(
        command=FULL,
        model="toy",
        transcript=SimpleNamespace(responses=lambda: [(0, "c0"), (1, "c1"), (2, "c2")]),
        keys=("a", "k"),
        scores={score.key: score for score in it.heard.scores},
        candidates=(),
        stats=it.state.memory_last_run,
        error=None,
    )
    found = document(result)
    for values in (found["hold"], found["hold_signed"]):
        assert [[value is None for value in row] for row in values] == [[False, True, False]] * 2
    # What a did to the response that is k is known: k is there when a is left out.
    assert [[value is None for value in row] for row in found["matrix"]] == [
        [False, False, False],
        [False, True, False],
    ]


# -- what is asked for ----------------------------------------------------------------------------


async def test_n_memories_take_at_most_2_n_and_2_calls(three, host, probe):
    async with host(three, "probe", plugins=HOLD, server={"concurrency": 1}) as it:
        await it.run(FULL)
        stats = it.state.memory_last_run
    assert [(prompt.tokens, prompt.node_ids) for prompt in probe.asked] == [
        ((1, 2, 9, 21, 1, 2, 3, 7, 22, 3, 9, 21, 1, 2, 3, 7), ("c1", "c4")),
        # c: its drop, then with no memory, then alone
        ((1, 2, 9, 21, 1, 2, 3, 7, 22, 9, 21, 1, 2, 3, 7), ("c4",)),
        ((9, 21, 1, 2, 3, 7, 22, 9, 21, 1, 2, 3, 7), ("c1", "c4")),
        ((9, 21, 1, 2, 3, 7, 22, 3, 9, 21, 1, 2, 3, 7), ("c4",)),
        ((1, 9, 21, 1, 2, 3, 7, 22, 3, 9, 21, 1, 2, 3, 7), ("c1", "c4")),
        ((2, 9, 21, 1, 2, 3, 7, 22, 9, 21, 1, 2, 3, 7), ("c1", "c4")),
        # Up to c1, without a is b alone, and a alone is without b.
        ((2, 9, 21, 1, 2, 3, 7, 22, 3, 9, 21, 1, 2, 3, 7), ("c4",)),
        ((1, 9, 21, 1, 2, 3, 7, 22, 9, 21, 1, 2, 3, 7), ("c4",)),
    ]
    assert stats.calls == 2 * (3 + 1)


async def test_of_two_memories_each_one_alone_is_without_the_other(say, host, probe):
    talk = say.talk(say.user(9), say.reply(1, 2), identity=[say.memory("a", 1), say.memory("b", 2)])
    async with host(talk, "probe", plugins=HOLD) as it:
        await it.run(FULL)
        assert it.outcomes == {"a": "scored", "b": "scored"}
    assert sorted(prompt.tokens[:2] for prompt in probe.asked) == [(1, 2), (1, 9), (2, 9), (9, 21)]


async def test_of_one_memory_the_hold_is_the_drop_and_costs_nothing(say, host, probe):
    talk = say.talk(say.user(9), say.reply(1), identity=[say.memory("a", 1)])
    async with host(talk, "probe", plugins=HOLD) as it:
        await it.run(FULL)
    [score] = it.heard.scores
    assert score.hold == score.divergences
    assert len(probe.asked) == 2


async def test_with_none_is_what_a_finetune_run_of_the_whole_asks_too(three, host, probe):
    async with host(three, "probe", plugins=HOLD, finetune={"window_fraction": 1.0}) as it:
        await it.run(FULL)
        asked = len(probe.asked)
        await it.run(FINETUNE)
        assert it.state.finetune_last_run.calls == 0
    assert len(probe.asked) == asked
    assert it.heard.candidates


async def test_a_scoring_has_no_holds(three, host, probe):
    async with host(three, "probe", plugins=HOLD, memory={"token_cutoff": 1.0}) as it:
        await it.run(SCORE)
    assert {score.hold for score in it.heard.scores} == {None}


@pytest.mark.parametrize("plugins", [{}, {"settings": {"memory-scoring": {"hold": False}}}])
async def test_no_hold_is_measured_where_none_was_asked_for(three, host, probe, plugins):
    async with host(three, "probe", plugins=plugins) as it:
        await it.run(FULL)
    assert {score.hold for score in it.heard.scores} == {None}
    assert len(probe.asked) == 4


async def test_where_noise_was_measured_a_hold_has_its_response_s(three, host, probe):
    async with host(three, "probe", plugins=HOLD, memory={"noise_repeats": 1}) as it:
        await it.run(FULL)
    cells = [cell for score in it.heard.scores for cell in score.hold]
    assert {cell.noise for cell in cells} == {0.0}


# -- failures -------------------------------------------------------------------------------------


def alone(token):
    """Whether a prompt has the memory of that token and no other."""
    return lambda prompt: prompt.tokens[:2] == (token, 9) and prompt.tokens[8] == 9


async def test_a_hold_that_fails_keeps_the_drop_and_stops_no_other(three, host, probe):
    async with host(three) as plain:
        await plain.run(FULL)
    probe.refuses = alone(2)
    async with host(three, "probe", plugins=HOLD) as it:
        await it.run(FULL)
        stats = it.state.memory_last_run
        rows = it.rows("cells")
    assert stats.outcomes == {
        "a": Outcome("scored"),
        "b": Outcome("failed", "alone: the probe refuses"),
        "c": Outcome("scored"),
    }
    assert stats.error == "1 of 3 memories failed; b: alone: the probe refuses"
    # Asked for, and nothing measured.
    assert [(score.key, score.hold == ()) for score in it.heard.scores] == [
        ("c", False),
        ("b", True),
        ("a", False),
    ]
    for without, with_ in zip(plain.heard.scores, it.heard.scores, strict=True):
        assert with_.divergences == without.divergences
    assert it.state.response_scores == plain.state.response_scores
    assert {row["key"] for row in rows} == {"a", "b", "c"}


async def test_a_failure_with_none_fails_every_hold_and_no_drop(three, host, probe):
    probe.refuses = lambda prompt: prompt.tokens[0] == 9 and len(prompt.tokens) == 13
    async with host(three, "probe", plugins=HOLD) as it:
        await it.run(FULL)
        failed = Outcome("failed", "alone: the probe refuses")
        assert it.state.memory_last_run.outcomes == dict.fromkeys("abc", failed)
    assert [score.key for score in it.heard.scores] == ["c", "b", "a"]
    assert all(score.hold == () and score.score > 0 for score in it.heard.scores)


async def test_a_drop_that_fails_leaves_nothing_of_its_memory(three, host, probe):
    probe.refuses = lambda prompt: prompt.tokens[:3] == (1, 9, 21) and prompt.tokens[8] == 3
    async with host(three, "probe", plugins=HOLD) as it:
        await it.run(FULL)
        outcomes = it.state.memory_last_run.outcomes
    assert outcomes["b"] == Outcome("failed", "the probe refuses")
    assert [score.key for score in it.heard.scores] == ["c", "a"]


async def test_a_scorer_that_fails_in_its_own_way_fails_the_hold_alone(
    three, host, probe, monkeypatch
):
    honest, wrong = probe.score, alone(2)

    async def score(prompts):
        if any(map(wrong, prompts)):
            raise ZeroDivisionError("by nothing")
        return await honest(prompts)

    monkeypatch.setattr(probe, "score", score)
    async with host(three, "probe", plugins=HOLD) as it:
        await it.run(FULL)
        outcomes = it.state.memory_last_run.outcomes
    assert outcomes["b"] == Outcome("failed", "alone: ZeroDivisionError: by nothing")
    assert [score.key for score in it.heard.scores] == ["c", "b", "a"]


async def test_a_run_that_is_cancelled_while_a_hold_is_measured_ends(three, host, probe):
    probe.waits = alone(2)
    async with host(three, "probe", plugins=HOLD, server={"concurrency": 1}) as it:
        it.registry.dispatch(FULL)
        await probe.waiting.wait()
        await it.registry.task_handle("memory-scoring").cancel()
        cancelled = Outcome("failed", "cancelled")
        assert it.state.memory_last_run.outcomes == {
            "a": cancelled,
            "b": cancelled,
            "c": Outcome("scored"),
        }
    assert [score.key for score in it.heard.scores] == ["c"]


async def test_a_part_that_is_printed_once_for_two_memories_is_measured_alone(host):
    """Leaving either out changes nothing: leave-one-out passes over both."""
    said, bare = (7, 1, 2, 3), (7,)
    system = Node(
        "s",
        Role.SYSTEM,
        "",
        said,
        parts=(Part("tea"), Part("tea", "a"), Part("tea", "b")),
        render=lambda skipped: bare if skipped == {"a", "b"} else said,
    )
    reply = Node("r", Role.ASSISTANT, "", (8, 1, 2, 3), (1, 4))
    context = Context((system,), (), (reply,))
    cached = CachedScorer(ToyScorer(), Usage(), ScoreCache(), Retry(ServerSettings()))
    compared = LeaveOneOut(cached, context, NoiseFloor(cached, 0))
    for key in "ab":
        [drop] = await compared.drop(range(1), skip_only(key))
        [hold] = await compared.hold(range(1), key)
        assert drop.signed == 0.0
        assert hold.signed > 10
