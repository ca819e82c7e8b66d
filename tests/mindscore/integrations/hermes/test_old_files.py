"""Files of the time when the plugin had its own SQLite engine: they open, and nothing is lost."""

import json
import sqlite3
from contextlib import closing

import pytest

from mindscore.integrations.hermes.queue import TurnQueue
from mindscore.integrations.hermes.scoring import HermesFindings, MeasuredMemory

OLD_QUEUE = """
CREATE TABLE IF NOT EXISTS turns (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session TEXT NOT NULL,
    turns INTEGER NOT NULL,
    length INTEGER NOT NULL,
    size INTEGER NOT NULL,
    captured_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    about TEXT NOT NULL,
    messages BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS turns_by_session ON turns (session);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO turns (session, turns, length, size, captured_at, about, messages)
VALUES ('a', 2, 1, 34, 5.0, '{"model":"m"}', '[{"role":"user","content":"Hello"}]');
INSERT INTO facts VALUES ('dropped', 3), ('about', '{"model":"m"}');
"""
OLD_FINDINGS = """
CREATE TABLE IF NOT EXISTS memories (
    key TEXT PRIMARY KEY, text TEXT NOT NULL, seen_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS drops (
    key TEXT NOT NULL,
    model TEXT NOT NULL,
    response TEXT NOT NULL,
    divergence REAL NOT NULL,
    measured_at REAL NOT NULL,
    PRIMARY KEY (key, model, response)
);
CREATE TABLE IF NOT EXISTS candidates (
    response TEXT NOT NULL,
    model TEXT NOT NULL,
    divergence REAL NOT NULL,
    text TEXT NOT NULL,
    found_at REAL NOT NULL,
    PRIMARY KEY (response, model)
);
INSERT INTO memories VALUES ('hermes:memory:1', 'Tea', 5.0);
INSERT INTO drops VALUES ('hermes:memory:1', 'm', 'r', 1.5, 5.0);
INSERT INTO candidates VALUES ('r', 'm', 2.5, 'Yes.', 5.0);
"""


@pytest.fixture
def old(tmp_path):
    """Writes a file as it was written then."""

    def write(script):
        file = tmp_path / "old.sqlite3"
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(script)
        return file

    return write


def shape(file):
    """Tables, columns, keys and defaults, and indexes; a key of text could be NULL by name only."""
    with closing(sqlite3.connect(file)) as connection:
        names = connection.execute("SELECT type, name FROM sqlite_master").fetchall()
        columns = {
            table: [
                (name, default, key)
                for _, name, _, _, default, key in connection.execute(f"PRAGMA table_info({table})")
            ]
            for kind, table in names
            if kind == "table"
        }
        return sorted(names), {
            table: sorted(it, key=lambda column: column[0]) for table, it in columns.items()
        }


def test_an_old_queue_keeps_its_turns_and_takes_new_ones(old):
    queue = TurnQueue(old(OLD_QUEUE))
    waiting = queue.waiting()
    assert (waiting.turns, waiting.oldest, waiting.dropped) == (2, 5.0, 3)
    assert queue.put("a", [{"role": "user", "content": it} for it in "xyz"], {}) == 0
    turn = queue.next()
    assert (turn.id, turn.turns, len(turn.messages)) == (2, 3, 3)
    queue.close()


def test_an_old_queue_counts_on_what_it_dropped(old):
    queue = TurnQueue(old(OLD_QUEUE), limit=100)
    assert queue.put("b", [{"role": "user", "content": "x" * 80}], {}) == 3
    assert queue.waiting().dropped == 6
    queue.close()


def test_old_findings_are_read_and_replaced(old):
    findings = HermesFindings(old(OLD_FINDINGS))
    assert findings.models() == ["m"]
    assert findings.memories("m") == [MeasuredMemory("hermes:memory:1", "Tea", 1, 1.5, True)]
    assert [it.text for it in findings.candidates("m")] == ["Yes."]
    key = "hermes:memory:1"
    findings.record("m", {key: "Tea"}, {key: {"r": 0.5, "s": 0.25}}, [], 0)
    assert findings.memories("m") == [MeasuredMemory(key, "Tea", 2, 0.5, True)]
    findings.record("m", {}, {}, [], 1)
    assert findings.candidates("m") == []


@pytest.mark.parametrize(
    ("script", "make"),
    [
        (OLD_QUEUE, lambda file: TurnQueue(file).put("a", [], {})),
        (OLD_FINDINGS, lambda file: HermesFindings(file).record("m", {}, {}, [], 0)),
    ],
)
def test_a_new_file_has_the_tables_of_an_old_one(script, make, old, tmp_path):
    make(tmp_path / "new.sqlite3")
    assert shape(tmp_path / "new.sqlite3") == shape(old(script))


def test_the_version_of_old_files_stays(old):
    file = old(OLD_QUEUE)
    TurnQueue(file).put("b", [], {})
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (0,)
        [(told,)] = connection.execute("SELECT about FROM turns WHERE session = 'a'")
    assert json.loads(told) == {"model": "m"}
