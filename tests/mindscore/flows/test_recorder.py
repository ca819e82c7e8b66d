"""score-recorder: what of a run is kept, where, and when (4.1.6, 4.2, 3.1)."""

import asyncio
import json
import math
import sqlite3
import time
from contextlib import closing
from dataclasses import replace

import pytest

from mindhooks import (
    FinetuneCandidate,
    MemoryScore,
    MindCommand,
    ResponseDivergence,
    Trigger,
    hookimpl,
)
from mindscore.flows.recorder import store_failures
from mindscore.measure.prompts import response_hash

SCORE, FULL, FINETUNE = MindCommand.SCORE, MindCommand.SCORE_FULL, MindCommand.SCORE_FINETUNE


def score(key, value):
    return MemoryScore(key, value, "incremental", (ResponseDivergence(0, "c0", value, value),))


def candidate(**fields):
    fields = {"divergence": 2.0, "timestamp_ns": 5, "continuation_ids": (3, 4), **fields}
    rest = {
        "entry_idx": 7,
        "node_id": "c7",
        "response_text": "said",
        "prior_context": "[user]\nasked",
        "context_ids": (1, 2),
        "bare_context_ids": (1,),
        "alternate_text": None,
        "alternate_ids": None,
    }
    return FinetuneCandidate(**{**rest, **fields})


@pytest.fixture
def talk(say):
    return say.talk(say.reply(1, 1, text="said"), identity=[say.memory("k", 1)])


@pytest.fixture
def empty(say):
    """A conversation that holds nothing: what is emitted, a test emits by hand."""
    return say.talk()


class Reader:
    """A listener that looks into the store while it is told."""

    def __init__(self, host):
        self.host = host
        self.seen = []

    @hookimpl
    def on_score(self, score):
        self.seen.append(
            [(row["key"], row["score"]) for row in self.host.rows("memories")]
            or [(row["key"], row["divergence"]) for row in self.host.rows("cells")]
        )

    @hookimpl
    def on_candidate(self, candidate):
        self.seen.append([row["timestamp_ns"] for row in self.host.rows("candidates")])


# -- when -----------------------------------------------------------------------------------------


async def test_a_score_is_in_the_store_before_a_plain_listener_hears_of_it(talk, host):
    async with host(talk, memory={"token_cutoff": 1.0}) as it:
        reader = Reader(it)
        it.registry.register(reader)
        await it.run(SCORE)
    assert reader.seen == [[("k", it.heard.scores[0].score)]]


async def test_a_row_of_the_matrix_is_in_the_store_before_a_plain_listener_hears_of_it(talk, host):
    async with host(talk) as it:
        reader = Reader(it)
        it.registry.register(reader)
        await it.run(FULL)
    assert reader.seen == [[("k", it.heard.scores[0].score)]]


async def test_a_candidate_is_in_the_store_before_a_plain_listener_hears_of_it(talk, host):
    async with host(talk, finetune={"window_fraction": 1.0}) as it:
        reader = Reader(it)
        it.registry.register(reader)
        await it.run(FINETUNE)
    assert reader.seen == [[it.heard.candidates[0].timestamp_ns]]


async def test_an_async_listener_hears_of_what_is_in_the_store_already(talk, host):
    class Late:
        @hookimpl
        async def on_score(self, score):
            seen.append([row["key"] for row in it.rows("memories")])

    seen = []
    async with host(talk, memory={"token_cutoff": 1.0}) as it:
        it.registry.register(Late())
        await it.run(SCORE)
    assert seen == [["k"]]


# -- what -----------------------------------------------------------------------------------------


async def test_the_first_weight_is_the_score_and_later_ones_lean_toward_it_by_alpha(
    empty, host, clock
):
    async with host(empty, memory={"ewma_alpha": 0.25}) as it:
        await it.run(SCORE)
        await it.registry.emit_score(score("k", 4.0))
        [memory] = await it.store.memories()
        assert (memory.score, memory.weight, memory.count) == (4.0, 4.0, 1)
        assert memory.last_scored == clock.now
        clock.now += 60
        await it.registry.emit_score(score("k", 8.0))
        [memory] = await it.store.memories()
        assert (memory.score, memory.weight, memory.count) == (8.0, 0.25 * 8 + 0.75 * 4, 2)
        assert memory.last_scored == clock.now
        await it.registry.emit_score(score("k", 0.0))
        [memory] = await it.store.memories()
        assert (memory.score, memory.weight, memory.count) == (0.0, 0.75 * 5.0, 3)


