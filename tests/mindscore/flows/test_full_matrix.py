"""memory-scoring, the command ``score-full``: section 4.2."""

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindhooks import MemoryScore, MindCommand, Outcome, Trigger, hookimpl

SCORE, FULL = MindCommand.SCORE, MindCommand.SCORE_FULL


# -- what is asked for ----------------------------------------------------------------------------


async def test_there_is_one_baseline_and_one_prompt_for_each_memory(two, host, probe):
    async with host(two, "probe") as it:
        assert await it.run(FULL) == {"memory-scoring": Trigger.STARTED}
        stats = it.state.memory_last_run
    # The last memory first; nothing after the end of the last response.
    baseline, without_b, without_a = [prompt.tokens for prompt in probe.asked]
    assert baseline == (1, 9, 21, 1, 2, 7, 22, 2, 9, 21, 1, 2, 7)
    assert without_a == baseline[1:]
    assert without_b == (*baseline[:7], *baseline[8:])
    assert stats.calls == 3
    assert stats.prompt_tokens == stats.computed_tokens == 13 + 12 + 12


async def test_the_window_is_the_whole_conversation_whatever_the_settings_say(two, host, probe):
    memory = {"response_window": 1, "token_cutoff": 0.0, "interval_s": 3600}
    async with host(two, "probe", memory=memory) as it:
        await it.store.record_score(MemoryScore("a", 1.0, "incremental", ()), "toy", 0.3)
        await it.run(FULL)
        assert it.outcomes == {"a": "scored", "b": "scored"}
    assert probe.asked[0].node_ids == ("c1", "c4")


async def test_a_response_before_the_memory_has_0_for_both_and_is_not_asked_for(two, host, probe):
    async with host(two, "probe") as it:
        await it.run(FULL)
    row_of_b = it.heard.scores[0]
    assert row_of_b.key == "b"
    assert (row_of_b.divergences[0].divergence, row_of_b.divergences[0].signed) == (0.0, 0.0)
    assert row_of_b.divergences[1].divergence > 0
    assert [prompt.node_ids for prompt in probe.asked] == [("c1", "c4"), ("c4",), ("c1", "c4")]


async def test_the_baseline_is_not_asked_for_responses_before_every_memory(say, host, probe):
    talk = say.talk(say.user(1), say.reply(2), say.memory("k", 3), say.user(4), say.reply(3))
    async with host(talk, "probe") as it:
        await it.run(FULL)
    assert [prompt.node_ids for prompt in probe.asked] == [("c4",), ("c4",)]


async def test_the_baseline_is_asked_for_what_the_chosen_memories_come_before(two, host, probe):
    only = {"settings": {"memory-scoring": {"only": ["b"]}}}
    async with host(two, "probe", plugins=only) as it:
        await it.run(FULL)
    assert [score.key for score in it.heard.scores] == ["b"]
    assert [prompt.node_ids for prompt in probe.asked] == [("c4",), ("c4",)]


async def test_a_memory_that_is_itself_a_response_has_no_cell_for_that_one(say, host):
    talk = say.talk(say.reply(1, key="k"), say.user(9), say.reply(1), identity=[say.memory("a", 1)])
    async with host(talk) as it:
        await it.run(FULL)
    rows = {score.key: [it.node_id for it in score.divergences] for score in it.heard.scores}
    assert rows == {"a": ["c0", "c2"], "k": ["c2"]}


async def test_a_memory_with_an_image_after_a_response_is_scored_as_any_other(say, host, naive):
    talk = say.talk(
        say.user(1),
        say.reply(2),
        say.memory("k", 3, images=("cat.png",)),
        say.user(4),
        say.reply(3),
    )
    async with host(talk) as it:
        await it.run(FULL)
    assert it.state.memory_last_run.outcomes == {"k": Outcome("scored")}
    signed = [response.signed for response in it.heard.scores[0].divergences]
    assert signed == pytest.approx([it[2] for it in naive(talk).row(range(5), {"k"})], abs=1e-9)


async def test_a_conversation_without_responses_is_scored_in_no_calls(say, host, probe):
    talk = say.talk(say.memory("k", 1), say.user(2), say.silent())
    async with host(talk, "probe") as it:
        await it.run(FULL)
        assert it.outcomes == {"k": "no-response"}
    assert probe.asked == []
    assert it.heard.scores == []


async def test_a_memory_that_is_itself_the_only_response_has_none_and_stops_no_other(say, host):
    talk = say.talk(say.reply(1, key="k"), identity=[say.memory("a", 1)])
    async with host(talk) as it:
        await it.run(FULL)
        assert it.outcomes == {"a": "scored", "k": "no-response"}
    assert [score.key for score in it.heard.scores] == ["a"]


async def test_a_conversation_without_memories_is_scored_in_no_calls(say, host, probe):
    async with host(say.talk(say.user(1), say.reply(2)), "probe") as it:
        await it.run(FULL)
        assert it.outcomes == {}
    assert probe.asked == []


