"""finetune-scoring, the command ``score-finetune``: section 4.4."""

import asyncio
import math
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindhooks import MindCommand, RangeScore, ScorerError, Trigger, hookimpl
from mindscore.config.settings import StoreSettings
from mindscore.measure.prompts import derived_timestamp_ns
from mindscore.store import CandidateName, Review, Reviews

SCORE, FINETUNE = MindCommand.SCORE, MindCommand.SCORE_FINETUNE
WHOLE = {"window_fraction": 1.0}
MARK = 99


@pytest.fixture
def two(say):
    """Two responses that a memory makes likelier, the first by more."""
    return say.talk(
        say.user(9, text="what is one?"),
        say.reply(1, 1, 1, text="one"),
        say.user(8, text="and two?"),
        say.reply(2, 2, text="two"),
        identity=[say.memory("k", 1, 2)],
    )


@pytest.fixture
def diverging(probe, monkeypatch, say):
    """A conversation whose responses diverge by the values given; a memory of ``MARK`` tells."""

    def make(*values, replies=None):
        replies = replies or [say.reply(1, text="said")] * len(values)
        talk = say.talk(*replies, identity=[say.memory("k", MARK)])
        wanted = {f"c{index}": value for index, value in enumerate(values)}

        async def score(prompts):
            return [
                [
                    RangeScore(-1.0 if MARK in prompt.tokens else -1.0 - wanted[node_id])
                    for node_id in prompt.node_ids
                ]
                for prompt in prompts
            ]

        monkeypatch.setattr(probe, "score", score)
        return talk

    return make


# -- runs -----------------------------------------------------------------------------------------


async def test_a_fresh_run_clears_the_candidates_of_the_last(two, host):
    async with host(two, finetune=WHOLE) as it:
        await it.run(FINETUNE)
        first = list(it.state.finetune_candidates)
        assert [candidate.node_id for candidate in first] == ["c1", "c3"]
        await it.run(FINETUNE)
        assert it.state.finetune_candidates == first
        assert it.heard.candidates == first * 2


async def test_a_run_that_fails_has_cleared_the_earlier_candidates_too(two, host, probe):
    async with host(two, "probe", finetune=WHOLE) as it:
        await it.run(FINETUNE)
        assert len(it.state.finetune_candidates) == 2
        probe.refuses = lambda prompt: True
        await it.run(FINETUNE)
        assert it.state.finetune_candidates == []


async def test_a_run_in_flight_is_aborted_and_a_fresh_one_started(two, host, probe):
    probe.waits = lambda prompt: True
    async with host(two, "probe", finetune=WHOLE) as it:
        assert it.registry.dispatch(FINETUNE) == {"finetune-scoring": Trigger.STARTED}
        await probe.waiting.wait()
        assert it.registry.dispatch(FINETUNE) == {"finetune-scoring": Trigger.RESTARTED}
        probe.go.set()
        await it.registry.wait_idle()
        # The aborted run's baseline, and both prompts of the fresh one.
        assert len(probe.asked) == 3
        assert [candidate.node_id for candidate in it.heard.candidates] == ["c1", "c3"]
        assert it.state.finetune_candidates == it.heard.candidates
        assert it.state.finetune_last_run.error is None


async def test_what_an_aborted_run_had_found_already_is_cleared_by_the_fresh_one(two, host, probe):
    probe.waits = lambda prompt: len(probe.continued) == 2
    finetune = {**WHOLE, "generate_alternates": True, "max_alternate_tokens": 1}
    async with host(two, "probe", finetune=finetune) as it:
        it.registry.dispatch(FINETUNE)
        await probe.waiting.wait()
        assert [candidate.node_id for candidate in it.state.finetune_candidates] == ["c1"]
        it.registry.dispatch(FINETUNE)
        probe.go.set()
        await it.registry.wait_idle()
        assert [candidate.node_id for candidate in it.heard.candidates] == ["c1", "c1", "c3"]
        assert [candidate.node_id for candidate in it.state.finetune_candidates] == ["c1", "c3"]


