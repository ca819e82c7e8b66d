"""OpenAI chat: lines, arrays and objects of messages."""

import base64
import json

from mindhooks import Image
from mindscore.conversation.message import ToolCall
from mindscore.readers.reading import NO_SYSTEM, NO_TOOLS, TOOLS_UNUSED

USER = {"role": "user", "content": "hello"}


def line(*messages, **more):
    return json.dumps({"messages": messages, **more}).encode() + b"\n"


def test_each_line_is_a_conversation(read):
    first, second = read("openai.jsonl").found
    assert (first.name, second.name) == ("drinks", "2")
    assert [it.role for it in first.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert first.messages[2].text == ""
    assert first.messages[2].tool_calls == (ToolCall("look", '{"where": "küche"}'),)
    assert second.messages[0].images == (Image("image/png", base64.b64decode("iVBORw0KGgo=")),)


def test_memories_beside_the_messages_are_found_in_them(read):
    conversations = read("openai.jsonl")
    transcript = conversations.transcript(conversations.chosen("drinks"))
    assert transcript.keys() == ["tea", "dog"]
    assert transcript.system[0].text_without(frozenset({"tea"})) == (
        "You help.\n\n- The user has a dog called Rex."
    )


def test_what_is_not_recorded_is_said(read):
    first, second = read("openai.jsonl").found
    assert first.remarks == (TOOLS_UNUSED,)
    assert second.remarks == (NO_SYSTEM, "left out: images that the file only names (1)")
    called = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    assert read(line(USER, called)).found[0].remarks == (NO_SYSTEM, NO_TOOLS)


def test_one_array_of_messages_is_a_conversation(read):
    conversations = read("openai_array.json")
    assert conversations.format == "openai"
    (conversation,) = conversations.found
    assert [it.role for it in conversation.messages] == ["system", "user", "assistant"]


def test_an_array_of_conversations_and_one_object_are_read_too(read):
    several = json.dumps([{"messages": [USER]}, {"messages": [USER, USER], "id": "b"}]).encode()
    assert [(it.name, len(it.messages)) for it in read(several).found] == [("1", 1), ("b", 2)]
    alone = json.dumps({"messages": [USER]}, indent=2).encode()
    assert [len(it.messages) for it in read(alone).found] == [1]


def test_a_function_that_older_files_call_is_a_tool_call(read):
    call = {"name": "f", "arguments": '{"a": 1}'}
    asked = {"role": "assistant", "content": None, "function_call": call}
    (conversation,) = read(line(USER, asked, {"role": "function", "content": "1"})).found
    assert conversation.messages[1].tool_calls == (ToolCall("f", '{"a": 1}'),)
    assert conversation.messages[2].role == "tool"


def test_reasoning_and_parts_of_other_types_are_left_out_and_said_to_be(read):
    parts = [{"type": "input_audio"}, {"type": "text", "text": "a"}, {"type": "file"}]
    answer = {"role": "assistant", "content": "b", "reasoning_content": "hm"}
    (conversation,) = read(line({"role": "user", "content": parts}, answer)).found
    assert [it.text for it in conversation.messages] == ["a", "b"]
    assert conversation.remarks[-1] == "left out: input_audio (1), file (1), reasoning (1)"


def test_a_refusal_is_what_was_said(read):
    said = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    assert read(line(USER, said)).found[0].messages[1].text == "No."


def test_errors_name_line_message_and_field(refused):
    good = line(USER)
    assert refused(good + b"{") == "line 2: is not valid JSON: Input data was truncated"
    assert refused(good + line(USER, {"role": "bot"})).startswith("line 2, message 2: 'role': ")
    assert refused(good + line(7)) == "line 2, message 1: expected an object, got a number"
    assert "line 1, message 1: 'content'" in refused(line({"role": "user", "content": 3}), "openai")
    assert (
        refused(good + b'{"a":1}') == "line 2: 'messages': expected an array of messages, got null"
    )
    assert refused(good + line()) == "line 2: 'messages': expected an array of messages, got none"
    assert "line 1: 'memories', 'k': expected text" in refused(line(USER, memories={"k": 1}))
    assert "line 1: 'memories': expected an object" in refused(line(USER, memories=[1]))
    assert "item 2, message 1: 'role'" in refused(
        json.dumps([{"messages": [USER]}, {"messages": [{"role": "x"}]}]).encode()
    )


def test_an_image_that_is_not_base64_is_refused_with_its_place(refused):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,é"}}
    assert refused(line({"role": "user", "content": [image]})).startswith("line 1, message 1: ")
