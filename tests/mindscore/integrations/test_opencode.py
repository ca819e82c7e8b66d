"""OpenCode: exports and a database in the shape that 1.18.33 wrote."""

import json
import sqlite3

import pytest

from mindhooks import Image
from mindscore._util.errors import TranscriptError
from mindscore.readers.conversations import Conversations
from mindscore.readers.reading import NO_SYSTEM, NO_TOOLS

from ..readers.written import FIXTURES
from .conftest import said

EXPORT = json.loads((FIXTURES / "opencode.json").read_text(encoding="utf-8"))
SCHEMA = """
create table session (id text primary key, title text not null, revert text);
create table message (id text primary key, session_id text, time_created integer, data text);
create table part (id text primary key, message_id text, session_id text, data text);
"""


def stored(file, *exports):
    """Write a database of sessions."""
    with sqlite3.connect(file) as database:
        database.executescript(SCHEMA)
        for export in exports:
            info = export["info"]
            revert = info.get("revert") and {"messageID": info["id"] + info["revert"]["messageID"]}
            row = (info["id"], info["title"], json.dumps(revert))
            database.execute("insert into session values (?, ?, ?)", row)
            for message in export["messages"]:
                own = dict(message["info"])
                key = f"{info['id']}{own.pop('id')}"
                own["parentID"] = f"{info['id']}{own.get('parentID')}"
                row = (key, info["id"], own["time"]["created"], json.dumps(own))
                database.execute("insert into message values (?, ?, ?, ?)", row)
                for at, part in enumerate(message["parts"]):
                    row = (f"{key}{at}", key, info["id"], json.dumps(part))
                    database.execute("insert into part values (?, ?, ?, ?)", row)
    database.close()
    return Conversations(file)


def export(*messages, **info):
    return {"info": {"id": "s", "title": "T", **info}, "messages": list(messages)}


def message(role, id_, *parts, **own):
    return {"info": {"role": role, "id": id_, "time": {"created": 1}, **own}, "parts": list(parts)}


def text(said):
    return {"type": "text", "text": said}


def test_a_session_is_read_as_it_stands_at_its_end(read):
    conversations = read("opencode.json")
    assert conversations.format == "opencode"
    [conversation] = conversations.found
    assert (conversation.id, conversation.title) == ("ses_1", "Glue for a boat")
    assert said(conversation) == [
        ("user", "What did we do so far?"),
        ("assistant", "She builds a boat of oak."),
        ("user", "Which glue?"),
        ("assistant", "I look."),
        ("tool", "glue.txt"),
        ("tool", "not found"),
        ("tool", "[Old tool result content cleared]"),
        ("tool", "[Tool execution was interrupted]"),
        ("assistant", "Oak glue."),
        ("user", "And screws?"),
        ("assistant", "Brass."),
    ]
    asked, looked, result = conversation.messages[2:5]
    assert asked.images == (Image("image/png", b"\x89PNG\r\n\x1a\n"),)
    assert looked.reasoning == "I should look."
    assert [it.id for it in looked.tool_calls] == ["call_1", "call_2", "call_3", "call_4"]
    assert looked.tool_calls[0].arguments == '{"command": "ls"}'
    assert (result.tool_call_id, result.name) == ("call_1", "bash")
    assert looked.timestamp_ns == 1_777_629_601_250 * 10**6


def test_what_is_left_out_is_counted(read):
    [conversation] = read("opencode.json").found
    no_system, no_tools, summary, left_out = conversation.remarks
    assert (no_system, no_tools) == (NO_SYSTEM, NO_TOOLS)
    assert summary == "the file, message 4: a summary stands where a response would"
    for it in (
        "messages that were taken back (2)",
        "messages before a compaction (2)",
        "images and files that tools returned (1)",
        "responses that failed (1)",
        "novel (1)",
    ):
        assert it in left_out


def test_a_compaction_may_keep_a_tail(read):
    content = export(
        message("user", "1", text("a")), message("assistant", "2", text("b")),
        message("user", "3", text("c")), message("assistant", "4", text("d")),
        message("user", "5", {"type": "compaction", "tail_start_id": "3"}),
        message("assistant", "6", text("S"), parentID="5", summary=True, finish="stop"),
        message("user", "7", text("e")), message("assistant", "8", text("f")),
    )  # fmt: skip
    [conversation] = read(json.dumps(content).encode()).found
    texts = [it for _, it in said(conversation)]
    assert texts == ["What did we do so far?", "S", "c", "d", "e", "f"]
    assert "messages before a compaction (2)" in conversation.remarks[-1]


def test_a_compaction_that_did_not_end_changes_nothing(read):
    content = export(
        message("user", "1", text("a")), message("user", "2", {"type": "compaction"}),
        message("assistant", "3", text("S"), parentID="2", summary=True),
    )  # fmt: skip
    [conversation] = read(json.dumps(content).encode()).found
    assert len(conversation.messages) == 3


def test_a_database_has_the_same_sessions(tmp_path, read):
    other = {**EXPORT, "info": {**EXPORT["info"], "id": "ses_2", "revert": None}}
    conversations = stored(tmp_path / "opencode.db", EXPORT, other)
    assert conversations.format == "opencode"
    first, second = conversations.found
    [exported] = read("opencode.json").found
    assert (first.id, second.id) == ("ses_1", "ses_2")
    assert said(Conversations(tmp_path / "opencode.db").chosen("ses_2")) == said(second)
    assert said(second)[:-2] == said(exported)
    assert [text for _, text in said(second)[-2:]] == ["And paint?", "Blue."]


def test_a_row_that_is_not_valid_is_left_out_with_its_id(tmp_path):
    file = tmp_path / "opencode.db"
    stored(file, EXPORT)
    with sqlite3.connect(file) as database:
        database.execute("update message set data = '{' where id = 'ses_1msg_7'")
    database.close()
    [conversation] = Conversations(file).found
    assert ("assistant", "Oak glue.") not in said(conversation)
    assert "message ses_1msg_7: is not valid JSON" in "\n".join(conversation.remarks)


def test_a_message_that_is_not_valid_is_left_out_with_its_place(read):
    bad = [message("user", "2", {"type": "text", "text": 3}), message("x", "3", text("x"))]
    content = export(message("user", "1", text("a")), *bad, message("assistant", "4", text("b")))
    [conversation] = read(json.dumps(content).encode()).found
    assert said(conversation) == [("user", "a"), ("assistant", "b")]
    remarks = "\n".join(conversation.remarks)
    assert "message 2: 'content.text': expected text" in remarks
    assert "message 3: 'role': expected" in remarks


@pytest.mark.parametrize("messages", [[], [message("user", "1")]])
def test_sessions_without_messages_are_refused(refused, messages):
    error = refused(json.dumps(export(*messages)).encode())
    assert "expected an array of messages" in error or error.endswith("holds no conversations")


def test_a_database_without_messages_is_refused(tmp_path):
    with pytest.raises(TranscriptError, match="holds no conversations"):
        stored(tmp_path / "opencode.db", export())