async def test_it_runs_beside_a_memory_run(two, host, probe):
    probe.waits = lambda prompt: True
    async with host(two, "probe", finetune=WHOLE, memory={"token_cutoff": 1.0}) as it:
        assert it.registry.dispatch(SCORE) == {"memory-scoring": Trigger.STARTED}
        await probe.waiting.wait()
        assert it.registry.dispatch(FINETUNE) == {"finetune-scoring": Trigger.STARTED}
        probe.go.set()
        await it.registry.wait_idle()
        assert len(it.heard.scores) == 1
        assert len(it.heard.candidates) == 2


async def test_scoring_in_flight_says_nothing_of_it(two, host, probe):
    probe.waits = lambda prompt: True
    async with host(two, "probe") as it:
        it.registry.dispatch(FINETUNE)
        await probe.waiting.wait()
        assert not it.state.scoring_in_flight


# -- window and calls -----------------------------------------------------------------------------


async def test_with_all_memories_and_with_none_it_takes_2_scoring_calls(say, host, probe):
    talk = say.talk(
        say.memory("outside", 5),
        say.user(9),
        say.prints("user", ([8], None), ([2], "printed")),
        say.memory("whole", 3),
        say.reply(1),
        system=[say.plain("system", 11), say.memory("s", 4)],
        identity=[say.memory("i", 6), say.plain("system", 12)],
    )
    async with host(talk, "probe", finetune={"window_fraction": 0.6}) as it:
        await it.run(FINETUNE)
        assert it.state.finetune_last_run.calls == 2
    with_, bare = probe.asked
    assert with_.tokens == (11, 4, 6, 12, 101, 8, 2, 3, 21, 1, 7)
    assert bare.tokens == (11, 12, 100, 8, 21, 1, 7)
    assert with_.node_ids == bare.node_ids == ("c4",)


async def test_the_bare_prompt_is_not_sent_before_the_other_one_is_answered(two, host, probe):
    probe.waits = lambda prompt: True
    async with host(two, "probe", finetune=WHOLE) as it:
        it.registry.dispatch(FINETUNE)
        await probe.waiting.wait()
        for _ in range(30):
            await asyncio.sleep(0)
        assert [prompt.tokens[:2] for prompt in probe.asked] == [(1, 2)]
        probe.go.set()
        await it.registry.wait_idle()
    assert [prompt.tokens[:2] for prompt in probe.asked] == [(1, 2), (9, 21)]


async def test_responses_before_the_first_memory_are_not_asked_for(say, host, probe):
    talk = say.talk(
        say.user(9), say.reply(1), say.memory("k", 1), say.reply(1), say.user(9), say.silent()
    )
    async with host(talk, "probe", finetune={**WHOLE, "threshold": 0.0}) as it:
        await it.run(FINETUNE)
    assert [prompt.node_ids for prompt in probe.asked] == [("c3",)] * 2
    assert [prompt.tokens[-2:] for prompt in probe.asked] == [(1, 7)] * 2
    found = [(candidate.node_id, candidate.divergence) for candidate in it.heard.candidates]
    assert found[1] == ("c1", 0.0)
    assert found[0][1] > 0


@pytest.mark.parametrize(
    ("fraction", "responses"),
    [(0.0, []), (0.2, ["c4"]), (0.39, ["c4"]), (0.5, ["c3", "c4"]), (1.0, ["c1", "c3", "c4"])],
)
async def test_the_window_is_the_last_fraction_of_the_nodes_rounded_down(
    say, host, probe, fraction, responses
):
    talk = say.talk(
        say.user(9),
        say.reply(1),
        say.user(9),
        say.reply(1),
        say.reply(1),
        identity=[say.memory("k", 1)],
    )
    async with host(talk, "probe", finetune={"window_fraction": fraction}) as it:
        await it.run(FINETUNE)
        assert it.state.finetune_last_run.responses_considered == len(responses)
    assert [list(prompt.node_ids) for prompt in probe.asked] == [responses] * 2 * bool(responses)


async def test_half_of_the_conversation_is_the_default(two, host, probe):
    async with host(two, "probe") as it:
        await it.run(FINETUNE)
    assert [prompt.node_ids for prompt in probe.asked] == [("c3",), ("c3",)]


async def test_a_conversation_without_memories_has_no_candidates_in_no_calls(say, host, probe):
    async with host(say.talk(say.user(1), say.reply(1)), "probe", finetune=WHOLE) as it:
        await it.run(FINETUNE)
        stats = it.state.finetune_last_run
    assert probe.asked == []
    assert (stats.calls, stats.responses_considered, stats.max_divergence) == (0, 1, 0.0)
    assert stats.error is None


