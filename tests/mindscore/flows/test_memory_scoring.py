"""memory-scoring, the command ``score``: section 4.1, and what section 4 says of every run."""

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindhooks import MemoryScore, MindCommand, Outcome, Registry, ScoreResult, Trigger, hookimpl
from mindhooks.testing import RecordingListener, StubMind

SCORE = MindCommand.SCORE
# Of a short conversation, everything is judged.
ALL = {"token_cutoff": 1.0}


@pytest.fixture
def three(say):
    """Three memories that the response after them is made of, and a second response."""
    return say.talk(
        say.user(9),
        say.reply(1, 2, 3),
        say.user(9),
        say.reply(1),
        identity=[say.memory("a", 1), say.memory("b", 2), say.memory("c", 3)],
    )


def lacks(token):
    """Whether a prompt is the one without the memory of that token: elsewhere it is in replies."""
    return lambda prompt: token not in prompt.tokens[:3]


def scored(key, score=1.0):
    return MemoryScore(key, score, "incremental", ())


# -- candidates -----------------------------------------------------------------------------------


async def test_every_distinct_key_in_every_section_is_a_candidate_once(say, host):
    talk = say.talk(
        say.memory("c", 3),
        say.prints("user", ([4], None), ([5], "p"), ([6], "s")),
        say.reply(5),
        system=[say.prints("system", ([1], "s"))],
        identity=[say.memory("i", 2), say.memory("c", 2)],
    )
    async with host(talk, memory=ALL) as it:
        assert await it.run(SCORE) == {"memory-scoring": Trigger.STARTED}
        assert it.outcomes == dict.fromkeys("sicp", "scored")
        assert sorted(score.key for score in it.heard.scores) == sorted("sicp")


async def test_a_conversation_without_memories_is_scored_in_no_calls(say, host):
    async with host(say.talk(say.user(1), say.reply(2))) as it:
        await it.run(SCORE)
        stats = it.state.memory_last_run
        assert (stats.outcomes, stats.calls, stats.error) == ({}, 0, None)


async def test_only_the_memories_that_the_plugin_s_table_names_are_candidates(three, host):
    only = {"settings": {"memory-scoring": {"only": ["c", "a"]}}}
    async with host(three, memory=ALL, plugins=only) as it:
        await it.run(SCORE)
        assert it.outcomes == {"a": "scored", "c": "scored"}


# -- due ------------------------------------------------------------------------------------------


async def test_a_memory_is_due_once_interval_s_has_passed_since_it_was_scored(three, host, clock):
    async with host(three, memory={**ALL, "interval_s": 100}) as it:
        await it.store.record_score(scored("a"), "toy", 0.3)
        clock.now += 1
        await it.store.record_score(scored("b"), "toy", 0.3)
        clock.now += 99
        await it.run(SCORE)
        assert it.outcomes == {"a": "scored", "b": "not-due", "c": "scored"}


async def test_an_interval_of_0_makes_every_memory_due_even_where_the_clock_was_set_back(
    three, host, clock
):
    async with host(three, memory={**ALL, "interval_s": 0}) as it:
        await it.store.record_score(scored("a"), "toy", 0.3)
        clock.now -= 1000
        await it.run(SCORE)
        assert it.outcomes == dict.fromkeys("abc", "scored")


async def test_what_was_scored_in_the_last_hour_is_not_due_by_default(three, host, clock):
    async with host(three, memory=ALL) as it:
        await it.run(SCORE)
        clock.now += 3599
        await it.run(SCORE)
        assert it.outcomes == dict.fromkeys("abc", "not-due")
        assert it.state.memory_last_run.calls == 0
        clock.now += 1
        await it.run(SCORE)
        assert it.outcomes == dict.fromkeys("abc", "scored")


async def test_a_score_of_another_model_or_namespace_makes_no_memory_less_due(three, host):
    async with host(three, memory=ALL) as it:
        await it.store.record_score(scored("a"), "another-model", 0.3)
        async with host(three, file=it.file, store={"namespace": "other"}) as other:
            await other.store.record_score(scored("b"), "toy", 0.3)
        await it.run(SCORE)
        assert it.outcomes == dict.fromkeys("abc", "scored")


async def test_an_imported_score_leaves_a_memory_due(three, host):
    async with host(three, memory=ALL) as it:
        await it.store.import_scores({"a": 3.0}, "toy")
        await it.run(SCORE)
        assert it.outcomes["a"] == "scored"


