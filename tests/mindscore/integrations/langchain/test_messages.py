"""LangChain's messages, of which only the attributes count; LangChain itself is in tests/hosts."""

from types import SimpleNamespace

import pytest

from mindhooks import Image
from mindscore._util.errors import TranscriptError
from mindscore.integrations.langchain.reader import chat_messages

PIXEL = {"type": "image", "base64": "AAEC", "mime_type": "image/gif"}


def message(type_, content, **more):
    return SimpleNamespace(type=type_, content=content, id="1", **more)


@pytest.mark.parametrize(
    ("type_", "role"),
    [("system", "system"), ("human", "user"), ("ai", "assistant"), ("tool", "tool")],
)
def test_each_type_has_a_role(type_, role):
    (made,) = chat_messages(message(type_, "said"))
    assert (made.role, made.text, made.id) == (role, "said", "1")


def test_a_tool_call_is_kept():
    calls = [{"name": "look", "args": {"where": "häuser"}, "id": "c1"}]
    [made] = chat_messages(message("ai", "", tool_calls=calls))
    [call] = made.tool_calls
    assert (call.name, call.arguments) == ("look", '{"where": "häuser"}')


def test_of_content_text_and_images_are_kept():
    blocks = [{"type": "text", "text": "see "}, PIXEL, {"type": "image", "url": "http://x/"}]
    (made,) = chat_messages(message("human", blocks))
    assert (made.text, made.images) == ("see ", (Image("image/gif", b"\x00\x01\x02"),))


def test_what_is_no_image_is_an_error():
    with pytest.raises(TranscriptError, match="not base64"):
        chat_messages(message("human", [{**PIXEL, "base64": "?"}]))


def test_a_type_that_is_not_known_is_an_error():
    with pytest.raises(TranscriptError, match="'remove'"):
        chat_messages(message("remove", ""))


def test_what_stands_beside_the_text_is_kept():
    extra = {"reasoning_content": "hm", "tool_calls": [{"function": {"name": "f"}, "id": "c1"}]}
    (made,) = chat_messages(message("ai", "said", additional_kwargs=extra))
    assert made.reasoning == "hm"
    assert [(it.name, it.id) for it in made.tool_calls] == [("f", "c1")]
    (made,) = chat_messages(message("tool", "3", tool_call_id="c1", name="f"))
    assert (made.tool_call_id, made.name) == ("c1", "f")


def test_a_response_that_searched_on_the_server_is_two_with_the_result_between():
    blocks = [
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": "found"},
        {"type": "text", "text": "So."},
    ]
    made = chat_messages(message("ai", blocks))
    assert [(it.role, it.text) for it in made] == [
        ("assistant", ""),
        ("tool", "found"),
        ("assistant", "So."),
    ]