# -- candidates -----------------------------------------------------------------------------------


async def test_a_divergence_equal_to_the_threshold_is_a_candidate_and_one_below_it_not(
    diverging, host
):
    talk = diverging(2.5, math.nextafter(2.5, 0))
    async with host(talk, "probe", finetune={**WHOLE, "threshold": 2.5}) as it:
        await it.run(FINETUNE)
        assert it.state.finetune_last_run.threshold == 2.5
    assert [(it.node_id, it.divergence) for it in it.heard.candidates] == [("c0", 2.5)]


async def test_the_largest_comes_first_and_ties_in_conversation_order(diverging, host):
    async with host(diverging(2.0, 4.0, 2.0, 8.0, 4.0), "probe", finetune=WHOLE) as it:
        await it.run(FINETUNE)
    found = [(candidate.node_id, candidate.divergence) for candidate in it.heard.candidates]
    assert found == [("c3", 8.0), ("c1", 4.0), ("c4", 4.0), ("c0", 2.0), ("c2", 2.0)]
    assert [candidate.entry_idx for candidate in it.heard.candidates] == [3, 1, 4, 0, 2]


@pytest.mark.parametrize("text", ["", " \n\t"])
async def test_a_response_without_visible_text_is_no_candidate(diverging, host, say, text):
    talk = diverging(2.0, 2.0, replies=[say.reply(1, text=text), say.reply(1, text="said")])
    async with host(talk, "probe", finetune=WHOLE) as it:
        await it.run(FINETUNE)
    assert [candidate.node_id for candidate in it.heard.candidates] == ["c1"]


async def test_a_response_that_is_marked_by_timestamp_and_ids_is_no_candidate(diverging, host, say):
    talk = diverging(2.0, 2.0, replies=[say.reply(1, timestamp_ns=5), say.reply(2, timestamp_ns=5)])
    async with host(talk, "probe", finetune=WHOLE) as it:
        await it.store.mark_trained([(5, (2, 7))], "job")
        await it.run(FINETUNE)
    # Both bear the timestamp; only one has the ids.
    assert [candidate.node_id for candidate in it.heard.candidates] == ["c0"]


async def test_a_response_that_is_marked_by_an_imported_timestamp_is_no_candidate(
    diverging, host, say
):
    replies = [say.reply(1, timestamp_ns=5), say.reply(2, timestamp_ns=5), say.reply(1)]
    async with host(diverging(2.0, 2.0, 2.0, replies=replies), "probe", finetune=WHOLE) as it:
        await it.store.import_trained([5])
        await it.run(FINETUNE)
    assert [candidate.node_id for candidate in it.heard.candidates] == ["c2"]


async def test_a_response_without_a_timestamp_is_known_again_by_its_derived_one(diverging, host):
    async with host(diverging(4.0, 2.0), "probe", finetune=WHOLE) as it:
        await it.run(FINETUNE)
        first = it.heard.candidates[0]
        await it.store.mark_trained([(first.timestamp_ns, first.continuation_ids)], "job")
        await it.run(FINETUNE)
        assert [candidate.node_id for candidate in it.heard.candidates] == ["c0", "c1", "c1"]


async def test_a_mark_of_another_namespace_is_no_mark_here(diverging, host, say):
    talk = diverging(2.0, replies=[say.reply(1, timestamp_ns=5)])
    async with host(talk, "probe", finetune=WHOLE) as it:
        async with host(talk, file=it.file, store={"namespace": "other"}) as other:
            await other.store.import_trained([5])
        await it.run(FINETUNE)
    assert [candidate.node_id for candidate in it.heard.candidates] == ["c0"]


# -- what a candidate holds -----------------------------------------------------------------------


