"""The host over one conversation: ``Session``."""

import json

import pytest

from mindhooks import (
    FinetuneCandidate,
    MemoryScore,
    MindCommand,
    MindhooksError,
    Outcome,
    UnhandledCommand,
    hookimpl,
)
from mindhooks.testing import StubMind
from mindscore.conversation.native import read_transcript
from mindscore.display.documents import document
from mindscore.session.session import Session

LINES = [
    {"role": "system", "content": [{"text": "Be kind."}, {"text": " No haste.", "key": "haste"}]},
    {"role": "memory", "key": "tea", "content": "The user drinks rooibos tea, never coffee."},
    {"role": "memory", "key": "bike", "content": "The user rides a green bicycle."},
    {"role": "user", "content": "What shall I drink?"},
    {"role": "assistant", "id": "a1", "content": "rooibos tea, never coffee."},
    {"role": "user", "content": "And then?"},
    {"role": "assistant", "id": "a2", "content": "More rooibos tea, on the green bicycle."},
]


@pytest.fixture
def transcript(tmp_path):
    file = tmp_path / "talk.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return read_transcript(file)


@pytest.fixture
def screen():
    """Keeps the activity lines."""
    return StubMind()


@pytest.fixture
def session(transcript, screen, tmp_path):
    """Makes a session with the toy scorer and a store of the test's own."""

    def make(hear=lambda _: None, scorer="toy", **tables):
        settings = {
            "server": {"scorer": scorer},
            "store": {"url": f"sqlite:///{tmp_path}/store.sqlite3"},
            "memory": {"token_cutoff": 1.0},
            "finetune": {"window_fraction": 1.0},
            **tables,
        }
        return Session(transcript, screen.activity, hear).open(settings)

    return make


async def test_a_session_scores_the_memories_of_a_transcript(session):
    async with session() as it:
        await it.run(MindCommand.SCORE)
        stats = it.state.memory_last_run
    assert stats.outcomes == dict.fromkeys(["haste", "tea", "bike"], Outcome("scored"))
    assert stats.error is None
    scores = {key: score.score for key, score in it.scores.items()}
    assert scores == it.state.memory_scores
    # A response was made of the tea's words, another of the bicycle's, none of the haste's.
    assert min(scores["tea"], scores["bike"]) > 10 > scores["haste"]


async def test_a_session_makes_the_full_matrix(session):
    async with session() as it:
        await it.run(MindCommand.SCORE_FULL)
        matrix = it.state.response_scores
    assert matrix["a1"]["tea"] > 10
    assert matrix["a2"]["bike"] > 1
    assert [len(score.divergences) for score in it.scores.values()] == [2, 2, 2]


async def test_a_session_finds_the_candidates(session):
    async with session() as it:
        await it.run(MindCommand.SCORE_FINETUNE)
        stats = it.state.finetune_last_run
    assert [candidate.node_id for candidate in it.candidates] == ["a1", "a2"]
    assert it.candidates == it.state.finetune_candidates
    assert (stats.responses_considered, stats.above_threshold) == (2, 2)
    first = it.candidates[0]
    assert first.response_text == "rooibos tea, never coffee."
    assert first.prior_context == "[user]\nWhat shall I drink?"


async def test_it_hears_of_each_score_and_candidate_as_it_comes(session):
    heard = []
    async with session(hear=heard.append) as it:
        await it.run(MindCommand.SCORE)
        await it.run(MindCommand.SCORE_FINETUNE)
    assert [type(it) for it in heard] == [MemoryScore] * 3 + [FinetuneCandidate] * 2


async def test_a_second_run_begins_with_nothing_heard_of(session):
    async with session() as it:
        await it.run(MindCommand.SCORE)
        assert len(it.scores) == 3
        await it.run(MindCommand.SCORE)
        # All were scored a moment ago.
        assert it.scores == {}
        await it.run(MindCommand.SCORE_FINETUNE)
        await it.run(MindCommand.SCORE_FINETUNE)
        assert len(it.candidates) == 2


