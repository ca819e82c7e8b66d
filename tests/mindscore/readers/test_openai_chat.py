"""OpenAI chat: lines, arrays and objects of messages."""

import base64
import json

import pytest

from mindhooks import Image
from mindscore.conversation.message import ToolCall
from mindscore.readers.reading import NO_SYSTEM, NO_TOOLS

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
    assert first.remarks == ()
    assert [it["function"]["name"] for it in first.tools] == ["look"]
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
    assert conversation.remarks[-1] == "left out: input_audio (1), file (1)"


def test_a_refusal_is_what_was_said(read):
    said = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    assert read(line(USER, said)).found[0].messages[1].text == "No."


def left_out(conversation):
    (remark,) = [it for it in conversation.remarks if it.startswith("left out: 1 record that is")]
    return remark.removeprefix("left out: 1 record that is not valid: ")


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"{", "line 2: is not valid JSON: Input data was truncated"),
        (line(USER, {"role": "bot"}), "line 2, message 2: 'role': expected one of system"),
        (line(7), "line 2, message 1: expected an object, got a number"),
        (line({"role": "user", "content": 3}), "line 2, message 1: 'content'"),
        (b'{"a":1}', "line 2: 'messages': expected an array of messages, got null"),
        (line(), "line 2: 'messages': expected an array of messages, got none"),
        (line(USER, memories={"k": 1}), "line 2: 'memories', 'k': expected text"),
        (line(USER, memories=[1]), "line 2: 'memories': expected an object"),
        (b"3", "line 2: expected an object, got a number"),
    ],
)
def test_a_record_that_is_not_valid_is_left_out_with_place_and_reason(read, bad, why):
    (conversation,) = read(line(USER) + bad).found
    assert left_out(conversation).startswith(why)
    first, second = read(line(USER) + bad.rstrip() + b"\n" + line(USER)).found
    assert (first.name, second.name) == ("1", "2")
    assert left_out(second).startswith(why)


def test_an_item_that_is_not_valid_is_left_out(read):
    items = [{"messages": [USER]}, {"messages": [{"role": "x"}]}, 3, {"messages": [USER]}]
    for indent, where in ((None, "line 1"), (1, "the file")):
        found = read(json.dumps(items, indent=indent).encode()).found
        assert len(found) == 2
        assert f"{where}, item 2, message 1: 'role': expected one of" in found[1].remarks[-1]
        assert f"{where}, item 3: expected an object, got a number" in found[1].remarks[-1]


def test_where_nothing_is_valid_the_first_error_is_raised(refused):
    bad = line(USER, {"role": "bot"})
    assert refused(bad + b"{").startswith("line 1, message 2: 'role': expected one of")


def test_a_system_prompt_beside_the_messages_comes_first(read):
    blocks = [{"type": "text", "text": "You help.", "cache_control": {"type": "ephemeral"}}]
    tools = [{"name": "look", "input_schema": {"type": "object"}}]
    for system in ("You help.", blocks):
        (conversation,) = read(line(USER, system=system, tools=tools)).found
        assert [(it.role, it.text) for it in conversation.messages] == [
            ("system", "You help."),
            ("user", "hello"),
        ]
        assert conversation.tools[0]["function"]["name"] == "look"
        assert NO_SYSTEM not in conversation.remarks
        assert NO_TOOLS not in conversation.remarks


def test_tools_that_are_not_understood_are_not_said_to_be_missing(read):
    called = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    for tools in ([{"type": "web_search"}], "a tool", {"f": {}}):
        (conversation,) = read(line(USER, called, tools=tools)).found
        assert conversation.remarks == (NO_SYSTEM, "left out: definitions of tools (1)")


def test_tools_called_in_anthropics_blocks_are_calls_and_results(read):
    call = {"type": "tool_use", "id": "c1", "name": "look", "input": {"where": "küche"}}
    result = {
        "type": "tool_result",
        "tool_use_id": "c1",
        "content": [{"type": "text", "text": "1"}],
    }
    said = [
        USER,
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result, {"type": "text", "text": "Well?"}]},
    ]
    (conversation,) = read(json.dumps(said, indent=1).encode()).found
    assert [(it.role, it.text) for it in conversation.messages] == [
        ("user", "hello"),
        ("assistant", ""),
        ("tool", "1"),
        ("user", "Well?"),
    ]
    assert conversation.messages[1].tool_calls == (ToolCall("look", '{"where": "küche"}'),)


ANSWER = {"role": "assistant", "content": "Hi."}
COMPLETION = {"id": "c1", "object": "chat.completion", "choices": [{"index": 0, "message": ANSWER}]}
CLAUDES = {"id": "c1", "type": "message", "role": "assistant",
           "content": [{"type": "text", "text": "Hi."}]}  # fmt: skip