async def test_the_oldest_is_scored_first_and_ties_go_by_position(say, host, clock):
    talk = say.talk(
        *(say.memory(key, 1) for key in "vwxyz"),
        say.reply(1),
        identity=[say.memory("y", 2)],
    )
    async with host(talk, memory={**ALL, "interval_s": 1}) as it:
        await it.store.record_score(scored("v"), "toy", 0.3)
        clock.now -= 10
        await it.store.record_score(scored("z"), "toy", 0.3)
        await it.store.record_score(scored("w"), "toy", 0.3)
        clock.now += 100
        await it.run(SCORE)
        # x and y were never scored, and y is in identity too; w and z are the older ones.
        assert [score.key for score in it.heard.scores] == ["y", "x", "w", "z", "v"]


# -- past the cutoff, no response -----------------------------------------------------------------


async def test_a_memory_past_the_token_cutoff_is_not_scored(say, host, probe):
    talk = say.talk(
        say.user(1), say.reply(2), say.user(*[3] * 20), say.memory("k", 4), say.reply(4)
    )
    async with host(talk, "probe") as it:
        await it.run(SCORE)
        assert it.outcomes == {"k": "past-cutoff"}
    assert probe.asked == []
    assert it.heard.scores == []


async def test_a_memory_at_position_0_is_past_the_cutoff_by_conversation_0_alone(say, host):
    talk = say.talk(say.user(*[1] * 20), say.reply(2), identity=[say.memory("k", 2)])
    async with host(talk) as it:
        await it.run(SCORE)
        assert it.outcomes == {"k": "past-cutoff"}


async def test_a_memory_in_an_empty_conversation_has_no_response(say, host):
    async with host(say.talk(identity=[say.memory("k", 2)])) as it:
        await it.run(SCORE)
        assert it.outcomes == {"k": "no-response"}
        assert it.state.memory_last_run.error is None


async def test_a_memory_without_a_response_in_its_window_has_no_response(say, host):
    talk = say.talk(say.user(1), say.reply(2), say.memory("k", 3), say.user(4))
    async with host(talk, memory=ALL) as it:
        await it.run(SCORE)
        assert it.outcomes == {"k": "no-response"}
    assert it.heard.scores == []
    assert it.state.memory_scores == {}


async def test_a_memory_that_is_itself_the_only_response_has_none_and_stops_no_other(say, host):
    talk = say.talk(say.memory("a", 1), say.reply(1, key="k"), say.user(9))
    async with host(talk, memory=ALL) as it:
        await it.run(SCORE)
        assert it.outcomes == {"a": "scored", "k": "no-response"}
    assert [score.key for score in it.heard.scores] == ["a"]


async def test_a_window_of_turns_that_said_nothing_has_no_response(say, host):
    async with host(say.talk(say.memory("k", 3), say.silent()), memory=ALL) as it:
        await it.run(SCORE)
        assert it.outcomes == {"k": "no-response"}


# -- window and score -----------------------------------------------------------------------------


async def test_the_prompt_is_system_identity_and_the_window_and_nothing_earlier(say, host, probe):
    talk = say.talk(
        say.user(1),
        say.reply(2),
        say.memory("k", 3),
        say.user(4),
        say.reply(3),
        say.user(5),
        say.reply(6),
        system=[say.plain("system", 11)],
        identity=[say.plain("system", 12)],
    )
    async with host(talk, "probe", memory={**ALL, "response_window": 1}) as it:
        await it.run(SCORE)
    with_, without = probe.asked
    assert with_.tokens == (11, 12, 3, 4, 21, 3, 7)
    assert without.tokens == (11, 12, 4, 21, 3, 7)
    assert with_.node_ids == without.node_ids == ("c4",)


async def test_the_score_is_the_largest_divergence_over_the_window(three, host, naive):
    async with host(three, memory=ALL) as it:
        await it.run(SCORE)
    [score] = [score for score in it.heard.scores if score.key == "a"]
    signed = [it[2] for it in naive(three).measured("a", 50)]
    assert [it.signed for it in score.divergences] == pytest.approx(signed, abs=1e-9)
    assert score.score == max(it.divergence for it in score.divergences) > 1
    assert score.mode == "incremental"