async def test_alpha_is_0_3_by_default(empty, host):
    async with host(empty) as it:
        await it.run(SCORE)
        await it.registry.emit_score(score("k", 10.0))
        await it.registry.emit_score(score("k", 20.0))
        [memory] = await it.store.memories()
    assert memory.weight == pytest.approx(0.3 * 20 + 0.7 * 10, abs=1e-9)


async def test_every_key_has_a_weight_of_its_own(empty, host):
    async with host(empty) as it:
        await it.run(SCORE)
        await it.registry.emit_score(score("a", 1.0))
        await it.registry.emit_score(score("b", 2.0))
        found = {memory.key: (memory.weight, memory.count) for memory in await it.store.memories()}
    assert found == {"a": (1.0, 1), "b": (2.0, 1)}


async def test_every_model_and_namespace_has_a_weight_of_its_own(empty, host, probe):
    async def record(value, **tables):
        async with host(empty, "probe", file=it.file, **tables) as other:
            await other.run(SCORE)
            await other.registry.emit_score(score("k", value))
            return [
                (memory.model, memory.weight, memory.count)
                for memory in await other.store.memories()
            ]

    it = host(empty)
    assert await record(1.0) == [("toy", 1.0, 1)]
    assert await record(5.0, store={"namespace": "other"}) == [("toy", 5.0, 1)]
    probe.model = "another-model"
    assert await record(3.0) == [("another-model", 3.0, 1), ("toy", 1.0, 1)]


async def test_a_row_of_the_matrix_replaces_the_cells_it_names_and_no_others(empty, host, clock):
    def row(*cells):
        found = tuple(ResponseDivergence(*cell) for cell in cells)
        return MemoryScore("k", max(it.divergence for it in found), "full", found)

    async with host(empty) as it:
        await it.run(SCORE)
        await it.registry.emit_score(row((1, "c1", 2.0, 2.0), (3, "c3", 0.0, -1.5)))
        await it.registry.emit_score(row((3, "c3", 4.0, 4.0)))
        cells = {row["node_id"]: row for row in it.rows("cells")}
        assert it.rows("memories") == []
        assert it.state.memory_scores == {}
    found = {
        id_: (row["entry_idx"], row["divergence"], row["signed"]) for id_, row in cells.items()
    }
    assert found == {"c1": (1, 2.0, 2.0), "c3": (3, 4.0, 4.0)}
    assert {(row["namespace"], row["key"], row["model"]) for row in cells.values()} == {
        ("default", "k", "toy")
    }


async def test_a_candidate_is_kept_whole(empty, host):
    async with host(empty) as it:
        await it.run(SCORE)
        await it.registry.emit_candidate(candidate())
        [row] = it.rows("candidates")
    assert json.loads(row["candidate"]) == {
        "entry_idx": 7,
        "node_id": "c7",
        "divergence": 2.0,
        "response_text": "said",
        "prior_context": "[user]\nasked",
        "context_ids": [1, 2],
        "bare_context_ids": [1],
        "continuation_ids": [3, 4],
        "alternate_text": None,
        "alternate_ids": None,
        "timestamp_ns": 5,
        "noise": None,
    }
    assert (row["timestamp_ns"], row["continuation_hash"]) == (5, response_hash([3, 4]))


async def test_a_candidate_that_is_found_again_replaces_what_was_kept(empty, host):
    async with host(empty) as it:
        await it.run(SCORE)
        await it.registry.emit_candidate(candidate(divergence=2.0))
        await it.registry.emit_candidate(candidate(divergence=3.0))
        await it.registry.emit_candidate(candidate(continuation_ids=(9,)))
        found = {row["continuation_hash"]: row["divergence"] for row in it.rows("candidates")}
    assert found == {response_hash([3, 4]): 3.0, response_hash([9]): 2.0}


