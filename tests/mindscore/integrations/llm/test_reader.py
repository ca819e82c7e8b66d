"""llm's logs.db, as llm 0.36, 0.31, and 0.36 after 0.31 wrote it (fixtures/llm-*.sql)."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from mindhooks import Image
from mindscore._util.errors import TranscriptError
from mindscore.integrations.llm.reader import LlmLogsReader, logged, one_logged
from mindscore.readers.source import Source
from mindscore.recognisers import MemoryFinder

FIXTURES = Path(__file__).parents[2] / "readers" / "fixtures"
KEY = "The deploy key is blue-42."
NOTES, STYLE = "The deploy key is blue-42.\n", "  Be terse.\n"
BOTH = ["0.36", "0.31"]
NO_VIEWS = "DROP VIEW message_tree;"


@pytest.fixture
def logs(tmp_path):
    """Makes the database that a version left, then changed by ``changes``."""

    def make(version, *changes):
        file = tmp_path / "logs.db"
        file.unlink(missing_ok=True)
        with closing(sqlite3.connect(file)) as connection:
            connection.executescript((FIXTURES / f"llm-{version}.sql").read_text(encoding="utf-8"))
            for change in changes:
                connection.executescript(change)
            connection.commit()
        return file

    return make


def read(file):
    return LlmLogsReader().read(Source(file))


def sent(conversation, *skipped):
    """The messages without some fragments, as role and text; a whole one is not sent at all."""
    transcript = conversation.transcript(Path("logs.db"), MemoryFinder())
    return [
        (message.role, message.text_without(frozenset(skipped)) if message.parts else message.text)
        for message in (*transcript.system, *transcript.identity, *transcript.conversation)
        if message.memory_key not in skipped
    ]


@pytest.mark.parametrize("version", BOTH)
def test_a_message_without_a_fragment_is_what_llm_sends_without_it(logs, version):
    first, alone, plain, twice, tools = read(logs(version))
    style = "/tmp/notes/style.md"
    answer = ("assistant", KEY)
    assert sent(first) == [
        ("system", "Be terse.\n\nYou help."),
        ("user", f"{NOTES}\n{STYLE}\nwhat is the key?"),
        answer,
        ("user", f"{STYLE}\nagain?"),
        answer,
    ]
    assert sent(first, "notes") == [
        ("system", "Be terse.\n\nYou help."),
        ("user", f"{STYLE}\nwhat is the key?"),
        answer,
        ("user", f"{STYLE}\nagain?"),
        answer,
    ]
    assert sent(first, style) == [
        ("system", "You help."),
        ("user", f"{NOTES}\nwhat is the key?"),
        answer,
        ("user", "again?"),
        answer,
    ]
    assert sent(first, style, "notes")[1] == ("user", "what is the key?")
    assert (sent(alone), sent(alone, "notes")) == ([("user", NOTES), answer], [answer])
    assert sent(plain) == [("user", "hello"), answer]
    assert sent(twice, "notes") == [("user", "twice?"), answer]
    assert [role for role, _ in sent(tools)] == ["system", "user", "assistant", "tool", "assistant"]
    assert sent(tools, style) == sent(tools)[1:]
    assert [call.name for call in tools.messages[2].tool_calls] == ["llm_time"]
    assert "definitions are not part of the prompt" in tools.remarks[0]
    assert (first.remarks, plain.remarks) == ((), ())


@pytest.mark.parametrize("version", BOTH)
def test_a_response_keeps_its_time_and_its_id(logs, version):
    responses = [
        message
        for conversation in read(logs(version))
        for message in conversation.messages
        if message.role == "assistant"
    ]
    stamps = [message.timestamp_ns for message in responses]
    assert stamps == sorted(set(stamps))
    assert len({message.id for message in responses}) == len(responses) == 7


def test_a_conversation_that_a_newer_llm_went_on_with_is_one(logs):
    [conversation] = read(logs("0.31-0.36"))
    assert sent(conversation) == [
        ("system", "Be terse."),
        ("user", f"{NOTES}\nwhat is the key?"),
        ("assistant", KEY),
        ("user", f"{STYLE}\nagain?"),
        ("assistant", KEY),
    ]
    assert sent(conversation, "/tmp/notes/notes.md", "/tmp/notes/style.md") == [
        ("user", "what is the key?"),
        ("assistant", KEY),
        ("user", "again?"),
        ("assistant", KEY),
    ]
    assert all(it.timestamp_ns for it in conversation.messages if it.role == "assistant")


def test_a_fragment_is_called_by_its_alias_its_source_or_its_hash(logs):
    file = logs("0.36", "UPDATE fragments SET source = NULL WHERE id = 2")
    keys = read(file)[0].transcript(file, MemoryFinder()).keys()
    assert sorted(keys) == ["b1c7ee39c66e", "notes"]


def test_a_fork_has_the_fragments_of_the_thread_that_it_left(logs):
    fork = (
        "INSERT INTO threads SELECT 'z', 'forked', parent_message_hash, thread_id, datetime_utc "
        "FROM turns ORDER BY id LIMIT 1"
    )
    *_, forked = read(logs("0.36", fork))
    assert sent(forked, "notes")[1] == ("user", f"{STYLE}\nwhat is the key?")


def test_text_that_only_looks_like_a_fragment_is_none(logs):
    """Stored by reference, because it says what a fragment says, but typed by somebody."""
    file = logs("0.36", "DELETE FROM turn_fragments")
    first, *_ = read(file)
    assert sent(first)[1] == ("user", f"{NOTES}\n{STYLE}\nwhat is the key?")
    assert first.transcript(file, MemoryFinder()).keys() == []


def test_fragments_that_the_message_does_not_print_are_said(logs):
    first, *_ = read(logs("0.36", "UPDATE parts SET payload = NULL, text = 'other' WHERE id = 2"))
    assert any("does not print its fragments" in remark for remark in first.remarks)


def test_of_attachments_images_in_the_database_are_kept_and_others_are_said(logs):
    attachments = (
        "INSERT INTO attachments (id, type, content) VALUES ('a1', 'image/png', x'0102');"
        "INSERT INTO attachments (id, type, path) VALUES ('a2', 'image/png', '/no/such.png');"
    )
    parts = "".join(
        "INSERT INTO parts (message_hash, position, type, payload) SELECT message_hash, "
        f'{position}, \'attachment\', \'{{"attachment": {{"id": "{id_}"}}}}\' FROM parts '
        "WHERE id = 2;"
        for position, id_ in ((1, "a1"), (2, "a2"))
    )
    first, *_ = read(logs("0.36", attachments + parts))
    assert first.messages[1].images == (Image("image/png", b"\x01\x02"),)
    assert first.remarks == (
        "attachments that are no images, or not in the database, are left out",
    )


def test_reasoning_is_left_out_and_said(logs):
    thought = (
        "INSERT INTO parts (message_hash, position, type, text) "
        "SELECT message_hash, 1, 'reasoning', 'Hm.' FROM parts WHERE id = 3"
    )
    first, *_ = read(logs("0.36", thought))
    assert first.messages[2].text == KEY
    assert first.remarks == ("parts of type reasoning are left out",)


def test_turns_beside_the_last_one_are_said(logs):
    change = (
        "UPDATE threads SET tip_message_hash = (SELECT parent_message_hash FROM turns "
        "ORDER BY id LIMIT 1) WHERE id = (SELECT thread_id FROM turns ORDER BY id LIMIT 1)"
    )
    first, *_ = read(logs("0.36", change))
    assert len(first.messages) == 2
    assert "left out" in first.remarks[0]


def test_the_newest_come_first_and_those_without_fragments_may_be_passed_over(logs):
    file = logs("0.36")
    names = [it.name for it in logged(file)]
    assert names == sorted(names, reverse=True)
    with_fragments = [it.name for it in logged(file, fragments_only=True)]
    assert set(names) - set(with_fragments) == {it.name for it in read(file) if it.title == "hello"}
    assert one_logged(file, names[0]).name == names[0]
    assert one_logged(file, "nowhere") is None


@pytest.mark.parametrize("version", [*BOTH, "0.31-0.36"])
def test_it_knows_its_files(logs, version, tmp_path):
    assert LlmLogsReader().detects(Source(logs(version)))
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE turns (id)")
        connection.commit()
    assert not LlmLogsReader().detects(Source(other))
    text = tmp_path / "logs.jsonl"
    text.write_text('{"role": "user", "content": "hi"}\n')
    assert not LlmLogsReader().detects(Source(text))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "UPDATE messages SET parent_hash = 'b2:0' WHERE role = 'system'",
            "message b2:0: is missing",
        ),
        ("UPDATE messages SET parent_hash = hash", "is missing, or precedes itself"),
        ("UPDATE messages SET role = 'oracle'", "has the role 'oracle'"),
        ("UPDATE parts SET payload = '{' WHERE id = 2", "part 2: is not valid JSON"),
        ("UPDATE parts SET payload = '[1]' WHERE id = 2", "part 2: is not valid JSON"),
        (
            "UPDATE parts SET payload = '{\"text_ref\": [3]}' WHERE id = 2",
            "part 2: holds what is neither text nor a fragment",
        ),
        ("UPDATE parts SET text = x'ff' WHERE id = 1", "column text: expected text, got bytes"),
        ("DELETE FROM fragments WHERE id = 2", "fragment 2: is missing"),
        ("UPDATE turns SET datetime_utc = 'noon'", "'noon' is not an ISO 8601 timestamp"),
        (f"{NO_VIEWS} ALTER TABLE turns DROP COLUMN schema_id", "no such column: schema_id"),
    ],
)
def test_damage_is_an_error_of_one_line_with_the_records_place(logs, change, says):
    file = logs("0.36", change)
    with pytest.raises(TranscriptError) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}, ")
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_cut_short_is_an_error_of_one_line(logs):
    file = logs("0.36")
    file.write_bytes(file.read_bytes()[:6000])
    with pytest.raises(TranscriptError, match="malformed") as caught:
        read(file)
    assert len(str(caught.value).splitlines()) == 1


def test_reading_changes_nothing(logs):
    file = logs("0.36")
    before = file.read_bytes()
    file.chmod(0o400)
    read(file)
    assert file.read_bytes() == before
    assert [it.name for it in file.parent.iterdir()] == ["logs.db"]


def test_a_thousand_turns_are_read_in_about_a_second(logs):
    file = logs("0.36")
    first = "SELECT id, tip_message_hash FROM threads ORDER BY id"
    with closing(sqlite3.connect(file)) as connection:
        thread, parent = connection.execute(first).fetchone()
        for number in range(1000):
            for role in ("user", "assistant"):
                hash_ = f"b2:{role}{number}"
                connection.execute(
                    "INSERT INTO messages (hash, parent_hash, role) VALUES (?, ?, ?)",
                    (hash_, parent, role),
                )
                connection.execute(
                    "INSERT INTO parts (message_hash, position, type, text) "
                    "VALUES (?, 0, 'text', ?)",
                    (hash_, f"{role} {number}"),
                )
                parent = hash_
            connection.execute(
                "INSERT INTO turns (id, thread_id, parent_message_hash, tip_message_hash, model, "
                "datetime_utc) VALUES (?, ?, ?, ?, 'm', '2026-11-23T08:00:00+00:00')",
                (f"turn{number:04}", thread, f"b2:user{number}", parent),
            )
        connection.execute("UPDATE threads SET tip_message_hash = ? WHERE id = ?", (parent, thread))
        connection.commit()
    began = time.perf_counter()
    first, *_ = read(file)
    took = time.perf_counter() - began
    assert len(first.messages) == 2005
    assert took < 3
