"""LangChain: what ``messages_to_dict`` and ``dumpd`` of langchain-core write."""

import json

import pytest

from mindhooks import Image
from mindscore.conversation.message import ToolCall
from mindscore.integrations.langchain.reader import LangChainReader
from mindscore.readers import Source
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
        "left out: images that the file only names (1)",
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


BAD = [
    ({"type": "robot", "data": {"content": ""}}, "expected one of human, ai"),
    ({"type": 3, "data": {}}, "the message's type: expected text, got a number"),
    ({"type": "ai", "data": []}, "the message's fields: expected an object, got an array"),
    ({"type": "ai", "data": {"content": {}}}, "'content'"),
    ({"type": "ai", "data": {"content": "", "tool_calls": 3}}, "'tool_calls'"),
    ({"lc": 1, "id": [], "kwargs": {}}, "the message's type"),
    ("x", "expected an object, got text"),
]


@pytest.mark.parametrize(("message", "said"), BAD)
def test_errors_name_the_message_and_the_field(refused, message, said):
    whole = json.dumps([*json.loads(langchain(SAID)), message]).encode()
    assert refused(whole, "langchain").startswith("line 1, message 3: ")
    assert said in refused(whole, "langchain")


@pytest.mark.parametrize(("message", "said"), BAD)
def test_a_line_or_a_list_that_is_not_valid_is_left_out(read, message, said):
    (conversation,) = read(langchain_dumpd(SAID) + json.dumps(message).encode()).found
    assert len(conversation.messages) == 2
    assert "left out: 1 record that is not valid: line 3: " in conversation.remarks[-1]
    assert said in conversation.remarks[-1]
    good = json.loads(langchain(SAID))
    (conversation,) = read(json.dumps([good, [*good, message]]).encode()).found
    assert "line 1, list 2, message 3: " in conversation.remarks[-1]


def test_a_list_without_messages_is_refused(refused):
    assert refused(b"[]", "langchain") == "line 1: expected an array of messages, got none"
    assert refused(b"[[], []]", "langchain").startswith("line 1, list 1: expected an array")
    assert refused(b"3", "langchain") == "line 1: expected an array of messages, got a number"


def dumped(kind, content, **more):
    """One message as its ``model_dump()`` is."""
    return {
        "content": content, "additional_kwargs": {}, "response_metadata": {}, "type": kind,
        "name": None, "id": None, **more,
    }  # fmt: skip


CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}


@pytest.mark.parametrize("lines", [False, True])
def test_messages_that_were_dumped_flat_are_read(read, lines):
    said = [
        dumped("system", "You help."),
        dumped("human", "hello", id="h1", example=False),
        dumped("ai", "", tool_calls=[{"name": "look", "args": {"a": 1}, "id": "c1"}]),
        dumped("tool", "3", tool_call_id="c1"),
        dumped("AIMessageChunk", [{"type": "text", "text": "Three.", "index": 0}]),
    ]
    content = "\n".join(map(json.dumps, said)) if lines else json.dumps(said, indent=1)
    conversations = read(content.encode())
    assert conversations.format == "langchain"
    (conversation,) = conversations.found
    assert [(it.role, it.text) for it in conversation.messages] == [
        ("system", "You help."),
        ("user", "hello"),
        ("assistant", ""),
        ("tool", "3"),
        ("assistant", "Three."),
    ]
    assert conversation.messages[2].tool_calls == (ToolCall("look", '{"a": 1}'),)
    assert conversation.messages[3].tool_call_id == "c1"
    assert conversation.remarks == (NO_TOOLS,)


@pytest.mark.parametrize("extra", [{"tool_calls": [CALL]}, {"function_call": CALL["function"]}])
def test_calls_that_older_versions_keep_aside_are_kept(read, extra):
    message = {"type": "ai", "data": {"content": "", "additional_kwargs": extra}}
    (conversation,) = read(json.dumps([*json.loads(langchain(SAID)), message]).encode()).found
    assert conversation.messages[2].tool_calls == (ToolCall("look", '{"a": 1}'),)


def test_a_prompt_that_was_dumped_as_a_whole_is_a_conversation(read):
    messages = [json.loads(it) for it in langchain_dumpd(SAID).splitlines()]
    kind = ["langchain", "prompts", "chat", "ChatPromptValue"]
    prompt = {"lc": 1, "type": "constructor", "id": kind, "kwargs": {"messages": messages}}
    for content in (json.dumps(prompt, indent=1), f"{json.dumps(prompt)}\n{json.dumps(prompt)}\n"):
        for conversation in read(content.encode()).found:
            assert [it.text for it in conversation.messages] == ["hello", "hi"]


def test_what_takes_a_message_back_is_counted(read):
    said = [*json.loads(langchain(SAID)), {"type": "remove", "data": {"content": "", "id": "a"}}]
    (conversation,) = read(json.dumps(said).encode()).found
    assert conversation.remarks[-1] == "left out: messages of type remove (1)"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "session.start", "data": {"sessionId": "s"}, "id": "1", "parentId": None},
        {"type": "user.message", "data": {"content": "x"}, "id": "1"},
        {"type": "user", "content": "x"},
        {"type": "human", "content": "x"},
    ],
)
def test_events_of_other_programs_are_not_langchains(tmp_path, event):
    file = tmp_path / "talk"
    file.write_text(json.dumps(event) + "\n")
    assert not LangChainReader().detects(Source(file))
