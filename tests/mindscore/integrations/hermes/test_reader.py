"""Hermes' sessions: what it exports, and its database; both fixtures are by hermes-agent 0.19.0."""

import json
import os
import sqlite3
import stat
from contextlib import closing

import pytest

from mindscore._util.errors import TranscriptError
from mindscore.integrations.hermes.reader import TOOLS_UNRECORDED, HermesReader
from mindscore.readers.conversations import Conversations
from mindscore.readers.reading import NO_SYSTEM
from mindscore.readers.source import Source
from mindscore.recognisers import MemoryFinder

from ...readers.written import FIXTURES

EXPORT = FIXTURES / "hermes.jsonl"
LEASE = "20261123_090000_abcdef"


def make_database(file):
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript((FIXTURES / "hermes_state.sql").read_text())
    return file


@pytest.fixture
def database(tmp_path):
    return make_database(tmp_path / "state.db")


def read(file):
    source = Source(file)
    assert HermesReader().detects(source)
    return {it.name: it for it in HermesReader().read(source)}


def change(file, *statements):
    with closing(sqlite3.connect(file)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.fixture(params=["export", "database"])
def sessions(request, database):
    return read(EXPORT if request.param == "export" else database)


def test_each_session_is_a_conversation(sessions) -> None:
    assert len(sessions) == 2
    assert sessions[LEASE].title == "The lease"


def test_tool_calls_and_results_are_in_it_and_what_was_taken_back_is_not(sessions) -> None:
    messages = sessions[LEASE].messages
    assert [(it.role, it.text) for it in messages] == [
        ("user", "When does the lease end?"),
        ("assistant", ""),
        ("tool", "In May."),
        ("assistant", "It ends in May."),
    ]
    [call] = messages[1].tool_calls
    assert (call.name, json.loads(call.arguments)) == ("read_file", {"path": "lease.txt"})


def test_messages_have_hermes_ids_and_times(sessions) -> None:
    for conversation in sessions.values():
        spoken = [it for it in conversation.messages if it.role != "system"]
        assert all(it.id and it.timestamp_ns > 1.7e18 for it in spoken)


def test_memories_of_both_kinds_are_found_in_what_was_sent(sessions) -> None:
    [other] = sessions.keys() - {LEASE}
    transcript = sessions[other].transcript(EXPORT, MemoryFinder())
    keys = transcript.keys()
    assert [key.split(":")[1] for key in keys] == ["memory", "memory", "user", "recall", "recall"]


def test_what_is_not_recorded_is_said(sessions) -> None:
    [other] = sessions.keys() - {LEASE}
    assert sessions[other].remarks == (TOOLS_UNRECORDED,)
    assert sessions[LEASE].remarks == (NO_SYSTEM, TOOLS_UNRECORDED)
    assert "Look it up." in [message.reasoning for message in sessions[LEASE].messages]


def test_messages_come_in_the_order_of_their_ids(database) -> None:
    change(database, "UPDATE messages SET timestamp = 2e9 - id")
    assert [it.text for it in read(database)[LEASE].messages][-1] == "It ends in May."


def test_columns_that_are_not_there_or_not_known_are_no_matter(database) -> None:
    change(
        database,
        *(
            f"ALTER TABLE messages DROP COLUMN {it}"
            for it in ("active", "compacted", "api_content")
        ),
        "ALTER TABLE sessions DROP COLUMN title",
        "ALTER TABLE messages ADD COLUMN mood TEXT DEFAULT 'fine'",
    )
    assert read(database)[LEASE].messages[-1].text == "Forget this."


def test_what_is_still_in_the_log_is_read(database) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE messages SET content = 'It ends in June.' WHERE id = 6")
        connection.commit()
        assert database.with_name("state.db-wal").stat().st_size
        assert read(database)[LEASE].messages[-1].text == "It ends in June."


def test_a_database_is_not_changed_by_reading(database) -> None:
    before = database.read_bytes()
    read(database)
    assert database.read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_database_in_a_folder_that_cannot_be_written_is_read(database) -> None:
    database.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert len(read(database)) == 2
    finally:
        database.parent.chmod(stat.S_IRWXU)


def test_a_log_that_cannot_be_read_is_not_passed_over(database) -> None:
    database.with_name("state.db-wal").mkdir()
    with pytest.raises(TranscriptError, match="the database: cannot be read"):
        read(database)


def test_a_database_of_something_else_is_not_hermes(tmp_path) -> None:
    file = tmp_path / "other.db"
    change(file, "CREATE TABLE sessions (id)", "CREATE TABLE messages (id, role, content)")
    assert not HermesReader().detects(Source(file))


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ("UPDATE messages SET tool_calls = '[{' WHERE id = 4", "message 4"),
        ("UPDATE messages SET role = 'robot' WHERE id = 4", "message 4"),
        ("UPDATE messages SET timestamp = 1e300 WHERE id = 4", "message 4"),
        ("UPDATE messages SET content = char(0) || 'json:[' WHERE id = 3", "message 3"),
        ("UPDATE messages SET content = x'ff' WHERE id = 3", "message 3"),
    ],
)
def test_a_damaged_row_is_left_out_and_named(database, wrong, where) -> None:
    whole = {it.name: it for it in Conversations(database)}
    change(database, wrong)
    damaged = {it.name: it for it in Conversations(database)}
    assert len(damaged[LEASE].messages) == len(whole[LEASE].messages) - 1
    assert f"left out: 1 record that is not valid: {where}: " in damaged[LEASE].remarks[-1]


def test_rows_that_hermes_passes_over_are_passed_over(database) -> None:
    before = read(database)
    change(
        database,
        f"INSERT INTO messages (id, session_id, role, timestamp) VALUES (-1, '{LEASE}', "
        "'session_meta', 1)",
        f"INSERT INTO messages (id, session_id, role, content, timestamp) VALUES (-2, '{LEASE}', "
        "'system', 'You help.', 1)",
    )
    assert read(database) == before


def test_rows_that_hermes_passes_over_are_passed_over_in_an_export(tmp_path) -> None:
    rows = [
        {"role": "session_meta", "content": "x", "timestamp": "2026-01-01T00:00:00"},
        {"role": "user", "content": "How much?"},
        {"role": "assistant", "content": "Three."},
    ]
    file = tmp_path / "sessions.jsonl"
    file.write_text(json.dumps({"id": "a", "system_prompt": "You help.", "messages": rows}))
    [conversation] = Conversations(file)
    assert [it.role for it in conversation.messages] == ["system", "user", "assistant"]
    assert conversation.remarks == (TOOLS_UNRECORDED,)


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ('{"system_prompt": "", "messages": 3}', "line 1"),
        ('{"system_prompt": "", "messages": [3]}', "line 1, message 1"),
        ('{"system_prompt": 3, "messages": []}', "line 1"),
        (
            '{"system_prompt": "", "messages": [{"role": "user", "timestamp": []}]}',
            "line 1, message 1",
        ),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, where) -> None:
    file = tmp_path / "sessions.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(TranscriptError) as caught:
        Conversations(file)
    assert str(caught.value).startswith(f"{file}, {where}: ")


def test_a_damaged_database_is_refused(database) -> None:
    content = bytearray(database.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    database.write_bytes(content)
    with pytest.raises(TranscriptError, match="cannot be read"):
        read(database)
