"""LangChain: what ``messages_to_dict`` and ``dumpd`` of langchain-core write."""

import json

import pytest

from mindhooks import Image
from mindscore.conversation.message import ToolCall
from mindscore.readers.reading import NO_TOOLS

from ...readers.written import langchain, langchain_dumpd

SAID = [("user", "hello"), ("assistant", "hi")]


@pytest.mark.parametrize("fixture", ["langchain.json", "langchain_dumpd.jsonl"])
def test_what_langchain_dumps_is_read(read, fixture):
    conversations = read(fixture)
    assert conversations.format == "langchain"
    (conversation,) = conversations.found
    assert [(it.role, it.text) for it in conversation.messages] == [
        ("system", "You help.\n\n- The user drinks green tea.\n- The user has a dog called Rex."),
        ("user", "What do I drink?"),
        ("assistant", "Let me look."),
        ("tool", "a tin of sencha"),
        ("assistant", "You drink green tea."),
        ("user", "And who is this?"),
        ("assistant", "Your dog, Rex."),
    ]
    assert conversation.messages[1].id == "ask"
    assert conversation.messages[2].tool_calls == (ToolCall("look", '{"where": "küche"}'),)
    assert conversation.messages[5].images == (Image("image/png", b"\x89PNG\r\n\x1a\n"),)
    assert conversation.remarks == (
        NO_TOOLS,
        "left out: reasoning (1), images that the file only names (1)",
    )


def test_lists_are_conversations_of_their_own(read):
    one = json.loads(langchain(SAID))
    assert len(read(json.dumps([one, one]).encode()).found) == 2
    lines = (json.dumps(one) + "\n") * 3
    assert [it.name for it in read(lines.encode()).found] == ["1", "2", "3"]


def test_a_call_that_was_not_valid_is_left_out_and_said_to_be(read):
    bad = {"name": "f", "args": "{", "id": "c", "error": None}
    said = [{"type": "ai", "data": {"content": "x", "invalid_tool_calls": [bad]}}]
    (conversation,) = read(json.dumps(said).encode()).found
    assert conversation.remarks[-1] == "left out: tool calls that are not valid (1)"


def test_a_chat_message_has_its_own_role(read):
    said = [{"type": "chat", "data": {"content": "x", "role": "user"}}]
    assert read(json.dumps(said).encode()).found[0].messages[0].role == "user"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"type": "remove", "data": {"content": ""}}, "expected one of human, ai"),
        ({"type": 3, "data": {}}, "the message's type: expected text, got a number"),
        ({"type": "ai", "data": []}, "the message's fields: expected an object, got an array"),
        ({"type": "ai", "data": {"content": {}}}, "'content'"),
        ({"type": "ai", "data": {"content": "", "tool_calls": 3}}, "'tool_calls'"),
        ({"lc": 1, "id": [], "kwargs": {}}, "the message's type"),
        ("x", "expected an object, got text"),
    ],
)
def test_errors_name_the_message_and_the_field(refused, message, said):
    whole = json.dumps([*json.loads(langchain(SAID)), message]).encode()
    assert refused(whole, "langchain").startswith("line 1, message 3: ")
    assert said in refused(whole, "langchain")
    assert refused(langchain_dumpd(SAID) + json.dumps(message).encode()).startswith("line 3: ")


def test_a_list_without_messages_is_refused(refused):
    assert refused(b"[]", "langchain") == "line 1: expected an array of messages, got none"
    assert refused(b"[[], []]", "langchain").startswith("line 1, list 1: expected an array")
