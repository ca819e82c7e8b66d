"""``score-full`` with a screen, of memories that one message prints."""

import json

import pytest

from mindhooks import MindCommand
from mindscore.conversation.native import read_transcript
from mindscore.flows.screen_estimates import Estimator
from mindscore.session.session import Session

IDLE = 40


@pytest.fixture
def session(tmp_path):
    """A session of a conversation whose first message prints many memories, and one that helps."""
    system = [{"text": "You know:\n"}]
    system += [
        {"text": f"- Note {at}: {at * 7919} {at * 31}.\n", "key": f"idle-{at}"}
        for at in range(IDLE)
    ]
    system.append({"text": "- Jasmine tea from Fujian, brewed lightly.\n", "key": "tea"})
    lines = [
        {"role": "system", "content": system},
        {"role": "user", "content": "What do I drink?"},
        {"role": "assistant", "content": "Jasmine tea from Fujian, brewed lightly."},
    ]
    file = tmp_path / "talk.jsonl"
    file.write_text("".join(json.dumps(it) + "\n" for it in lines))
    tables = {
        "server": {"scorer": "toy", "self_test": False},
        "store": {"url": f"sqlite:///{tmp_path}/store"},
        "plugins": {"settings": {"memory-scoring": {"screen": True}}},
    }
    return Session(read_transcript(file)).open(tables)


@pytest.fixture
def no_holding(monkeypatch):
    monkeypatch.setattr(Estimator, "can_hold", lambda *_: False)


async def test_each_is_held_alone_where_that_tells_what_matters(session):
    async with session as it:
        result = await it.run(MindCommand.SCORE_FULL)
    assert result.error is None
    assert result.screen.method == "hold"
    assert "tea" in result.scores
    assert result.screen.spent_tokens == result.stats.prompt_tokens


async def test_groups_of_them_are_removed(session, no_holding):
    async with session as it:
        result = await it.run(MindCommand.SCORE_FULL)
    assert result.error is None
    assert result.screen.method == "groups"
    assert "tea" in result.scores
    assert len(result.screen.estimated) > IDLE / 2
    assert result.screen.spent_tokens == result.stats.prompt_tokens
    assert result.screen.together is not None


async def test_a_host_that_cannot_print_it_without_groups_has_them_measured_by_one(
    session, no_holding, monkeypatch, caplog
):
    async with session as it:
        await it.context()
        monkeypatch.setattr(it, "context_without", None, raising=False)
        result = await it.run(MindCommand.SCORE_FULL)
    assert result.error is None
    assert result.screen.method == "words"
    assert len(result.scores) == IDLE + 1
    assert result.screen.spent_tokens <= result.screen.exact_tokens
    assert result.screen.together is None
    assert "the host cannot print its messages without them" in caplog.text