async def test_the_context_goes_from_the_conversation_s_start_up_to_the_body(say, host):
    talk = say.talk(
        say.memory("outside", 5),
        say.user(9),
        say.prints("user", ([8], None), ([1], "printed")),
        say.reply(1, 1, text="said"),
        say.user(6),
        system=[say.plain("system", 11), say.memory("s", 1)],
    )
    async with host(talk, finetune={"window_fraction": 0.4}) as it:
        await it.run(FINETUNE)
    [candidate] = it.heard.candidates
    assert (candidate.entry_idx, candidate.node_id) == (3, "c3")
    assert candidate.response_text == "said"
    # The window begins at the response, the context with the conversation; the last is the header.
    assert candidate.context_ids == (11, 1, 5, 9, 101, 8, 1, 21)
    assert candidate.bare_context_ids == (11, 9, 100, 8, 21)
    assert candidate.continuation_ids == (1, 1, 7)
    assert candidate.alternate_text is None
    assert candidate.alternate_ids is None


async def test_the_prior_context_is_the_last_2_spoken_messages_with_role_markers(say, host):
    talk = say.talk(
        say.user(9, text="too early"),
        say.user(9, text="a question"),
        say.plain("tool", 9, text="a tool's answer"),
        say.reply(2, text="an answer"),
        say.memory("k", 1, text="a memory"),
        say.memory("j", 9, text="a memory in the user's name", role="user"),
        say.plain("system", 9, text="a system message"),
        say.reply(1, 1, text="said"),
    )
    async with host(talk, finetune={"window_fraction": 0.5}) as it:
        await it.run(FINETUNE)
    [candidate] = it.heard.candidates
    assert candidate.prior_context == "[user]\na question\n\n[assistant]\nan answer"


@pytest.mark.parametrize(
    ("count", "texts"),
    [(0, []), (1, ["third"]), (2, ["second", "third"]), (9, ["first", "second", "third"])],
)
async def test_prior_messages_says_how_many(say, host, count, texts):
    talk = say.talk(
        say.user(9, text="first"),
        say.user(9, text="second"),
        say.user(9, text="third"),
        say.reply(1, 1, text="said"),
        identity=[say.memory("k", 1)],
    )
    async with host(talk, finetune={"prior_messages": count}) as it:
        await it.run(FINETUNE)
    said = it.heard.candidates[0].prior_context
    assert said == "\n\n".join(f"[user]\n{text}" for text in texts)


async def test_a_timestamp_is_the_node_s_own_where_it_has_one(diverging, host, say):
    talk = diverging(2.0, 2.0, replies=[say.reply(1, timestamp_ns=0), say.reply(1)])
    async with host(talk, "probe", finetune=WHOLE) as it:
        await it.run(FINETUNE)
    assert it.heard.candidates[0].timestamp_ns == 0
    assert 0 < it.heard.candidates[1].timestamp_ns < 2**63


async def test_derived_timestamps_of_equal_positions_of_different_conversations_differ(say, host):
    async def stamp(*earlier, reply=1):
        talk = say.talk(
            say.user(*earlier), say.reply(reply, reply), identity=[say.memory("k", 1, 2)]
        )
        async with host(talk, finetune=WHOLE) as it:
            await it.run(FINETUNE)
        [candidate] = it.heard.candidates
        return candidate.timestamp_ns

    first = await stamp(9)
    assert first == await stamp(9)
    # Another prompt, another response, a longer prompt.
    stamps = {first, await stamp(8), await stamp(9, reply=2), await stamp(9, 9)}
    assert len(stamps) == 4
    assert all(0 <= it < 2**63 for it in stamps)


def test_the_same_tokens_split_elsewhere_have_another_derived_timestamp():
    stamps = [derived_timestamp_ns((1, 2), (3,)), derived_timestamp_ns((1,), (2, 3))]
    assert stamps[0] != stamps[1]
    assert stamps[0] == derived_timestamp_ns([1, 2], [3])


async def test_derived_timestamps_of_responses_that_say_the_same_differ(diverging, host):
    async with host(diverging(2.0, 2.0), "probe", finetune=WHOLE) as it:
        await it.run(FINETUNE)
    first, second = it.heard.candidates
    assert first.continuation_ids == second.continuation_ids
    assert first.timestamp_ns != second.timestamp_ns


@pytest.fixture
def dated(say):
    """One response behind a system prompt with the date, and without timestamps."""

    def dated(day):
        return say.talk(
            say.user(9, text="what is one?"),
            say.reply(1, 1, 1, text="one"),
            system=[say.plain("system", 20, day)],
            identity=[say.memory("k", 1, 2)],
        )

    return dated