async def test_a_candidate_that_is_found_again_as_it_was_is_written_once_an_hour(
    empty, host, monkeypatch
):
    now, times = time.time(), []
    async with host(empty) as it:
        await it.run(SCORE)
        for later_s in (0, 60, 3700):
            monkeypatch.setattr(time, "time", lambda later_s=later_s: now + later_s)
            await it.registry.emit_candidate(candidate())
            [row] = it.rows("candidates")
            times.append(row["found_at"] - now)
    assert times == pytest.approx([0, 0, 3700], abs=0.01)


async def test_the_screen_has_the_last_score_of_each_memory_and_every_candidate(empty, host):
    async with host(empty) as it:
        await it.run(SCORE)
        before = it.mind.changes
        await it.registry.emit_score(score("k", 1.0))
        await it.registry.emit_score(score("k", 2.0))
        await it.registry.emit_score(score("j", 3.0))
        await it.registry.emit_candidate(candidate())
        assert it.state.memory_scores == {"k": 2.0, "j": 3.0}
        assert it.state.finetune_candidates == [candidate()]
        assert it.mind.changes == before + 4


async def test_a_score_belongs_to_the_namespace_that_its_run_began_with(talk, host, probe):
    # Settings are read at the start of a run: one agent's scores must not become another's.
    probe.waits = lambda prompt: True
    async with host(talk, "probe", memory={"token_cutoff": 1.0}) as it:
        it.registry.dispatch(SCORE)
        await probe.waiting.wait()
        other = {**it.registry.settings["store"], "namespace": "other"}
        it.registry.settings = {**it.registry.settings, "store": other}
        probe.go.set()
        await it.registry.wait_idle()
        assert [row["namespace"] for row in it.rows("memories")] == ["default"]


async def test_a_command_that_comes_meanwhile_does_not_move_a_run_s_scores(talk, host, probe):
    probe.waits = lambda prompt: True
    async with host(talk, "probe", memory={"token_cutoff": 1.0}) as it:
        it.registry.dispatch(SCORE)
        await probe.waiting.wait()
        other = {**it.registry.settings["store"], "namespace": "other"}
        it.registry.settings = {**it.registry.settings, "store": other}
        assert it.registry.dispatch(SCORE) == {"memory-scoring": Trigger.BUSY}
        probe.go.set()
        await it.registry.wait_idle()
        assert [row["namespace"] for row in it.rows("memories")] == ["default"]


# -- when it cannot -------------------------------------------------------------------------------


@pytest.fixture
def no_store(tmp_path):
    """A file that is no database."""
    file = tmp_path / "store"
    file.write_text("no database, whatever its name says " * 50)
    return file


async def test_a_score_that_cannot_be_kept_is_logged_and_still_shown_and_heard_of(
    empty, host, no_store, caplog
):
    async with host(empty, file=no_store) as it:
        await it.run(MindCommand.SCORE_FULL)
        await it.registry.emit_score(score("k", 1.0))
        assert [score.key for score in it.heard.scores] == ["k"]
        assert it.state.memory_scores == {"k": 1.0}
    [record] = [record for record in caplog.records if record.name == "mindhooks"]
    assert "score-recorder" in record.getMessage()
    assert str(no_store) in record.getMessage()


def complaints(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "mindhooks"]


