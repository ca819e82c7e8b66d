"""Messages of every chat API, read as what the model saw."""

import pytest

from mindhooks import Role
from mindscore._util.errors import TranscriptError
from mindscore.conversation.chat import LeftOut, read_messages
from mindscore.conversation.message import Message, ToolCall


def read(*messages):
    """Return the one message that is read, of which nothing is left out."""
    [found], left_out = read_all(*messages)
    assert not left_out
    return found


def read_all(*messages):
    """Return the messages that are read, and what was left out of them."""
    left_out = LeftOut()
    return [it for given in messages for it in read_messages(given, left_out.add)], left_out


def test_a_message_is_what_the_model_reads_of_it():
    assert read({"role": "developer", "content": "Be brief."}) == Message(Role.SYSTEM, "Be brief.")
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert read({"role": "user", "content": parts}).text == "ab"
    call = {"type": "function", "function": {"name": "look", "arguments": "{}"}}
    called = read({"role": "assistant", "content": None, "tool_calls": [call]})
    assert called == Message(Role.ASSISTANT, "", (ToolCall("look", "{}"),))


def test_an_image_in_the_message_is_kept():
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}}
    [image] = read({"role": "user", "content": [url]}).images
    assert (image.mime, image.data) == ("image/png", b"x")


nested: object = 1
for _ in range(100_000):
    nested = [nested]

WRONG = {
    "no role": {"content": "x"},
    "unknown role": {"role": "narrator", "content": "x"},
    "content": {"role": "user", "content": 7},
    "part": {"role": "user", "content": [7]},
    "base64": {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,\u00e4"}}],
    },
    "tool calls": {"role": "assistant", "tool_calls": "x"},
    "a tool call": {"role": "assistant", "tool_calls": [7]},
    "a name": {"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]},
    "deep arguments": {
        "role": "assistant", "tool_calls": [{"function": {"name": "x", "arguments": nested}}],
    },
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG.values(), ids=WRONG)
def test_what_is_no_message_is_refused(message):
    with pytest.raises(TranscriptError):
        read(message)


ANTHROPIC = (
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "oak", "signature": "x"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": 1}},
        ],
    },
    {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "c1",
                "content": [{"type": "text", "text": "9"}],
            },
            {"type": "text", "text": "And?"},
        ],
    },
)
GEMINI = (
    {
        "role": "model",
        "parts": [
            {"text": "oak", "thought": True},
            {"text": "I look."},
            {"functionCall": {"id": "c1", "name": "look", "args": {"at": 1}}},
        ],
    },
    {
        "role": "user",
        "parts": [
            {
                "functionResponse": {
                    "id": "c1",
                    "name": "look",
                    "response": {"content": [{"text": "9"}]},
                }
            },
            {"text": "And?"},
        ],
    },
)
BEDROCK = (
    {
        "role": "assistant",
        "content": [
            {"reasoningContent": {"reasoningText": {"text": "oak", "signature": "x"}}},
            {"text": "I look."},
            {"toolUse": {"toolUseId": "c1", "name": "look", "input": {"at": 1}}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"toolResult": {"toolUseId": "c1", "content": [{"text": "9"}], "status": "success"}},
            {"text": "And?"},
        ],
    },
)
VERCEL = (
    {
        "id": "m",
        "role": "assistant",
        "parts": [
            {"type": "step-start"},
            {"type": "reasoning", "text": "oak"},
            {"type": "text", "text": "I look."},
            {
                "type": "tool-look",
                "toolCallId": "c1",
                "state": "output-available",
                "input": {"at": 1},
                "output": "9",
            },
        ],
    },
    {"role": "user", "parts": [{"type": "text", "text": "And?"}]},
)
VERCEL_MODEL = (
    {
        "role": "assistant",
        "content": [
            {"type": "reasoning", "text": "oak"},
            {"type": "text", "text": "I look."},
            {"type": "tool-call", "toolCallId": "c1", "toolName": "look", "input": {"at": 1}},
        ],
    },
    {
        "role": "tool",
        "content": [
            {
                "type": "tool-result",
                "toolCallId": "c1",
                "toolName": "look",
                "output": {"type": "text", "value": "9"},
            },
        ],
    },
    {"role": "user", "content": "And?"},
)
LANGCHAIN = (
    {
        "role": "ai",
        "content": "I look.",
        "additional_kwargs": {
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"at": 1}'},
                }
            ]
        },
        "reasoning_content": "oak",
    },
    {"role": "tool", "content": "9", "tool_call_id": "c1"},
    {"role": "human", "content": "And?"},
)
TELEMETRY = (
    {
        "role": "assistant",
        "parts": [
            {"type": "reasoning", "content": "oak"},
            {"type": "text", "content": "I look."},
            {"type": "tool_call", "id": "c1", "name": "look", "arguments": {"at": 1}},
        ],
    },
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "result": "9"}]},
    {"role": "user", "parts": [{"type": "text", "content": "And?"}]},
)
GOOSE = (
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "oak"},
            {"type": "text", "text": "I look."},
            {
                "type": "toolRequest",
                "id": "c1",
                "toolCall": {
                    "status": "success",
                    "value": {"name": "look", "arguments": {"at": 1}},
                },
            },
        ],
    },
    {
        "role": "user",
        "content": [
            {
                "type": "toolResponse",
                "id": "c1",
                "toolResult": {"status": "success", "value": [{"type": "text", "text": "9"}]},
            },
            {"type": "text", "text": "And?"},
        ],
    },
)
APIS = {
    "Anthropic": ANTHROPIC, "Gemini": GEMINI, "Bedrock": BEDROCK, "Vercel's pages": VERCEL,
    "Vercel's requests": VERCEL_MODEL, "LangChain": LANGCHAIN, "OpenTelemetry": TELEMETRY,
    "Goose": GOOSE,
}  # fmt: skip