async def test_a_score_is_0_where_a_memory_only_makes_responses_less_likely(say, host):
    talk = say.talk(say.memory("k", 9), say.user(3), say.reply(3))
    async with host(talk, memory=ALL) as it:
        await it.run(SCORE)
    [score] = it.heard.scores
    assert score.score == 0.0
    assert score.divergences[0].signed < 0


async def test_every_node_and_part_bearing_the_key_is_removed(say, host, probe):
    talk = say.talk(
        say.memory("k", 1),
        say.prints("user", ([2], "k"), ([3], None), ([4], "other")),
        say.reply(1),
        say.memory("k", 5),
        say.reply(5),
        identity=[say.memory("k", 6), say.plain("system", 8)],
    )
    only = {"settings": {"memory-scoring": {"only": ["k"]}}}
    async with host(talk, "probe", memory=ALL, plugins=only) as it:
        await it.run(SCORE)
    with_, without = probe.asked
    assert with_.tokens == (6, 8, 1, 102, 2, 3, 4, 21, 1, 7, 22, 5, 21, 5, 7)
    assert without.tokens == (8, 101, 3, 4, 21, 1, 7, 22, 21, 5, 7)


async def test_a_score_is_heard_of_as_soon_as_it_is_known(three, host, probe):
    first = asyncio.Event()

    class Listener:
        @hookimpl
        def on_score(self, score):
            first.set()

    probe.waits = lacks(3)
    async with host(three, "probe", memory=ALL) as it:
        it.registry.register(Listener())
        it.registry.dispatch(SCORE)
        await probe.waiting.wait()
        await first.wait()
        assert it.state.scoring_in_flight
        assert "c" not in [score.key for score in it.heard.scores]
        probe.go.set()
        await it.registry.wait_idle()
        assert [score.key for score in it.heard.scores] == ["a", "b", "c"]


@settings(max_examples=40)
@given(
    data=st.data(),
    interval_s=st.sampled_from([0, 10, 20]),
    cutoff=st.sampled_from([0.25, 0.6, 0.9, 1.0]),
    count=st.integers(1, 4),
)
def test_any_run_is_the_naive_one(host, talks, naive, data, interval_s, cutoff, count):
    talk = data.draw(talks)
    ages = data.draw(st.dictionaries(st.sampled_from("abcd"), st.sampled_from([0, 5, 10, 20, 30])))
    plain = naive(talk)
    memory = {"interval_s": interval_s, "token_cutoff": cutoff, "response_window": count}
    statuses = {
        key: plain.status(key, ages, interval_s, cutoff, count) for key in plain.positions()
    }

    async def go():
        now = 1_700_000_000
        async with host(talk, memory=memory) as it:
            with pytest.MonkeyPatch.context() as patch:
                for key, age in ages.items():
                    patch.setattr(time, "time", lambda age=age: now - age)
                    await it.store.record_score(scored(key), "toy", 0.3)
                patch.setattr(time, "time", lambda: now)
                await it.run(SCORE)
            return it

    it = asyncio.run(go())
    assert it.outcomes == statuses
    heard = [score.key for score in it.heard.scores]
    assert sorted(heard) == sorted(key for key in statuses if statuses[key] == "scored")
    turns = [(-ages.get(key, 1e9), plain.positions()[key]) for key in heard]
    assert turns == sorted(turns)
    for score in it.heard.scores:
        expected = plain.measured(score.key, count)
        found = [(it.entry_idx, it.node_id) for it in score.divergences]
        assert found == [row[:2] for row in expected]
        signed = [row[2] for row in expected]
        assert [it.signed for it in score.divergences] == pytest.approx(signed, abs=1e-9)
        assert [it.divergence for it in score.divergences] == [
            max(0.0, it.signed) for it in score.divergences
        ]
        assert score.score == pytest.approx(max(0.0, *signed), abs=1e-9)
    assert it.state.memory_scores == {score.key: score.score for score in it.heard.scores}


# -- failures -------------------------------------------------------------------------------------


async def test_a_memory_that_fails_does_not_stop_the_others(three, host, probe):
    probe.refuses = lacks(2)
    async with host(three, "probe", memory=ALL) as it:
        await it.run(SCORE)
        stats = it.state.memory_last_run
    assert stats.outcomes["b"] == Outcome("failed", "the probe refuses")
    assert [score.key for score in it.heard.scores] == ["a", "c"]
    assert it.outcomes == {"a": "scored", "b": "failed", "c": "scored"}