async def test_a_response_keeps_its_name_when_the_system_prompt_has_another_date(dated, host):
    async with host(dated(1), finetune=WHOLE) as it:
        await it.run(FINETUNE)
    async with host(dated(2), file=it.file, finetune=WHOLE) as later:
        await later.run(FINETUNE)
        [first], [second] = it.heard.candidates, later.heard.candidates
        assert first.context_ids != second.context_ids
        assert first.timestamp_ns == second.timestamp_ns
        assert len(later.rows("candidates")) == 1
        await later.store.mark_trained([(first.timestamp_ns, first.continuation_ids)], "job")
    async with host(dated(3), file=it.file, finetune=WHOLE) as last:
        await last.run(FINETUNE)
    assert last.heard.candidates == []


async def _keep_earlier(it, found, **changes):
    """Keep a candidate as version 3 of the store did; return its timestamp."""
    stamp = derived_timestamp_ns(found.context_ids, found.continuation_ids)
    await it.store.record_candidate(replace(found, timestamp_ns=stamp, **changes), "toy")
    with closing(sqlite3.connect(it.file)) as connection:
        connection.execute("UPDATE candidates SET earlier = 1")
        connection.commit()
    return stamp


async def test_a_response_keeps_the_name_that_an_earlier_version_gave_it(dated, host, tmp_path):
    async with host(dated(1), finetune=WHOLE) as it:
        await it.run(FINETUNE)
    [found] = it.heard.candidates
    async with host(dated(2), file=tmp_path / "earlier", finetune=WHOLE) as later:
        stamp = await _keep_earlier(later, found)
        await later.run(FINETUNE)
        assert [candidate.timestamp_ns for candidate in later.heard.candidates] == [stamp]
        assert len(later.rows("candidates")) == 1
        await later.store.mark_trained([(stamp, found.continuation_ids)], "job")
    for day in (2, 3):
        async with host(dated(day), file=later.file, finetune=WHOLE) as last:
            await last.run(FINETUNE)
        assert last.heard.candidates == []


async def test_of_several_earlier_names_the_one_that_was_decided_on_counts(dated, host, tmp_path):
    stamps = []
    async with host(dated(9), file=tmp_path / "earlier", finetune=WHOLE) as later:
        for day in (1, 2, 3):
            async with host(dated(day), finetune=WHOLE) as it:
                await it.run(FINETUNE)
            stamps.append(await _keep_earlier(later, it.heard.candidates[-1]))
        names = {
            row["timestamp_ns"]: CandidateName("toy", row["timestamp_ns"], row["continuation_hash"])
            for row in later.rows("candidates")
        }
        reviews = Reviews(StoreSettings(f"sqlite:///{later.file}"))
        await reviews.decide(names[stamps[1]], Review("rejected", "response", 1.0))
        await later.run(FINETUNE)
    assert [candidate.timestamp_ns for candidate in later.heard.candidates] == [stamps[1]]


async def test_an_earlier_name_of_another_place_is_not_taken(dated, host, tmp_path):
    async with host(dated(1), finetune=WHOLE) as it:
        await it.run(FINETUNE)
    [found] = it.heard.candidates
    async with host(dated(2), file=tmp_path / "earlier", finetune=WHOLE) as later:
        await _keep_earlier(later, found, prior_context="[user]\nanother question")
        await later.run(FINETUNE)
    assert [candidate.timestamp_ns for candidate in later.heard.candidates] == [found.timestamp_ns]


# -- alternates -----------------------------------------------------------------------------------

ALTERNATES = {**WHOLE, "generate_alternates": True}


async def test_no_alternate_is_generated_by_default(two, host, probe):
    async with host(two, "probe", finetune=WHOLE) as it:
        await it.run(FINETUNE)
    assert len(it.heard.candidates) == 2
    assert probe.continued == []


async def test_alternates_are_generated_greedily_from_the_bare_context_to_end_of_turn(
    two, host, naive, probe
):
    async with host(two, "probe", finetune=ALTERNATES) as it:
        await it.run(FINETUNE)
    first, second = it.heard.candidates
    assert [(prompt.tokens, limit, stop) for prompt, limit, stop in probe.continued] == [
        (first.bare_context_ids, 256, (7,)),
        (second.bare_context_ids, 256, (7,)),
    ]
    for candidate in it.heard.candidates:
        assert candidate.alternate_ids == naive.greedy(candidate.bare_context_ids, 256)
        assert candidate.alternate_text == " ".join(
            f"<{token}>" for token in candidate.alternate_ids if token != 7
        )