async def test_memories_after_every_response_have_rows_of_0_in_no_calls(say, host, probe):
    async with host(say.talk(say.user(1), say.reply(2), say.memory("k", 3)), "probe") as it:
        await it.run(FULL)
    assert [(score.key, score.score) for score in it.heard.scores] == [("k", 0.0)]
    assert probe.asked == []


# -- rows -----------------------------------------------------------------------------------------


async def test_there_is_one_score_for_each_memory_its_largest_divergence_with_its_whole_row(
    two, host, naive
):
    async with host(two) as it:
        await it.run(FULL)
    assert [(score.key, score.mode) for score in it.heard.scores] == [("b", "full"), ("a", "full")]
    for score in it.heard.scores:
        expected = naive(two).row(range(5), {score.key})
        assert [(it.entry_idx, it.node_id) for it in score.divergences] == [(1, "c1"), (4, "c4")]
        signed = [it.signed for it in score.divergences]
        assert signed == pytest.approx([it[2] for it in expected], abs=1e-9)
        assert score.score == max(it.divergence for it in score.divergences)


async def test_values_above_min_divergence_are_set_and_others_removed(two, host):
    async with host(two) as it:
        it.state.response_scores = {
            "c1": {"a": 9.0, "b": 9.0, "gone": 1.0},
            "c4": {"b": 9.0},
            "other": {"a": 9.0},
        }
        await it.run(FULL)
    rows = {it.key: [cell.divergence for cell in it.divergences] for it in it.heard.scores}
    a, b = rows["a"], rows["b"]
    assert b[0] == 0.0
    assert it.state.response_scores == {
        "c1": {"a": a[0], "gone": 1.0},
        "c4": {"a": a[1], "b": b[1]},
        "other": {"a": 9.0},
    }


async def test_a_value_equal_to_min_divergence_is_not_above_it(two, host):
    async with host(two) as it:
        await it.run(FULL)
        value = it.state.response_scores["c1"]["a"]
        for least, cells in ((value, {}), (math.nextafter(value, 0), {"a": value})):
            memory = {"min_divergence": least}
            it.registry.settings = {**it.registry.settings, "memory": memory}
            await it.run(FULL)
            assert it.state.response_scores.get("c1", {}) == cells


async def test_a_row_is_on_the_screen_before_its_score_is_heard_of(two, host):
    class Listener:
        def __init__(self):
            self.columns = []

        @hookimpl
        def on_score(self, score, mind):
            self.columns.append((score.key, sorted(mind.state.response_scores["c4"])))

    listener = Listener()
    async with host(two) as it:
        it.registry.register(listener)
        await it.run(FULL)
    assert listener.columns == [("b", ["b"]), ("a", ["a", "b"])]


async def test_the_screen_is_woken_after_each_row(two, host):
    async with host(two) as it:
        seen = []

        def changed():
            columns = it.state.response_scores.get("c4", {})
            seen.append((it.state.scoring_in_flight, sorted(columns)))

        it.mind.changed = changed
        await it.run(FULL)
    assert seen == [(True, []), (True, ["b"]), (True, ["a", "b"]), (False, ["a", "b"])]


async def test_a_failed_row_leaves_what_was_there_and_the_others_go_on(two, host, probe):
    probe.refuses = lambda prompt: prompt.tokens[0] == 9
    async with host(two, "probe") as it:
        it.state.response_scores = {"c1": {"a": 9.0}, "c4": {"a": 8.0, "b": 7.0}}
        await it.run(FULL)
        assert it.rows("cells") != []
        assert {row["key"] for row in it.rows("cells")} == {"b"}
    [b] = it.heard.scores
    assert it.state.response_scores == {
        "c1": {"a": 9.0},
        "c4": {"a": 8.0, "b": b.divergences[1].divergence},
    }
    assert it.state.memory_last_run.outcomes == {
        "a": Outcome("failed", "the probe refuses"),
        "b": Outcome("scored"),
    }
    assert it.state.memory_last_run.error == "1 of 2 memories failed; a: the probe refuses"


async def test_a_failed_baseline_fails_every_memory_and_leaves_what_was_there(two, host, probe):
    probe.refuses = lambda prompt: True
    async with host(two, "probe") as it:
        it.state.response_scores = {"c1": {"a": 9.0}}
        await it.run(FULL)
        assert it.rows("cells") == []
    failed = Outcome("failed", "the probe refuses")
    assert it.state.memory_last_run.outcomes == {"a": failed, "b": failed}
    assert it.state.memory_last_run.error == "the probe refuses"
    assert it.state.response_scores == {"c1": {"a": 9.0}}
    assert it.heard.scores == []
    assert not it.state.scoring_in_flight
    # Once the baseline has failed, nothing is left to compare with.
    assert len(probe.asked) == 1