@pytest.mark.parametrize("given", APIS.values(), ids=APIS)
def test_every_api_s_words_are_the_same_messages(given):
    (said, result, asked), left_out = read_all(*given)
    assert (said.role, said.text, said.reasoning) == (Role.ASSISTANT, "I look.", "oak")
    assert [(it.name, it.arguments, it.id) for it in said.tool_calls] == [
        ("look", '{"at": 1}', "c1")
    ]
    assert (result.role, result.text, result.tool_call_id) == (Role.TOOL, "9", "c1")
    assert (asked.role, asked.text) == (Role.USER, "And?")
    assert not left_out


def test_what_is_not_understood_is_named_and_a_response_of_nothing_else_is_not_kept():
    video = {"type": "video"}
    found, left_out = read_all(
        {"role": "user", "content": [video, {"type": "text", "text": "See?"}]},
        {"role": "assistant", "content": [video]},
        {"role": "assistant", "content": None},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}],
        },
    )
    assert [(it.role, it.text) for it in found] == [(Role.USER, "See?"), (Role.USER, "")]
    [remark] = left_out.remarks()
    assert remark == (
        "left out: video (2), responses whose content is not understood (1), "
        "responses that say nothing (1), images that the file only names (1)"
    )


def test_a_response_that_is_empty_text_is_a_response():
    assert read({"role": "assistant", "content": ""}) == Message(Role.ASSISTANT, "")


def test_steps_within_one_message_are_responses_of_their_own_and_parallel_calls_are_one():
    def tool(number):
        return {
            "type": "dynamic-tool", "toolName": "look", "toolCallId": number, "input": {},
            "output": {"seen": number},
        }  # fmt: skip

    found, _ = read_all(
        {
            "role": "assistant",
            "parts": [tool("1"), tool("2"), {"type": "step-start"}, {"type": "text", "text": "b"}],
        }
    )
    assert [it.role for it in found] == [Role.ASSISTANT, Role.TOOL, Role.TOOL, Role.ASSISTANT]
    assert [it.id for it in found[0].tool_calls] == ["1", "2"]
    assert [(it.text, it.tool_call_id) for it in found[1:3]] == [
        ('{"seen": "1"}', "1"), ('{"seen": "2"}', "2"),
    ]  # fmt: skip


def test_a_call_that_stands_in_two_places_is_one_call():
    block = {"type": "tool_use", "id": "c", "name": "look", "input": {}}
    call = {"id": "c", "name": "look", "args": {"at": 1}}
    assert read({"role": "assistant", "content": [block], "tool_calls": [call]}).tool_calls == (
        ToolCall("look", '{"at": 1}'),
    )


def test_the_id_of_a_call_does_not_tell_it_from_another():
    assert ToolCall("look", "{}", "1") == ToolCall("look", "{}", "2")
