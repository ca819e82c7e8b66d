"""OpenAI's Responses API: requests, responses, calls with both, and bare items."""

import json

import pytest

from mindscore.conversation.message import ToolCall
from mindscore.readers.reading import NO_SYSTEM
from mindscore.readers.responses import GOES_ON, NO_INPUT, ResponsesReader
from mindscore.readers.source import Source


def asked(text):
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def answered(text):
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": content}


THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}
CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"where": "küche"}'}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "a tin of sencha"}
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object"}}
INPUT = [asked("What do I drink?"), THOUGHT, CALL, {**CALL, "call_id": "c2"}, RESULT,
         {**RESULT, "call_id": "c2"}]  # fmt: skip
REQUEST = {"model": "m", "instructions": "You help.", "input": INPUT, "tools": [TOOL]}
RESPONSE = {
    "id": "resp_1", "object": "response", "output": [THOUGHT, answered("Green tea.")],
}  # fmt: skip
SAID = [
    ("system", "You help."),
    ("user", "What do I drink?"),
    ("assistant", ""),
    ("tool", "a tin of sencha"),
    ("tool", "a tin of sencha"),
    ("assistant", "Green tea."),
]


def dump(value, indent=None):
    return json.dumps(value, indent=indent).encode() + b"\n"


def said(conversation):
    return [(it.role, it.text) for it in conversation.messages]


@pytest.mark.parametrize(
    "call",
    [
        {**REQUEST, "output": RESPONSE["output"], "id": "resp_1"},
        {"request": REQUEST, "response": RESPONSE},
        {**RESPONSE, "instructions": "You help.", "input": INPUT, "tools": [TOOL]},
    ],
    ids=["one", "apart", "response"],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_a_call_is_a_conversation(read, call, indent):
    conversations = read(dump(call, indent))
    assert conversations.format == "openai-responses"
    (conversation,) = conversations.found
    assert said(conversation) == SAID
    assert (conversation.name, conversation.id) == ("resp_1", "resp_1")
    assert conversation.messages[2].tool_calls == (ToolCall("look", '{"where": "küche"}'),) * 2
    assert [it.id for it in conversation.messages[2].tool_calls] == ["c1", "c2"]
    assert conversation.messages[2].reasoning == "hm"
    assert conversation.messages[3].tool_call_id == "c1"
    assert conversation.tools[0]["function"]["name"] == "look"
    assert conversation.remarks == ()


def test_a_request_alone_is_read_and_several_calls_are_several_conversations(read):
    simple = {"model": "m", "instructions": "You help.", "input": "Hi"}
    first, second = read(dump(REQUEST) + dump(simple)).found
    assert said(first) == SAID[:-1]
    assert said(second) == [("system", "You help."), ("user", "Hi")]
    assert (first.name, second.name) == ("1", "2")


def test_a_call_is_chosen_by_the_id_of_its_response(read):
    call = {"request": REQUEST, "response": RESPONSE}
    conversations = read(dump(call) + dump({**call, "response": {**RESPONSE, "id": "resp_2"}}))
    assert conversations.chosen("resp_2").name == "resp_2"


def test_the_body_of_a_batch_is_a_request(read):
    line = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": REQUEST}
    assert said(read(dump(line)).found[0]) == SAID[:-1]


def test_a_response_alone_says_that_its_input_is_not_there(read):
    (conversation,) = read(dump({**RESPONSE, "previous_response_id": "resp_0"})).found
    assert said(conversation) == [("assistant", "Green tea.")]
    assert conversation.remarks[:3] == (NO_SYSTEM, NO_INPUT, GOES_ON)


@pytest.mark.parametrize("lines", [False, True])
def test_bare_items_are_one_conversation(read, lines):
    items = [{"role": "developer", "content": "You help."}, *INPUT, *RESPONSE["output"]]
    items = items if not lines else items[1:]
    content = b"".join(map(dump, items)) if lines else dump(items)
    conversations = read(content)
    assert conversations.format == "openai-responses"
    (conversation,) = conversations.found
    assert said(conversation) == (SAID[1:] if lines else SAID)


def test_calls_of_the_servers_tools_are_calls_or_named(read):
    items = [
        asked("a"),
        {"type": "local_shell_call", "call_id": "c1", "action": {"command": ["ls"]}},
        {"type": "local_shell_call_output", "call_id": "c1", "output": "planks"},
        {"type": "mcp_call", "id": "m1", "name": "count", "arguments": "{}", "output": "7"},
        {"type": "web_search_call", "id": "w1", "status": "completed"},
        answered("Seven."),
    ]
    (conversation,) = read(dump({"model": "m", "input": items})).found
    assert [
        (it.role, it.text, [c.name for c in it.tool_calls]) for it in conversation.messages
    ] == [
        ("user", "a", []),
        ("assistant", "", ["local_shell"]),
        ("tool", "planks", []),
        ("assistant", "", ["count"]),
        ("tool", "7", []),
        ("assistant", "Seven.", []),
    ]
    assert conversation.messages[1].tool_calls[0].arguments == '{"command": ["ls"]}'
    assert conversation.remarks[-1] == "left out: web_search_call (1)"


def test_items_that_are_not_valid_are_left_out(read, refused):
    items = [asked("a"), 3, {"role": "nobody", "content": "x"}, answered("b")]
    (conversation,) = read(dump({**REQUEST, "input": items}), "openai-responses").found
    assert said(conversation) == [("system", "You help."), ("user", "a"), ("assistant", "b")]
    assert (
        "2 records that are not valid: line 1, item 2: expected an object, got a number; "
        in (conversation.remarks[-1])
    )
    (conversation,) = read(dump(asked("a")) + b"3\n" + dump(answered("b")) + b"{").found
    assert len(conversation.messages) == 2
    assert "line 2: expected an object" in conversation.remarks[-1]
    assert refused(dump({**REQUEST, "input": 3})) == (
        "line 1: 'input': expected text or an array, got a number"
    )
    assert refused(dump({**REQUEST, "input": []})) == (
        "line 1: 'input': expected text or items, got none"
    )


@pytest.mark.parametrize(
    "other",
    [
        {"model": "m", "input": "embed this"},
        {"model": "m", "input": ["embed", "these"]},
        {"id": "g", "traceId": "t", "model": "m", "input": [{"role": "user", "content": "a"}]},
        {"model": "m", "messages": [{"role": "user", "content": "a"}]},
        {"type": "message", "id": "1", "parentId": None, "message": {"role": "user"}},
        {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "a"}]},
        [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
        {"role": "user", "content": "a"},
    ],
)
def test_what_others_write_is_not_taken(tmp_path, other):
    file = tmp_path / "talk"
    file.write_bytes(dump(other))
    assert not ResponsesReader().detects(Source(file))
