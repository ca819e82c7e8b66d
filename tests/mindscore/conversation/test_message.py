"""Chat messages: OpenAI-style dicts, and ids that stay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import Role
from mindscore._util.errors import TranscriptError
from mindscore.conversation.message import Message, ToolCall, from_openai, with_ids


def test_a_message_is_what_the_model_reads_of_it():
    assert from_openai({"role": "developer", "content": "Be brief."}) == Message(
        Role.SYSTEM, "Be brief."
    )
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert from_openai({"role": "user", "content": parts}).text == "ab"
    call = {"type": "function", "function": {"name": "look", "arguments": "{}"}}
    called = from_openai({"role": "assistant", "content": None, "tool_calls": [call]})
    assert called == Message(Role.ASSISTANT, "", (ToolCall("look", "{}"),))


def test_an_image_in_the_message_is_kept():
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}}
    [image] = from_openai({"role": "user", "content": [url]}).images
    assert (image.mime, image.data) == ("image/png", b"x")


nested: object = 1
for _ in range(100_000):
    nested = [nested]

WRONG = {
    "no role": {"content": "x"},
    "unknown role": {"role": "narrator", "content": "x"},
    "content": {"role": "user", "content": 7},
    "part": {"role": "user", "content": [7]},
    "kind of part": {"role": "user", "content": [{"type": "video"}]},
    "address of an image": {
        "role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}],
    },
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
        from_openai(message)


texts = st.sampled_from(["x", "x-2", "y", ""])
names = st.sampled_from(["", "x", "x-2", "x-3"])
messages = st.lists(
    st.builds(Message, st.sampled_from([Role.USER, Role.ASSISTANT]), texts, id=names), max_size=12
)


@given(messages)
def test_no_two_messages_have_one_id(messages):
    ids = [message.id for message in with_ids(messages)]
    assert len(set(ids)) == len(ids)


@given(messages, messages)
def test_ids_stay_as_a_conversation_goes_on(messages, more):
    assert with_ids([*messages, *more])[: len(messages)] == with_ids(messages)
