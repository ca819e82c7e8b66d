"""LangChain's messages, of which only the attributes count; LangChain itself is in tests/hosts."""

from types import SimpleNamespace

import pytest

from mindhooks import Image
from mindscore._util.errors import TranscriptError
from mindscore.integrations.langchain.reader import chat_message

PIXEL = {"type": "image", "base64": "AAEC", "mime_type": "image/gif"}


def message(type_, content, **more):
    blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
    text = "".join(it.get("text", "") for it in blocks)
    return SimpleNamespace(
        type=type_, content=content, text=text, content_blocks=blocks, id="1", **more
    )


@pytest.mark.parametrize(
    ("type_", "role"),
    [("system", "system"), ("human", "user"), ("ai", "assistant"), ("tool", "tool")],
)
def test_each_type_has_a_role(type_, role):
    made = chat_message(message(type_, "said"))
    assert (made.role, made.text, made.id) == (role, "said", "1")


def test_a_tool_call_is_kept():
    calls = [{"name": "look", "args": {"where": "häuser"}, "id": "c1"}]
    [call] = chat_message(message("ai", "", tool_calls=calls)).tool_calls
    assert (call.name, call.arguments) == ("look", '{"where": "häuser"}')


def test_of_content_text_and_images_are_kept():
    blocks = [{"type": "text", "text": "see "}, PIXEL, {"type": "image", "url": "http://x/"}]
    made = chat_message(message("human", blocks))
    assert (made.text, made.images) == ("see ", (Image("image/gif", b"\x00\x01\x02"),))


def test_what_is_no_image_is_an_error():
    with pytest.raises(TranscriptError, match="not base64"):
        chat_message(message("human", [{**PIXEL, "base64": "?"}]))


def test_a_type_that_is_not_known_is_an_error():
    with pytest.raises(TranscriptError, match="'remove'"):
        chat_message(message("remove", ""))