@pytest.mark.parametrize(
    "call",
    [
        {"request": {"messages": [USER]}, "response": COMPLETION},
        {"request": {"system": "You help.", "messages": [USER]}, "response": CLAUDES},
        {"messages": [USER], "response": COMPLETION},
        {"messages": [USER], **COMPLETION},
        {"custom_id": "a", "body": {"messages": [USER]}, "response": {"body": COMPLETION}},
    ],
)
def test_a_call_that_was_logged_ends_with_its_response(read, call):
    conversations = read(line() + json.dumps(call).encode())
    assert conversations.format == "openai"
    (conversation,) = conversations.found
    assert [it.text for it in conversation.messages][-2:] == ["hello", "Hi."]
    assert conversation.id == "c1"
    assert conversations.chosen("c1").name == "c1"


def test_of_several_responses_the_first_is_read_and_the_others_counted(read):
    call = {"messages": [USER], "choices": [{"message": ANSWER}, {"message": ANSWER}, 3]}
    (conversation,) = read(json.dumps(call).encode()).found
    assert [it.text for it in conversation.messages] == ["hello", "Hi."]
    assert conversation.remarks[-1] == "left out: responses beside the first (1)"
    (conversation,) = read(json.dumps({**call, "choices": 3}).encode()).found
    assert len(conversation.messages) == 1


def test_parts_without_content_are_read(read):
    asked = {"role": "user", "parts": [{"type": "text", "text": "hello"}]}
    for content in (line(asked), json.dumps([asked]).encode()):
        assert [it.text for it in read(content).found[0].messages] == ["hello"]


def test_parts_that_nobody_understands_leave_no_response(read):
    answer = {"role": "assistant", "parts": [{"type": "hologram"}]}
    (conversation,) = read(line(USER, answer)).found
    assert [it.role for it in conversation.messages] == ["user"]
    assert "responses whose content is not understood (1)" in conversation.remarks[-1]


def log(*messages):
    return "".join(json.dumps(it) + "\n" for it in messages).encode()


CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "function": {"name": "look", "arguments": "{}"}}],
}


@pytest.mark.parametrize(
    "telling",
    [
        CALL,
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "developer", "content": "You help."},
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "user", "parts": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": "b", "refusal": None},
    ],
)
def test_lines_of_chat_messages_are_one_conversation(read, telling):
    conversations = read(log(USER, telling, {"role": "assistant", "content": "b"}))
    assert conversations.format == "openai"
    (conversation,) = conversations.found
    assert conversation.name == "talk"
    assert len(conversation.messages) == 3


@pytest.mark.parametrize(
    "own",
    [
        {"role": "memory", "key": "k", "content": "a"},
        {"role": "identity", "content": "a"},
        {"role": "user", "content": "a", "section": "conversation"},
        {"role": "user", "content": "a", "token_ids": [1]},
        {"role": "user", "content": [{"text": "a"}]},
    ],
)
def test_lines_that_are_native_stay_native(read, refused, own):
    assert read(log(own, USER)).format == "native"
    assert refused(log(own, USER, CALL)).startswith("line 3: ")


@pytest.mark.parametrize(
    "wrong", [{"role": "developer", "content": ""}, {**USER, "name": "Nora"}, {"role": "user"}]
)
def test_lines_without_a_response_or_a_sign_of_a_chat_api_are_refused_as_native(refused, wrong):
    assert refused(log(USER, wrong)).startswith("line 2: ")


def test_lines_of_a_role_and_a_text_are_native_unless_openai_is_asked_for(read):
    lines = log(USER, {"role": "assistant", "content": "b"})
    assert read(lines).format == "native"
    assert [it.role for it in read(lines, "openai").found[0].messages] == ["user", "assistant"]


def test_a_line_of_a_log_that_is_not_valid_is_left_out(read, refused):
    (conversation,) = read(log(CALL, {"role": "bot", "content": ""}, USER) + b'{"role": "us').found
    assert [it.role for it in conversation.messages] == ["assistant", "user"]
    assert "line 2: 'role': expected one of system" in conversation.remarks[-1]
    assert "line 4: is not valid JSON: Input data was truncated" in conversation.remarks[-1]
    assert refused(log({"role": "user", "content": 3}), "openai").startswith("line 1: 'content'")


def test_a_time_in_a_log_is_kept_if_it_is_one(read):
    times = ["2026-03-03T10:00:00Z", 1714550000.5, "soon"]
    lines = log(*({**CALL, "timestamp": it} for it in times))
    stamps = [it.timestamp_ns for it in read(lines).found[0].messages]
    assert stamps == [1772532000 * 10**9, None, None]


def test_an_image_that_is_not_base64_is_refused_with_its_place(refused):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,é"}}
    assert refused(line({"role": "user", "content": [image]})).startswith("line 1, message 1: ")
