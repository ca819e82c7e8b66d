"""Conversations of chat messages: sections, memories found in them, what is left without."""

from pathlib import Path

import pytest

from mindhooks import MindhooksError, Role
from mindscore.conversation.conversation import Conversation
from mindscore.conversation.message import Message
from mindscore.conversation.native import read_transcript
from mindscore.recognisers import MemoryFinder
from mindscore.scorers.toy import ToyScorer

TEA, DOG = "Nora drinks rooibos.", "Her dog is Max."


@pytest.fixture
def context():
    """Make a conversation a context of the toy's, with these memories known."""

    async def make(*messages, known=()):
        transcript = Conversation("c", messages).transcript(Path("c"), MemoryFinder(dict(known)))
        return await transcript.context(ToyScorer().tokenize)

    return make


def said(*messages):
    return [Message(Role(role), text) for role, text in messages]


async def tokens(text):
    return tuple(await ToyScorer().tokenize(text))


async def test_a_message_is_rendered_without_a_memory_as_if_it_had_never_been_there(context):
    messages = said(("system", f"You help.\n- {TEA}\n- {DOG}"), ("user", "?"), ("assistant", "!"))
    found = await context(*messages, known={"tea": TEA, "dog": DOG})
    bare = await context(
        *said(("system", f"You help.\n- {DOG}"), ("user", "?"), ("assistant", "!"))
    )
    without = found.wire_prompt(range(2), lambda key: key == "tea")
    assert without.tokens == bare.wire_prompt(range(2), lambda _: False).tokens


async def test_a_message_that_has_nothing_left_to_say_goes(context):
    messages = said(("system", TEA), ("user", "?"), ("assistant", "!"))
    found = await context(*messages, known={"tea": TEA})
    bare = await context(*said(("user", "?"), ("assistant", "!")))
    without = found.wire_prompt(range(2), lambda _: True)
    assert without.tokens == bare.wire_prompt(range(2), lambda _: False).tokens


async def test_leading_system_messages_and_memories_stand_before_the_conversation(context):
    memory = Message(Role.MEMORY, TEA, memory_key="tea")
    found = await context(
        *said(("system", "You help.")), memory, *said(("user", "?"), ("system", "!"))
    )
    assert [len(it) for it in (found.system, found.identity, found.conversation)] == [1, 1, 2]


async def test_a_response_holds_no_memories_whatever_it_says(context):
    found = await context(*said(("tool", TEA), ("assistant", TEA)), known={"tea": TEA})
    assert [node.parts != () for node in found.conversation] == [True, False]


def test_what_was_refused_is_among_the_remarks():
    broken = "═" * 46 + "\nMEMORY (your personal notes) [1% — 99/2,200 chars]\n" + "═" * 46 + "\nx"
    conversation = Conversation("c", tuple(said(("system", broken))), remarks=("no tools",))
    remarks = conversation.transcript(Path("c"), MemoryFinder()).remarks
    assert remarks[0] == "no tools"
    assert any("hermes" in remark for remark in remarks[1:])


def test_recorded_ids_are_left_out_for_another_model_unless_they_are_all_there_is(tmp_path):
    file = tmp_path / "talk.jsonl"
    said = '{"role":"assistant","content":"Hi.","token_ids":[1,2],"body":[1,2]}\n'
    file.write_text('{"role":"user","content":"Hello"}\n' + said)
    [_, response] = read_transcript(file).without_ids().messages
    assert (response.text, response.token_ids, response.body) == ("Hi.", None, None)
    file.write_text(said.replace("Hi.", ""))
    with pytest.raises(MindhooksError, match="recorded as token ids alone"):
        read_transcript(file).without_ids()