async def test_what_cannot_be_kept_is_counted_and_logged_once_for_each_reason(
    empty, host, no_store, tmp_path, caplog
):
    async with host(empty, file=no_store) as it:
        counted = store_failures(it.registry, None)
        for number in range(5):
            await it.registry.emit_score(score(f"k{number}", 1.0))
        await it.registry.emit_score(MemoryScore("k5", 1.0, "full", ()))
        [line] = complaints(caplog)
        assert "not a database" in line
        assert counted.counts["score"] == 6
        assert "not a database" in counted.reason
        assert counted.error == f"6 scores could not be kept: {counted.reason}"

        no_store.unlink()
        no_store.mkdir()
        await it.registry.emit_score(score("k", 1.0))
        assert len(complaints(caplog)) == 2
        assert counted.counts["score"] == 7
        assert "not a database" in counted.reason

        no_store.rmdir()
        await it.registry.emit_score(score("k", 1.0))
        assert counted.counts["score"] == 7
        no_store.unlink()
        no_store.mkdir()
        await it.registry.emit_score(score("k", 1.0))
        assert len(complaints(caplog)) == 3
        assert [score.key for score in it.heard.scores][-3:] == ["k"] * 3


async def test_every_run_counts_anew_and_says_so_once(empty, host, no_store, caplog):
    async with host(empty, file=no_store) as it:
        for number in range(1, 4):
            async with it.registry.run(SCORE) as run:
                counted = store_failures(it.registry, run)
                assert (counted.counts["score"], counted.reason, counted.error) == (0, None, None)
                for _ in range(3):
                    await it.registry.emit_score(score("k", 1.0))
            assert counted.counts["score"] == 3
            assert len(complaints(caplog)) == number


async def test_runs_and_registries_are_counted_apart(empty, host, no_store, caplog):
    async with host(empty, file=no_store) as it, host(empty, file=no_store) as other:
        async with it.registry.run(SCORE) as scoring:
            await it.registry.emit_score(score("k", 1.0))
        async with it.registry.run(FINETUNE) as finding:
            await it.registry.emit_candidate(candidate())
            await it.registry.emit_candidate(candidate())
        assert store_failures(it.registry, scoring).error.startswith("1 score could not be kept")
        assert store_failures(it.registry, finding).error.startswith("2 candidates could not be ")
        assert store_failures(other.registry, scoring).error is None
        assert it.state.finetune_candidates == [candidate(), candidate()]


async def test_two_flows_that_answer_one_command_are_counted_apart(empty, host, no_store, caplog):
    async def failing(registry):
        async with registry.run("both") as run:
            await registry.emit_candidate(candidate())
            return store_failures(registry, run).error

    async def idle(registry):
        async with registry.run("both") as run:
            await asyncio.sleep(0.1)
            return store_failures(registry, run).error

    async with host(empty, file=no_store) as it:
        errors = await asyncio.gather(failing(it.registry), idle(it.registry))
    assert errors[0].startswith("1 candidate could not be kept")
    assert errors[1] is None


async def test_a_run_that_stored_too_little_says_both_kinds(empty, host, no_store, caplog):
    async with host(empty, file=no_store) as it, it.registry.run("both") as run:
        await it.registry.emit_candidate(candidate())
        await it.registry.emit_score(score("k", 1.0))
        await it.registry.emit_score(score("j", 1.0))
        error = store_failures(it.registry, run).error
    assert error.startswith("1 candidate and 2 scores could not be kept: ")