@settings(max_examples=40)
@given(data=st.data(), least=st.sampled_from([0.01, 0.5, 3.0]))
def test_any_matrix_is_the_naive_one(host, talks, naive, data, least):
    talk = data.draw(talks)
    plain = naive(talk)
    everything = range(len(talk.conversation))

    async def go():
        async with host(talk, memory={"min_divergence": least}) as it:
            await it.run(FULL)
            return it, it.rows("cells")

    it, cells = asyncio.run(go())
    keys = plain.positions() if plain.responses(everything) else {}
    rows = {key: plain.row(everything, {key}) for key in keys}
    assert {score.key: score.mode for score in it.heard.scores} == dict.fromkeys(keys, "full")
    assert len(it.heard.scores) == len(keys)
    turns = [plain.positions()[score.key] for score in it.heard.scores]
    assert turns == sorted(turns, reverse=True)
    expected_screen = {}
    for score in it.heard.scores:
        row = rows[score.key]
        assert [(it.entry_idx, it.node_id) for it in score.divergences] == [it[:2] for it in row]
        signed = [it.signed for it in score.divergences]
        assert signed == pytest.approx([it[2] for it in row], abs=1e-9)
        assert score.score == pytest.approx(max(0.0, *(it[2] for it in row)), abs=1e-9)
        for index, node_id, value in row:
            if value > least:
                found = expected_screen.setdefault(node_id, {})
                found[score.key] = pytest.approx(value, abs=1e-9)
            [cell] = [it for it in cells if (it["key"], it["node_id"]) == (score.key, node_id)]
            assert cell["entry_idx"] == index
            assert cell["signed"] == pytest.approx(value, abs=1e-9)
            assert cell["divergence"] == max(0.0, cell["signed"])
    assert it.state.response_scores == expected_screen
    assert len(cells) == sum(map(len, rows.values()))
    stats = it.state.memory_last_run
    assert it.outcomes == dict.fromkeys(plain.positions(), "scored" if keys else "no-response")
    assert stats.calls <= len(keys) + 1
    assert stats.error is None


# -- what it leaves alone -------------------------------------------------------------------------


async def test_it_keeps_neither_weight_nor_last_scored_nor_memory_scores(two, host):
    async with host(two, memory={"token_cutoff": 1.0}) as it:
        it.state.memory_scores["a"] = 5.0
        await it.run(FULL)
        assert it.state.memory_scores == {"a": 5.0}
        assert await it.store.memories() == []
        assert await it.store.last_scored("toy") == {}
        await it.run(SCORE)
        assert it.outcomes == {"a": "scored", "b": "scored"}


async def test_the_recorder_keeps_the_cells_with_signed_values(two, host):
    async with host(two) as it:
        await it.run(FULL)
        cells = {
            (row["key"], row["node_id"]): (row["entry_idx"], row["divergence"], row["signed"])
            for row in it.rows("cells")
        }
    assert cells == {
        (score.key, response.node_id): (
            response.entry_idx,
            response.divergence,
            response.signed,
        )
        for score in it.heard.scores
        for response in score.divergences
    }


# -- one run at a time ----------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [(SCORE, FULL), (FULL, SCORE), (FULL, FULL)])
async def test_score_and_score_full_share_a_handle_so_one_of_the_two_runs(
    two, host, probe, first, second
):
    probe.waits = lambda prompt: True
    async with host(two, "probe", memory={"token_cutoff": 1.0}) as it:
        assert it.registry.dispatch(first) == {"memory-scoring": Trigger.STARTED}
        await probe.waiting.wait()
        assert it.registry.dispatch(second) == {"memory-scoring": Trigger.BUSY}
        probe.go.set()
        await it.registry.wait_idle()
        modes = {score.mode for score in it.heard.scores}
        assert modes == {"full" if first == FULL else "incremental"}
        assert await it.run(second) == {"memory-scoring": Trigger.STARTED}


async def test_the_activity_line_says_baseline_and_then_each_memory_with_done_and_total(two, host):
    async with host(two) as it:
        await it.run(FULL)
    assert it.lines == [
        ("scoring: baseline", 0, 2),
        ("scoring: 1/2 b", 1, 2),
        ("scoring: 2/2 a", 2, 2),
    ]
    assert it.mind.open_activities == 0


async def test_scoring_in_flight_is_true_while_it_runs_and_false_once_it_is_cancelled(
    two, host, probe
):
    probe.waits = lambda prompt: True
    async with host(two, "probe") as it:
        it.registry.dispatch(FULL)
        await probe.waiting.wait()
        assert it.state.scoring_in_flight
        await it.registry.task_handle("memory-scoring").cancel()
        assert not it.state.scoring_in_flight
        cancelled = Outcome("failed", "cancelled")
        assert it.state.memory_last_run.outcomes == {"a": cancelled, "b": cancelled}
