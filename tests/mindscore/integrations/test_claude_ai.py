"""Claude.ai's data export."""

import json

import pytest
from tests.mindscore.readers.written import FIXTURES

from mindscore.readers.conversations import Conversations

EXPORT = FIXTURES / "claude_ai.json"


@pytest.fixture
def export(tmp_path):
    """Write the export, with changes to its conversation, and read it."""

    def write(**changes):
        record = json.loads(EXPORT.read_text())[0]
        file = tmp_path / "conversations.json"
        file.write_text(json.dumps([{**record, **changes}]))
        return Conversations(file).found[0]

    return write


def test_blocks_and_the_text_of_attachments_are_read_on_the_current_branch():
    asked, called, result, answer = Conversations(EXPORT).found[0].messages
    assert (asked.role, asked.text) == ("user", "The mast is of ash.\n\nWhich glue?")
    assert [(it.name, json.loads(it.arguments)) for it in called.tool_calls] == [
        ("web_search", {"query": "glue"})
    ]
    assert called.reasoning == "She builds boats."
    assert (result.role, result.text, result.tool_call_id) == ("tool", "Glue holds.", "tu1")
    assert (answer.role, answer.text) == ("assistant", "Oak glue.")


def test_what_is_not_read_is_counted():
    remarks = Conversations(EXPORT).found[0].remarks
    assert remarks[0].startswith("Claude's own system prompt")
    assert "text of attachments" in remarks[1]
    for what in ("messages on other branches", "attached files that the file only names"):
        assert f"{what} (1)" in remarks[-1]
    assert "token_budget (1)" in remarks[-1]


def test_memories_beside_the_file_are_memories_as_of_the_export(export, tmp_path):
    assert [it.role for it in export().messages] == ["user", "assistant", "tool", "assistant"]
    memory = {
        "conversations_memory": "Ines builds boats.",
        "project_memories": {"p1": "The mast is of ash.", "p2": "Of another project."},
        "account_uuid": "acc",
    }
    (tmp_path / "memories.json").write_text(json.dumps([memory]))
    found = export()
    assert [(it.memory_key, it.text) for it in found.messages[:2]] == [
        ("conversations_memory", "Ines builds boats."),
        ("project_memories/p1", "The mast is of ash."),
    ]
    assert any("as of the export" in it for it in found.remarks)
    assert [it.memory_key for it in export(project=None).messages[:2]] == [
        "conversations_memory",
        None,
    ]


def test_messages_without_parents_are_read_in_their_order(export):
    messages = [
        {"sender": "human", "text": "Hello", "content": []},
        {"sender": "assistant", "text": "Hi"},
    ]
    said = [(it.role, it.text) for it in export(chat_messages=messages).messages]
    assert said == [("user", "Hello"), ("assistant", "Hi")]


def test_a_damaged_message_is_left_out_with_its_place(export):
    messages = [{"sender": "human", "text": "Hello"}, {"sender": "nobody", "text": "x"}, 3]
    found = export(chat_messages=messages)
    assert [it.text for it in found.messages] == ["Hello"]
    assert any("message 2: 'sender': expected one of human" in it for it in found.remarks)
    assert any("message 3: expected an object, got a number" in it for it in found.remarks)
