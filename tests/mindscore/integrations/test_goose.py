"""Goose: sessions after its source, as exports, lines and rows of a database."""

import json
import sqlite3

import pytest

from mindscore._util.errors import TranscriptError
from mindscore.readers.conversations import Conversations
from mindscore.readers.reading import NO_SYSTEM, NO_TOOLS

from ..readers.written import FIXTURES
from .conftest import said

EXPORT = json.loads((FIXTURES / "goose.json").read_text(encoding="utf-8"))
SCHEMA = """
create table sessions (id text primary key, name text, description text, working_dir text not null);
create table messages (id integer primary key autoincrement, message_id text, session_id text,
    role text, content_json text not null, created_timestamp integer, metadata_json text);
"""


def stored(file, *exports):
    """Write a database of sessions."""
    with sqlite3.connect(file) as database:
        database.executescript(SCHEMA)
        for export in exports:
            row = (export["id"], export["name"], "", "/p")
            database.execute("insert into sessions values (?, ?, ?, ?)", row)
            for it in export["conversation"]:
                database.execute(
                    "insert into messages values (null, ?, ?, ?, ?, ?, ?)",
                    (
                        it["id"], export["id"], it["role"], json.dumps(it["content"]),
                        it["created"], json.dumps(it["metadata"]),
                    ),
                )  # fmt: skip
    database.close()
    return Conversations(file)


SAID = [
    ("user", "Summary: she builds a boat of oak."),
    ("user", "Which glue?"),
    ("assistant", "I look."),
    ("tool", "glue.txt"),
    ("tool", "-32603: not found"),
    ("assistant", "Oak glue."),
    ("user", "And screws?"),
    ("assistant", "Brass."),
]


def test_an_export_is_read_as_the_model_sees_it(read):
    conversations = read("goose.json")
    assert conversations.format == "goose"
    [conversation] = conversations.found
    assert (conversation.id, conversation.title) == ("20260501_1", "Glue for a boat")
    assert said(conversation) == SAID
    looked, first, second = conversation.messages[2:5]
    assert (looked.id, looked.reasoning) == ("msg_3", "I should look.")
    assert [(it.name, it.arguments, it.id) for it in looked.tool_calls] == [
        ("developer__shell", '{"command": "ls"}', "call_1"),
        ("view", "{}", "call_2"),
    ]
    assert (first.tool_call_id, second.tool_call_id) == ("call_1", "call_2")
    assert looked.timestamp_ns == 1_777_629_603 * 10**9


def test_what_is_not_recorded_or_left_out_is_said(read):
    [conversation] = read("goose.json").found
    no_system, no_tools, left_out = conversation.remarks
    assert (no_system, no_tools) == (NO_SYSTEM, NO_TOOLS)
    for it in (
        "messages that are hidden from the model (2)",
        "reasoning that is encrypted (1)",
        "novel (1)",
    ):
        assert it in left_out


def test_a_database_has_the_same_sessions(tmp_path):
    conversations = stored(tmp_path / "sessions.db", EXPORT, {**EXPORT, "id": "20260501_2"})
    assert conversations.format == "goose"
    first, second = conversations.found
    assert said(first) == said(second) == SAID
    assert (first.id, second.id) == ("20260501_1", "20260501_2")
    assert first.title == "Glue for a boat"
    assert Conversations(tmp_path / "sessions.db").chosen("20260501_2").id == "20260501_2"


def test_a_row_that_is_not_valid_is_left_out_with_its_id(tmp_path):
    stored(tmp_path / "sessions.db", EXPORT)
    with sqlite3.connect(tmp_path / "sessions.db") as database:
        database.execute("update messages set content_json = '[{' where id = 7")
    database.close()
    [conversation] = Conversations(tmp_path / "sessions.db").found
    assert ("assistant", "Oak glue.") not in said(conversation)
    assert "message 7: " in conversation.remarks[-1]


def test_an_older_file_has_a_message_a_line(read):
    head = {"working_dir": "/p", "description": "Glue", "message_count": 9}
    old = {key: value for key, value in EXPORT["conversation"][2].items() if key != "metadata"}
    old["content"] = [{"type": "toolConfirmationRequest", "id": "x"}]
    lines = [head, old, *EXPORT["conversation"]]
    content = "".join(json.dumps(it) + "\n" for it in lines).encode()
    [conversation] = read(content + b'{"role": "assi').found
    assert (conversation.id, conversation.title) == ("talk", "Glue")
    assert said(conversation) == SAID
    assert said(read(content).chosen("talk")) == SAID
    assert "line 12: is not valid JSON" in conversation.remarks[-1]


def test_a_message_that_is_not_valid_is_left_out_with_its_place(read):
    bad = {"role": "assistant", "content": [{"type": "toolRequest", "id": "c", "toolCall": {}}]}
    export = {**EXPORT, "conversation": [*EXPORT["conversation"], bad, 3]}
    [conversation] = read(json.dumps(export).encode()).found
    assert said(conversation) == SAID
    assert "message 10: a tool call's 'name'" in conversation.remarks[-1]
    assert "message 11: 'role': expected" in conversation.remarks[-1]


def test_sessions_without_messages_are_refused(tmp_path, refused):
    empty = {**EXPORT, "conversation": []}
    assert refused(json.dumps(empty).encode()).endswith("holds no conversations")
    with pytest.raises(TranscriptError, match="holds no conversations"):
        stored(tmp_path / "sessions.db", empty)