async def test_activity_goes_to_the_screen_it_was_given(session, screen):
    async with session() as it:
        await it.run(MindCommand.SCORE)
    assert ("scoring: 3/3 bike", 3, 3) in screen.lines
    assert screen.open_activities == 0


async def test_the_conversation_is_tokenised_once_by_the_registry_s_scorer(session, probe):
    async with session(scorer="probe") as it:
        first = await it.context()
        await it.run(MindCommand.SCORE)
        assert await it.context() is first
    words = await probe.tokenize("<|im_start|> user What shall I drink ? <|im_end|>")
    assert list(first.conversation[0].token_ids) == words


async def test_a_command_that_nobody_takes_is_an_error(session):
    async with session() as it:
        with pytest.raises(UnhandledCommand, match="dance"):
            await it.run("dance")


async def test_an_attempt_at_a_command_that_nobody_takes_is_a_result_with_an_error(session):
    async with session() as it:
        result = await it.attempt("dance", ("tea",))
    assert "dance" in result.error
    assert "mindscore plugins" in result.error
    assert (result.stats, result.scores, result.keys) == (None, {}, ("tea",))


async def test_a_result_has_the_statistics_of_its_own_command(session):
    async with session() as it:
        scored = await it.run(MindCommand.SCORE)
        found = await it.run(MindCommand.SCORE_FINETUNE)
    assert scored.stats is it.state.memory_last_run
    assert set(scored.outcomes) == {"haste", "tea", "bike"}
    assert found.stats is it.state.finetune_last_run
    assert found.outcomes == {}


async def test_a_flow_that_reports_nothing_and_fails_is_the_result_s_error(session):
    class Broken:
        @hookimpl
        def on_trigger(self, command, registry):
            if command != "break":
                return None
            return registry.task_handle("broken").trigger(self.work)

        async def work(self):
            raise ValueError("no good")

    async with session() as it:
        it.registry.register(Broken(), name="broken")
        result = await it.run("break")
        assert (result.stats, result.error) == (None, "broken: ValueError: no good")
        assert (await it.run(MindCommand.SCORE)).error is None


async def test_the_host_is_one_of_the_plugins_beside_the_default_ones(session):
    async with session() as it:
        infos = {info.name: info for info in it.registry.plugins()}
    assert {"memory-scoring", "finetune-scoring", "score-recorder", "session"} <= infos.keys()
    assert set(infos["session"].hooks) == {"on_score", "on_candidate", "on_run_end"}
    assert [info.error for info in infos.values()] == [None] * len(infos)


async def test_leaving_the_session_closes_the_scorer(session, probe):
    async with session(scorer="probe") as it:
        await it.run(MindCommand.SCORE)
        assert probe.closed == 0
    assert probe.closed == 1
    with pytest.raises(MindhooksError, match="closed"):
        it.registry.dispatch(MindCommand.SCORE)


async def test_a_tokenizer_that_fails_is_the_run_s_error(session, probe, monkeypatch):
    async def tokenize(text):
        raise MindhooksError("no tokenizer here")

    monkeypatch.setattr(probe, "tokenize", tokenize)
    async with session(scorer="probe") as it:
        await it.run(MindCommand.SCORE)
        assert it.state.memory_last_run.error == "no tokenizer here"


async def test_what_the_model_does_not_read_is_left_out_and_said_beside_the_result(session, probe):
    async with session(scorer="probe") as it:
        await it.run(MindCommand.SCORE_FULL)
        probe.context_length = max(end for prompt in probe.asked for _, end in prompt.ranges) - 1
        result = await it.run(MindCommand.SCORE_FULL, ("haste", "tea", "bike"))
        found = document(result)
        assert it.remarks == result.remarks
    [remark] = found["remarks"]
    assert remark.startswith("1 response is left out: it ends beyond the ")
    assert "#3" in remark
    assert (result.error, found["stats"]["error"]) == (None, None)
    assert [[cell is None for cell in row] for row in found["matrix"]] == [[False, True]] * 3