async def test_an_alternate_ends_with_the_turn(say, host):
    # What was said most so far is the end of turn itself.
    talk = say.talk(say.user(7, 7, 7), say.reply(1, 1, text="said"), identity=[say.memory("k", 1)])
    async with host(talk, finetune=ALTERNATES) as it:
        await it.run(FINETUNE)
    [candidate] = it.heard.candidates
    assert (candidate.alternate_ids, candidate.alternate_text) == ((7,), "")


async def test_where_responses_end_differently_no_token_is_taken_for_the_end_of_turn(
    say, host, probe
):
    talk = say.talk(
        say.user(7, 7, 7),
        say.reply(1, 1, text="said"),
        say.plain("assistant", 21, 1, 1, body=(1, 3), text="cut off"),
        identity=[say.memory("k", 1)],
    )
    finetune = {**ALTERNATES, "threshold": 0.0, "max_alternate_tokens": 3}
    async with host(talk, "probe", finetune=finetune) as it:
        await it.run(FINETUNE)
    assert [stop for _, _, stop in probe.continued] == [(), ()]
    assert [len(candidate.alternate_ids) for candidate in it.heard.candidates] == [3, 3]


async def test_max_alternate_tokens_bounds_an_alternate(two, host):
    async with host(two, finetune={**ALTERNATES, "max_alternate_tokens": 3}) as it:
        await it.run(FINETUNE)
    assert [len(candidate.alternate_ids) for candidate in it.heard.candidates] == [3, 3]


async def test_an_alternate_sees_the_images_before_it_that_are_no_memories(say, host, probe):
    talk = say.talk(
        say.user(9, images=("shown.png",)),
        say.memory("k", 1, images=("remembered.png",)),
        say.reply(1, 1, text="said"),
        say.user(9, images=("later.png",)),
    )
    async with host(talk, "probe", finetune=ALTERNATES) as it:
        await it.run(FINETUNE)
    [(prompt, _, _)] = probe.continued
    assert [image.data for image in prompt.images] == [b"shown.png"]


async def test_all_candidates_are_found_before_the_first_alternate_is_generated(two, host, probe):
    asked_by_then = []

    def waits(prompt):
        if probe.continued:
            asked_by_then.append((len(probe.asked), it.lines[-1]))
        return False

    probe.waits = waits
    async with host(two, "probe", finetune=ALTERNATES) as it:
        await it.run(FINETUNE)
    assert asked_by_then == [
        (2, ("finetune: generating alternate 1/2", 1, 2)),
        (2, ("finetune: generating alternate 2/2", 2, 2)),
    ]


async def test_a_candidate_goes_out_before_the_next_one_s_alternate_is_begun(two, host, probe):
    probe.waits = lambda prompt: len(probe.continued) == 2
    async with host(two, "probe", finetune=ALTERNATES) as it:
        it.registry.dispatch(FINETUNE)
        await probe.waiting.wait()
        assert [candidate.node_id for candidate in it.heard.candidates] == ["c1"]
        assert it.heard.candidates[0].alternate_ids is not None
        probe.go.set()
        await it.registry.wait_idle()
        assert [candidate.node_id for candidate in it.heard.candidates] == ["c1", "c3"]


async def test_a_failed_alternate_is_none_and_its_candidate_still_goes_out(two, host, probe):
    probe.refuses = lambda prompt: len(probe.continued) == 1
    async with host(two, "probe", finetune=ALTERNATES) as it:
        await it.run(FINETUNE)
        stats = it.state.finetune_last_run
    first, second = it.heard.candidates
    assert (first.node_id, first.alternate_text, first.alternate_ids) == ("c1", None, None)
    assert second.alternate_ids is not None
    assert stats.above_threshold == 2
    assert "the probe refuses" in stats.error


