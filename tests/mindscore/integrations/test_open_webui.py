"""Open WebUI's export of chats."""

import json

import pytest
from tests.mindscore.readers.written import FIXTURES

from mindscore.readers.conversations import Conversations

EXPORT = FIXTURES / "open_webui.json"


@pytest.fixture
def said(tmp_path):
    """Read a chat in which the model says this."""

    def read(content):
        record = json.loads(EXPORT.read_text())[0]
        record["chat"]["history"]["messages"]["a1"]["content"] = content
        file = tmp_path / "chat-export.json"
        file.write_text(json.dumps(record))
        return Conversations(file).found[0]

    return read


def test_reasoning_and_calls_stand_in_a_response_as_html():
    _, _, called, result, answer = Conversations(EXPORT).found[0].messages
    assert called.reasoning == "She uses oak glue.\nSo."
    assert (result.tool_call_id, result.text) == ("c1", "Glue holds.")
    assert answer.text == "Oak glue."


def test_images_are_kept_and_what_is_not_read_is_counted():
    found = Conversations(EXPORT).found[0]
    assert [it.mime for it in found.messages[1].images] == ["image/png"]
    for what in (
        "messages on other branches",
        "attached files that the file only names",
        "lists of documents that were added to the prompt",
    ):
        assert f"{what} (1)" in found.remarks[-1]


def test_a_system_prompt_of_the_chat_is_its_first_message():
    found = Conversations(EXPORT).found[0]
    assert found.messages[0].role == "system"
    assert not any("no system prompt" in it for it in found.remarks)


@pytest.mark.parametrize(
    "text", ["", "<details>\n<summary>x</summary>\nmore\n</details>", '<details type="reasoning"']
)
def test_other_html_is_text(said, text):
    assert said(text).messages[2].text == text


def test_a_call_without_an_answer_yet_is_a_call(said):
    found = said(
        '<details type="tool_calls" done="false" id="c" name="look" arguments="{}"></details>'
    )
    assert [it.name for it in found.messages[2].tool_calls] == ["look"]
    assert len(found.messages) == 3


def test_very_much_html_that_nothing_closes_is_read_at_once(said):
    text = '<details type="reasoning" done="true">\n<summary>x</summary>\n' * 20_000
    assert said(text).messages[2].text == text
