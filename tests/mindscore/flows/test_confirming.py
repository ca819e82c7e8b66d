"""Memories that hide each other are removed together, also where one message prints many."""

import json
import logging

import pytest

from mindhooks import MindCommand
from mindscore.conversation.native import read_transcript
from mindscore.session.session import Session

SAME = {f"tea-{n}": "Jasmine tea from Fujian." for n in range(6)}
OTHERS = {f"note-{n}": f"Note {n} says nothing." for n in range(8)}
MEMORIES = {**SAME, **OTHERS}


@pytest.fixture
def printed(tmp_path):
    """Makes a conversation of which one message prints ``memories``, ``before`` those apart."""

    def make(memories, before=()):
        system = [{"text": "You know:\n"}]
        system += [{"text": f"- {MEMORIES[key]}\n", "key": key} for key in memories]
        lines = [{"role": "system", "content": system}]
        lines += [{"role": "memory", "key": key, "content": MEMORIES[key]} for key in before]
        lines += [
            {"role": "user", "content": "What do I drink?"},
            {"role": "assistant", "content": "Jasmine tea from Fujian.", "id": "answer"},
        ]
        file = tmp_path / "talk.jsonl"
        file.write_text("".join(json.dumps(it) + "\n" for it in lines))
        return read_transcript(file)

    return make


@pytest.fixture
def open_session(tmp_path):
    """Opens a session with the toy, or another scorer, and ``hold``."""

    def open_session(transcript, hear=lambda _: None, **server):
        tables = {
            "server": {"scorer": "toy", "self_test": False, "concurrency": 1, **server},
            "store": {"url": f"sqlite:///{tmp_path}/store"},
            "plugins": {"settings": {"memory-scoring": {"hold": True}}},
        }
        return Session(transcript, hear=hear).open(tables)

    return open_session


@pytest.mark.parametrize(
    ("within", "before"),
    [
        (list(MEMORIES), []),
        ([*list(SAME)[:3], *OTHERS], list(SAME)[3:]),
        (list(SAME), list(OTHERS)),
        ([], list(MEMORIES)),
    ],
    ids=["one-message", "in-part", "few", "apart"],
)
async def test_a_group_is_named_wherever_its_memories_are_printed(
    printed, open_session, probe, caplog, within, before
):
    async with open_session(printed(within, before), scorer="probe") as session:
        result = await session.run(MindCommand.SCORE_FULL)
    [group] = result.redundant
    assert set(group.keys) == set(SAME)
    assert group.node_ids == ("answer",)
    assert caplog.text == ""
    # No prompt is asked for twice: what was printed anew is found in the cache.
    assert len({it.tokens for it in probe.asked}) == len(probe.asked) == result.stats.calls


async def test_the_group_is_left_out_of_the_prompt_as_the_session_prints_it(
    printed, open_session, probe
):
    async with open_session(printed(list(MEMORIES)), scorer="probe") as session:
        await session.run(MindCommand.SCORE_FULL)
        without = await session.context_without([frozenset(SAME)])
        expected = without.wire_prompt(range(2), SAME.__contains__)
    [body] = [node.body for node in without.conversation if node.id == "answer"]
    asked = probe.asked[-1]
    assert asked.tokens == expected.tokens[: len(asked.tokens)]
    assert asked.ranges == expected.ranges
    assert body[1] - body[0] == asked.ranges[0][1] - asked.ranges[0][0]


async def test_a_conversation_that_has_gone_on_meanwhile_names_no_group_and_keeps_the_rest(
    printed, open_session, caplog
):
    transcript = printed(list(MEMORIES))
    later = printed(list(MEMORIES)[1:])

    def hear(_):
        session.transcript = later

    async with open_session(transcript, hear) as session:
        with caplog.at_level(logging.WARNING, "mindscore"):
            result = await session.run(MindCommand.SCORE_FULL)
    assert result.redundant == ()
    assert "the conversation has changed meanwhile" in caplog.text
    assert len(result.scores) == 14
    assert result.error is None


async def test_a_host_that_cannot_print_it_anew_names_no_group_and_keeps_the_rest(
    printed, open_session, caplog, monkeypatch
):
    async with open_session(printed(list(MEMORIES))) as session:
        await session.context()
        monkeypatch.setattr(session, "context_without", None, raising=False)
        with caplog.at_level(logging.WARNING, "mindscore"):
            result = await session.run(MindCommand.SCORE_FULL)
    assert result.redundant == ()
    assert "the host cannot print its messages without them" in caplog.text
    assert len(result.scores) == 14
    assert result.error is None