async def test_a_scorer_that_cannot_generate_leaves_every_candidate_without_an_alternate(
    two, host, probe, monkeypatch
):
    async def generate(prompt, *, max_tokens, stop):
        raise ScorerError("this server cannot generate")

    monkeypatch.setattr(probe, "generate", generate)
    async with host(two, "probe", finetune=ALTERNATES) as it:
        await it.run(FINETUNE)
    assert [candidate.alternate_text for candidate in it.heard.candidates] == [None, None]
    assert "this server cannot generate" in it.state.finetune_last_run.error


# -- stats, activity ------------------------------------------------------------------------------


async def test_the_stats_count_assistant_nodes_candidates_calls_and_tokens(say, host, probe, naive):
    talk = say.talk(
        say.reply(1, text="said"),
        say.silent(),
        say.reply(9, 9, text="said"),
        say.reply(1, 1, 1, text=""),
        identity=[say.memory("k", 1)],
    )
    async with host(talk, "probe", finetune=WHOLE) as it:
        await it.run(FINETUNE)
        stats = it.state.finetune_last_run
    signed = [it[2] for it in naive(talk).row(range(4), {"k"})]
    assert stats.responses_considered == 4
    assert stats.above_threshold == len(it.heard.candidates) == sum(it >= 1 for it in signed[:2])
    assert stats.threshold == 1.0
    assert stats.max_divergence == pytest.approx(max(signed), abs=1e-9)
    assert stats.calls == 2
    tokens = sum(len(prompt.tokens) for prompt in probe.asked)
    assert stats.prompt_tokens == stats.computed_tokens == tokens
    assert stats.seconds > 0
    assert stats.error is None


async def test_max_divergence_is_of_all_responses_candidates_or_not(diverging, host, say):
    replies = [say.reply(1, text=""), say.reply(1, timestamp_ns=5), say.reply(1)]
    talk = diverging(9.0, 8.0, 2.0, replies=replies)
    async with host(talk, "probe", finetune=WHOLE) as it:
        await it.store.import_trained([5])
        await it.run(FINETUNE)
    assert it.state.finetune_last_run.max_divergence == 9.0
    assert it.state.finetune_last_run.above_threshold == 1


async def test_max_divergence_is_known_where_no_response_reaches_the_threshold(diverging, host):
    async with host(diverging(0.25, 0.5), "probe", finetune=WHOLE) as it:
        await it.run(FINETUNE)
    assert it.state.finetune_last_run.max_divergence == 0.5
    assert it.state.finetune_last_run.above_threshold == 0


async def test_there_are_stats_when_the_scorer_fails(two, host, probe):
    probe.refuses = lambda prompt: True
    async with host(two, "probe", finetune={**WHOLE, "threshold": 2.0}) as it:
        await it.run(FINETUNE)
        stats = it.state.finetune_last_run
    assert stats.error == "the probe refuses"
    assert (stats.responses_considered, stats.above_threshold, stats.threshold) == (2, 0, 2.0)
    # Once the prompt with all memories has failed, nothing is left to compare with.
    assert stats.calls == len(probe.asked) == 1
    assert it.heard.candidates == []
    assert it.mind.open_activities == 0


async def test_there_are_stats_when_there_is_no_such_scorer(two, host):
    async with host(two, "nobody-s") as it:
        await it.run(FINETUNE)
        assert "server.scorer" in it.state.finetune_last_run.error


async def test_there_are_stats_when_the_settings_are_wrong(two, host):
    async with host(two, finetune={"window_fraction": 2}) as it:
        await it.run(FINETUNE)
        assert "finetune.window_fraction" in it.state.finetune_last_run.error


async def test_there_are_stats_when_the_store_cannot_be_read(two, host, tmp_path):
    file = tmp_path / "store"
    file.write_text("this is no database, whatever its name says" * 50)
    async with host(two, file=file, finetune=WHOLE) as it:
        await it.run(FINETUNE)
        assert str(file) in it.state.finetune_last_run.error
    assert it.heard.candidates == []


async def test_there_are_stats_when_the_run_is_cancelled(two, host, probe):
    probe.waits = lambda prompt: True
    async with host(two, "probe", finetune=WHOLE) as it:
        it.registry.dispatch(FINETUNE)
        await probe.waiting.wait()
    assert it.state.finetune_last_run.error == "cancelled"