async def test_a_failure_is_in_the_stats_in_words_with_the_memory_s_key(three, host, probe):
    probe.refuses = lacks(2)
    async with host(three, "probe", memory=ALL) as it:
        await it.run(SCORE)
    assert it.state.memory_last_run.error == "1 of 3 memories failed; b: the probe refuses"


async def test_a_failed_memory_has_no_score_anywhere_and_is_due_again(three, host, probe):
    probe.refuses = lacks(2)
    async with host(three, "probe", memory=ALL) as it:
        it.state.memory_scores["b"] = 5.0
        await it.run(SCORE)
        assert it.state.memory_scores["b"] == 5.0
        assert {memory.key for memory in await it.store.memories()} == {"a", "c"}
        probe.refuses = lambda prompt: False
        await it.run(SCORE)
        assert it.outcomes == {"a": "not-due", "b": "scored", "c": "not-due"}


async def test_a_scorer_that_fails_in_its_own_way_fails_the_memory_alone(
    three, host, probe, monkeypatch
):
    honest = probe.score

    async def score(prompts):
        if any(map(lacks(2), prompts)):
            raise ZeroDivisionError("by nothing")
        return await honest(prompts)

    monkeypatch.setattr(probe, "score", score)
    async with host(three, "probe", memory=ALL) as it:
        await it.run(SCORE)
        outcomes = it.state.memory_last_run.outcomes
    assert outcomes["b"] == Outcome("failed", "ZeroDivisionError: by nothing")
    assert [outcomes["a"].status, outcomes["c"].status] == ["scored", "scored"]


async def test_an_unknown_scorer_is_the_run_s_error(three, host):
    async with host(three, "nobody-s") as it:
        await it.run(SCORE)
        stats = it.state.memory_last_run
    assert "server.scorer" in stats.error
    assert "'nobody-s'" in stats.error
    assert (stats.outcomes, stats.calls) == ({}, 0)


@pytest.mark.parametrize(
    ("tables", "key"),
    [
        ({"memory": {"interval_s": -1}}, "memory.interval_s"),
        ({"memory": {"intervall_s": 1}}, "memory.intervall_s"),
        ({"finetune": {"threshold": "high"}}, "finetune.threshold"),
        ({"store": {"url": "postgresql://db"}}, "store.url"),
    ],
)
async def test_wrong_settings_are_the_run_s_error_and_name_the_key(say, tables, key):
    talk = say.talk(say.memory("k", 1), say.reply(1))
    mind = StubMind(talk.context())
    async with Registry(mind, {"server": {"scorer": "toy"}, **tables}) as registry:
        registry.load_entry_points()
        registry.dispatch(SCORE)
        await registry.wait_idle()
    assert key in mind.state.memory_last_run.error
    assert not mind.state.scoring_in_flight


async def test_a_store_that_cannot_be_read_is_the_run_s_error(three, host, tmp_path):
    file = tmp_path / "store"
    file.write_text("this is no database, whatever its name says " * 50)
    async with host(three, file=file, memory=ALL) as it:
        await it.run(SCORE)
        stats = it.state.memory_last_run
    assert str(file) in stats.error
    assert stats.outcomes == dict.fromkeys("abc", Outcome("failed", stats.error))
    assert not it.state.scoring_in_flight


async def test_a_context_that_breaks_the_rules_is_the_run_s_error(say, host):
    # The response begins at token 0: nothing comes before it.
    talk = say.talk(say.plain("assistant", 1, 2, body=(0, 2)), say.memory("k", 1), say.reply(1))
    async with host(talk) as it:
        await it.run(MindCommand.SCORE_FULL)
        stats = it.state.memory_last_run
    assert "token 0" in stats.error
    assert stats.outcomes == {"k": Outcome("failed", stats.error)}


async def test_a_wrong_key_in_the_plugin_s_own_table_keeps_the_plugin_out(three, host, caplog):
    wrong = {"settings": {"memory-scoring": {"onyl": ["a"]}}}
    async with host(three, plugins=wrong) as it:
        [info] = [info for info in it.registry.plugins() if info.name == "memory-scoring"]
    assert "plugins.settings.memory-scoring.onyl" in info.error
    assert "plugins.settings.memory-scoring.onyl" in caplog.text


# -- while it runs --------------------------------------------------------------------------------