async def test_a_store_that_is_still_busy_when_its_time_is_up_has_not_kept_the_score(
    empty, host, caplog
):
    async with host(empty, plugins={"listener_timeout_s": 0.2}) as it:
        await it.store.import_trained([1])
        counted = store_failures(it.registry, None)
        with closing(sqlite3.connect(it.file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await it.registry.emit_score(score("k", 1.0))
            assert counted.error == (
                "1 score could not be kept: the store took longer than plugins.listener_timeout_s"
            )
            other.execute("ROLLBACK")


async def test_scores_that_a_locked_store_keeps_after_their_listeners_time_are_kept_once(
    two, host, caplog
):
    memory = {"token_cutoff": 1.0, "interval_s": 3600}
    async with host(two, memory=memory, plugins={"listener_timeout_s": 1}) as it:
        await it.store.import_trained([1])
        with closing(
            sqlite3.connect(it.file, isolation_level=None, check_same_thread=False)
        ) as other:
            other.execute("BEGIN IMMEDIATE")
            unlocking = asyncio.get_running_loop().call_later(3, other.execute, "ROLLBACK")
            it.registry.dispatch(MindCommand.SCORE)
            await it.registry.wait_idle()
            assert unlocking.when() < asyncio.get_running_loop().time()
        assert it.state.memory_last_run.error is None
        assert {each.key: each.count for each in await it.store.memories()} == {"a": 1, "b": 1}
        await it.run(MindCommand.SCORE)
        assert it.outcomes == {"a": "not-due", "b": "not-due"}
        assert {each.key: each.count for each in await it.store.memories()} == {"a": 1, "b": 1}


async def test_a_score_with_a_value_that_the_store_cannot_hold_is_counted(empty, host, caplog):
    async with host(empty) as it:
        await it.registry.emit_score(score("k", math.nan))
        await it.registry.emit_score(score("\ud800", 1.0))
        assert store_failures(it.registry, None).counts["score"] == 2
        assert await it.store.memories() == []


async def test_a_row_with_a_fingerprint_is_kept_whole(empty, host):
    row = MemoryScore("k", 1.0, "full", score("k", 1.0).divergences, None, "f" * 64)
    async with host(empty) as it:
        await it.registry.emit_score(row)
        assert await it.store.rows("toy") == {"k": row}


async def test_a_score_that_a_host_emits_before_any_command_is_kept(empty, host, caplog):
    async with host(empty) as it:
        await it.registry.emit_score(score("k", 1.0))
        assert [score.key for score in it.heard.scores] == ["k"]
        assert [row["key"] for row in it.rows("memories")] == ["k"]
    assert caplog.text == ""


async def test_a_host_without_the_recorder_keeps_and_shows_nothing(talk, host):
    disabled = {"disabled": ["score-recorder"]}
    async with host(talk, memory={"token_cutoff": 1.0}, plugins=disabled) as it:
        await it.run(SCORE)
        assert [score.key for score in it.heard.scores] == ["k"]
        assert it.state.memory_scores == {}
        assert it.rows("memories") == []
        assert it.outcomes == {"k": "scored"}


# -- evidence -------------------------------------------------------------------------------------


async def test_scores_of_both_modes_leave_evidence_and_the_memory_s_text(say, host):
    reply = replace(say.reply(1, 1, text="said"), timestamp_ns=1_500_000_000)
    talk = say.talk(reply, identity=[say.memory("k", 1)])
    async with host(talk, memory={"token_cutoff": 1.0}) as it:
        await it.run(SCORE)
        await it.run(FULL)
        cells = {row["mode"]: row for row in it.rows("cells")}
        [text] = await it.store.memory_texts()
        [facts] = await it.store.conversations()
    context = talk.context()
    [memory], body = context.identity, reply.body
    assert cells.keys() == {"incremental", "full"}
    for row in cells.values():
        assert (row["key"], row["node_id"]) == ("k", context.conversation[0].id)
        assert (row["tokens"], row["responded_at"]) == (body[1] - body[0], 1.5)
        assert row["text_hash"] == text.text_hash
    assert (text.key, text.text) == ("k", memory.text)
    assert text.tokens == len(memory.token_ids)
    nodes = (*context.system, *context.identity, *context.conversation)
    assert (facts.conversation, facts.source, facts.title) == (context.id, "", "")
    assert (facts.responses, facts.memories) == (1, 1)
    assert facts.tokens == sum(len(node.token_ids) for node in nodes)
    assert (facts.begun_at, facts.ended_at) == (1.5, 1.5)


async def test_texts_are_not_kept_where_they_are_not_to_be(talk, host):
    async with host(talk, store={"keep_texts": False}) as it:
        await it.run(FULL)
        [text] = await it.store.memory_texts()
        rows = it.rows("cells")
    assert (text.key, text.text) == ("k", None)
    assert {row["text_hash"] for row in rows} == {text.text_hash}


async def test_a_response_without_a_time_has_none(talk, host):
    async with host(talk) as it:
        await it.run(FULL)
        [facts] = await it.store.conversations()
        assert [row["responded_at"] for row in it.rows("cells")] == [None]
    assert (facts.begun_at, facts.ended_at) == (None, None)