async def test_the_stats_are_there_once_the_run_has_ended_and_not_before(two, host):
    class Listener:
        @hookimpl
        def on_candidate(self, candidate, mind):
            seen.append(mind.state.finetune_last_run)

    seen = []
    async with host(two, finetune=WHOLE) as it:
        it.registry.register(Listener())
        await it.run(FINETUNE)
    assert seen == [None, None]
    assert it.state.finetune_last_run is not None


async def test_the_activity_line_says_how_many_responses_and_which_alternate(two, host):
    async with host(two, finetune=ALTERNATES) as it:
        await it.run(FINETUNE)
    assert it.lines == [
        ("finetune: scoring 2 responses...", 0, 2),
        ("finetune: generating alternate 1/2", 1, 2),
        ("finetune: generating alternate 2/2", 2, 2),
    ]
    assert it.mind.open_activities == 0


async def test_the_screen_is_woken_when_the_candidates_are_cleared_and_at_the_end(two, host):
    async with host(two, finetune=WHOLE) as it:
        await it.run(FINETUNE)
        seen = []

        def changed():
            seen.append(len(it.state.finetune_candidates))

        it.mind.changed = changed
        await it.run(FINETUNE)
    assert seen == [0, 1, 2, 2]


# -- any conversation -----------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    data=st.data(),
    fraction=st.sampled_from([0.25, 0.5, 1.0]),
    threshold=st.sampled_from([0.0, 0.5, 3.0]),
    alternates=st.booleans(),
    timestamps=st.sets(st.integers(0, 3), max_size=1),
)
def test_any_run_is_the_naive_one(
    host, talks, naive, data, fraction, threshold, alternates, timestamps
):
    talk = data.draw(talks)
    plain = naive(talk)
    stamped = [
        (talk.conversation[index].timestamp_ns, plain.body(index))
        for index, _ in plain.responses(range(len(talk.conversation)))
        if talk.conversation[index].timestamp_ns is not None
    ]
    marks = data.draw(st.sets(st.sampled_from(stamped))) if stamped else set()
    finetune = {
        "window_fraction": fraction,
        "threshold": threshold,
        "generate_alternates": alternates,
        "max_alternate_tokens": 4,
    }

    async def go():
        async with host(talk, finetune=finetune) as it:
            await it.store.mark_trained(marks, "job")
            await it.store.import_trained(timestamps)
            await it.run(FINETUNE)
            return it

    it = asyncio.run(go())
    expected = plain.candidates(fraction, threshold, marks, timestamps)
    found = it.heard.candidates
    assert {candidate.entry_idx: candidate.divergence for candidate in found} == {
        index: pytest.approx(divergence, abs=1e-9) for index, divergence in expected.items()
    }
    turns = [(-candidate.divergence, candidate.entry_idx) for candidate in found]
    assert turns == sorted(turns)
    for candidate in found:
        index = candidate.entry_idx
        said = talk.conversation[index]
        assert (candidate.node_id, candidate.response_text) == (said.id, said.text)
        assert candidate.context_ids == plain.ids_before(index, set())
        assert candidate.bare_context_ids == plain.ids_before(index, plain.everything())
        assert candidate.continuation_ids == plain.body(index)
        if said.timestamp_ns is not None:
            assert candidate.timestamp_ns == said.timestamp_ns
        greedy = plain.greedy(candidate.bare_context_ids, 4)
        assert candidate.alternate_ids == (greedy if alternates else None)
    assert it.state.finetune_candidates == found
    stats = it.state.finetune_last_run
    window = plain.finetune_window(fraction)
    considered = [index for index in window if talk.conversation[index].role == "assistant"]
    divergences = [max(0.0, row[2]) for row in plain.row(window, plain.everything())]
    assert stats.responses_considered == len(considered)
    assert stats.above_threshold == len(found)
    assert stats.max_divergence == pytest.approx(max(divergences, default=0.0), abs=1e-9)
    assert stats.calls == (2 if plain.after_removal(window, plain.everything()) else 0)
    assert stats.error is None


@given(st.integers(0, 3000), st.integers(0, 1000))
def test_the_window_is_the_fraction_as_it_is_written(length, per_mille):
    from mindscore.flows.finetune import finetune_window

    window = finetune_window(length, float(f"{per_mille / 1000:.3f}"))
    assert len(window) == length * per_mille // 1000
    assert window.stop == length