async def test_busy_is_the_answer_while_a_run_is_going(three, host, probe):
    probe.waits = lambda prompt: True
    async with host(three, "probe", memory=ALL) as it:
        it.registry.dispatch(SCORE)
        await probe.waiting.wait()
        assert it.registry.dispatch(SCORE) == {"memory-scoring": Trigger.BUSY}
        probe.go.set()
        await it.registry.wait_idle()
        assert len(it.heard.scores) == 3
        assert await it.run(SCORE) == {"memory-scoring": Trigger.STARTED}


async def test_scoring_in_flight_is_true_while_a_run_is_going_and_false_after_it(
    three, host, probe
):
    probe.waits = lambda prompt: True
    async with host(three, "probe", memory=ALL) as it:
        assert not it.state.scoring_in_flight
        it.registry.dispatch(SCORE)
        await probe.waiting.wait()
        assert it.state.scoring_in_flight
        probe.go.set()
        await it.registry.wait_idle()
        assert not it.state.scoring_in_flight


async def test_scoring_in_flight_is_false_after_a_run_whose_memories_all_failed(three, host, probe):
    probe.waits = probe.refuses = lambda prompt: True
    async with host(three, "probe", memory=ALL) as it:
        it.registry.dispatch(SCORE)
        await probe.waiting.wait()
        assert it.state.scoring_in_flight
        probe.go.set()
        await it.registry.wait_idle()
        assert not it.state.scoring_in_flight
        assert set(it.outcomes.values()) == {"failed"}


async def test_scoring_in_flight_is_false_after_a_run_that_was_cancelled(three, host, probe):
    probe.waits = lambda prompt: True
    async with host(three, "probe", memory=ALL) as it:
        it.registry.dispatch(SCORE)
        await probe.waiting.wait()
        assert it.state.scoring_in_flight
        await it.registry.task_handle("memory-scoring").cancel()
        assert not it.state.scoring_in_flight
        assert it.state.memory_last_run.error == "cancelled"
    assert it.heard.scores == []
    assert it.mind.open_activities == 0


async def test_scoring_in_flight_is_false_after_the_host_closed_its_registry(three, host, probe):
    probe.waits = lambda prompt: True
    async with host(three, "probe", memory=ALL) as it:
        it.registry.dispatch(SCORE)
        await probe.waiting.wait()
        assert it.state.scoring_in_flight
    assert not it.state.scoring_in_flight


async def test_the_screen_is_woken_when_a_run_begins_when_a_score_is_known_and_when_it_ends(
    three, host
):
    async with host(three, memory=ALL) as it:
        seen = []

        def changed():
            seen.append((it.state.scoring_in_flight, sorted(it.state.memory_scores)))

        it.mind.changed = changed
        await it.run(SCORE)
    assert seen == [
        (True, []),
        (True, ["a"]),
        (True, ["a", "b"]),
        (True, ["a", "b", "c"]),
        (False, ["a", "b", "c"]),
    ]


async def test_the_activity_line_says_baseline_and_then_each_memory_with_done_and_total(
    three, host
):
    async with host(three, memory=ALL) as it:
        await it.run(SCORE)
    assert it.lines == [
        ("scoring: baseline", 0, 3),
        ("scoring: 1/3 a", 1, 3),
        ("scoring: 2/3 b", 2, 3),
        ("scoring: 3/3 c", 3, 3),
    ]
    assert {line[0] for line in it.mind.lines} == {line[0] for line in it.lines}


async def test_the_activity_line_is_gone_after_a_run_that_failed(three, host, probe):
    probe.refuses = lambda prompt: True
    async with host(three, "probe", memory=ALL) as it:
        await it.run(SCORE)
    assert it.mind.open_activities == 0
    assert it.lines[-1] == ("scoring: 3/3 c", 3, 3)


@pytest.mark.parametrize("concurrency", [1, 2, 3])
async def test_the_baseline_is_asked_for_alone_then_as_many_ablations_as_go_to_the_server_at_once(
    three, host, probe, concurrency
):
    async def settled():
        for _ in range(30):
            await asyncio.sleep(0)
        return [prompt.tokens[:3] for prompt in probe.asked]

    probe.waits = lambda prompt: True
    server = {"concurrency": concurrency}
    async with host(three, "probe", memory=ALL, server=server) as it:
        it.registry.dispatch(SCORE)
        await probe.waiting.wait()
        assert await settled() == [(1, 2, 3)]
        # Those that come now wait again; the baseline, for which all wait, is answered.
        answered, probe.go = probe.go, asyncio.Event()
        answered.set()
        without = [(2, 3, 9), (1, 3, 9), (1, 2, 9)]
        assert await settled() == [(1, 2, 3), *without[:concurrency]]
        probe.go.set()
        await it.registry.wait_idle()
        assert await settled() == [(1, 2, 3), *without]
        assert it.outcomes == dict.fromkeys("abc", "scored")


async def test_each_window_has_a_baseline_of_its_own_for_all_its_memories(say, host, probe):
    talk = say.talk(
        say.memory("a", 1),
        say.memory("b", 2),
        say.user(9),
        say.reply(1),
        say.memory("c", 3),
        say.user(9),
        say.reply(2),
        identity=[say.memory("i", 4)],
    )
    async with host(talk, "probe", memory=ALL, server={"concurrency": 1}) as it:
        await it.run(SCORE)
        assert it.outcomes == dict.fromkeys("iabc", "scored")
    # i and a have one window, which without a is that of b: 3 windows, 4 memories, 6 prompts.
    assert [(prompt.tokens, prompt.node_ids) for prompt in probe.asked] == [
        ((4, 1, 2, 9, 21, 1, 7, 22, 3, 9, 21, 2, 7), ("c3", "c6")),
        ((1, 2, 9, 21, 1, 7, 22, 3, 9, 21, 2, 7), ("c3", "c6")),
        ((4, 2, 9, 21, 1, 7, 22, 3, 9, 21, 2, 7), ("c3", "c6")),
        ((4, 9, 21, 1, 7, 22, 3, 9, 21, 2, 7), ("c3", "c6")),
        ((4, 3, 9, 21, 2, 7), ("c6",)),
        ((4, 9, 21, 2, 7), ("c6",)),
    ]


# -- settings, stats ------------------------------------------------------------------------------


async def test_settings_are_read_at_the_start_of_each_run(three, host):
    async with host(three, memory={**ALL, "interval_s": 3600}) as it:
        await it.run(SCORE)
        it.registry.settings = {**it.registry.settings, "memory": {**ALL, "interval_s": 0}}
        await it.run(SCORE)
        assert it.outcomes == dict.fromkeys("abc", "scored")


async def test_the_conversation_is_read_at_the_start_of_each_run(three, say, host):
    async with host(three, memory=ALL) as it:
        await it.run(SCORE)
        it.mind.snapshot = say.talk(say.memory("new", 1), say.reply(1)).context()
        await it.run(SCORE)
        assert it.outcomes == {"new": "scored"}


async def test_the_stats_say_what_was_sent_and_computed(three, host, probe):
    async with host(three, "probe", memory=ALL) as it:
        await it.run(SCORE)
        stats = it.state.memory_last_run
    assert stats.calls == len(probe.asked) == 4
    tokens = sum(len(prompt.tokens) for prompt in probe.asked)
    assert (stats.prompt_tokens, stats.computed_tokens) == (tokens, tokens)
    assert stats.seconds > 0
    assert stats.error is None


async def test_fewer_tokens_may_be_computed_than_sent(three, host, probe, monkeypatch):
    honest = probe.score

    async def score(prompts):
        return ScoreResult(ScoreResult.of(await honest(prompts)).ranges, 10)

    monkeypatch.setattr(probe, "score", score)
    async with host(three, "probe", memory=ALL) as it:
        await it.run(SCORE)
        stats = it.state.memory_last_run
    assert stats.computed_tokens == 40 < stats.prompt_tokens


async def test_computed_tokens_are_none_where_the_scorer_does_not_say(
    three, host, probe, monkeypatch
):
    honest = probe.score

    async def score(prompts):
        return list(await honest(prompts))

    monkeypatch.setattr(probe, "score", score)
    async with host(three, "probe", memory=ALL) as it:
        await it.run(SCORE)
    assert it.state.memory_last_run.computed_tokens is None


async def test_a_disabled_memory_scoring_leaves_its_commands_to_others(three, host):
    class Mine:
        @hookimpl
        def on_trigger(self, command):
            return Trigger.STARTED if command == SCORE else None

    heard = RecordingListener()
    async with host(three, plugins={"disabled": ["memory-scoring"]}) as it:
        it.registry.register(Mine(), name="mine")
        it.registry.register(heard, name="second")
        assert await it.run(SCORE) == {"mine": Trigger.STARTED}
    assert heard.scores == []
    assert it.state.memory_last_run is None
