"""Files as programs leave them, damaged or hostile: read past it, interrupted, and named."""

import gzip
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from mindscore._util.errors import TranscriptError
from mindscore.integrations.hermes.reader import HermesReader
from mindscore.readers import database
from mindscore.readers.source import Source

ENDLESS = (
    "WITH RECURSIVE n(i, j) AS (SELECT 1, 's' UNION ALL SELECT i + 1, j FROM n) "
    "SELECT i AS id, j AS session_id, 'user' AS role, 'x' AS content, 'y' AS system_prompt "
    "FROM n WHERE i < 0"
)


@pytest.fixture
def endless(tmp_path):
    """A database of Hermes' shape, whose messages are a view without end."""
    file = tmp_path / "state.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE sessions (id TEXT, system_prompt TEXT)")
        connection.execute("INSERT INTO sessions VALUES ('s', '')")
        connection.execute(f"CREATE VIEW messages AS {ENDLESS}")
        connection.commit()
    return file


def test_a_view_without_end_is_given_up(endless, monkeypatch):
    monkeypatch.setattr(database, "MAX_READING_S", 0.5)
    with pytest.raises(TranscriptError, match=r"state\.db, the database: is not read within"):
        list(HermesReader().read(Source(endless)))


def test_the_time_between_two_rows_is_not_the_databases(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "MAX_READING_S", 3)
    monkeypatch.setattr(database, "_STEPS", 1)
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.executemany("INSERT INTO t VALUES (?)", [("x",)] * 2)
        connection.commit()
    with Source(tmp_path / "state.db").database() as opened:
        rows = opened.execute("SELECT a FROM t")
        next(rows)
        later = time.monotonic() + 1000
        monkeypatch.setattr(database.time, "monotonic", lambda: later)
        assert next(rows)["a"] == "x"


def holds(process, file):
    """Return whether ``process`` has ``file`` open."""
    found = set()
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(OSError):
            found.add(descriptor.readlink())
    return file in found


@pytest.mark.skipif(sys.platform != "linux", reason="open files are read from /proc")
def test_an_interrupt_ends_the_reading_of_a_view_without_end(endless):
    reading = subprocess.Popen(
        [sys.executable, "-P", "-m", "mindscore", "list", str(endless)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        # Not before: what Python says of an interrupt while it starts is its own.
        until = time.monotonic() + 60
        while not holds(reading, endless):
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.5)
        assert reading.poll() is None
        reading.send_signal(signal.SIGINT)
        reading.communicate(timeout=30)
    finally:
        reading.kill()
    assert reading.returncode == 130


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
@pytest.mark.parametrize("ending", database.BESIDE)
def test_a_pipe_beside_a_database_is_refused_and_not_waited_for(endless, ending):
    os.mkfifo(endless.with_name(endless.name + ending))
    with pytest.raises(TranscriptError, match="no regular file"):
        list(HermesReader().read(Source(endless)))


def test_an_error_of_decoding_names_the_file(endless):
    refused = pytest.raises(TranscriptError, match=r"state\.db, the database: cannot be read")
    with refused, Source(endless).database():
        b"\xff".decode()


def write(tmp_path, content):
    file = tmp_path / "talk"
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("wal", [False, True])
def test_a_database_that_is_compressed_is_read(tmp_path, wal):
    with closing(sqlite3.connect(tmp_path / "plain.db")) as connection:
        if wal:
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES ('tea')")
        connection.commit()
    source = Source(write(tmp_path, gzip.compress((tmp_path / "plain.db").read_bytes())))
    assert source.is_sqlite
    with source.database() as opened:
        assert [row["a"] for row in opened.execute("SELECT a FROM t")] == ["tea"]


def test_the_log_of_a_database_is_read_though_its_content_was_looked_at(tmp_path):
    file = tmp_path / "state.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (a)")
        connection.commit()
        source = Source(file)
        assert source.is_sqlite
        assert source.content
        with source.database() as opened:
            assert opened.execute("SELECT count(*) FROM t").fetchone()[0] == 0


def test_a_compressed_database_that_is_damaged_is_refused(tmp_path):
    source = Source(write(tmp_path, gzip.compress(b"SQLite format 3\0" + b"\xff" * 5000)))
    refused = pytest.raises(TranscriptError, match="talk, the database: cannot be read")
    with refused, source.database() as opened:
        opened.execute("SELECT 1 FROM sqlite_master")


def test_lines_that_are_no_json_are_left_out_with_their_numbers(tmp_path):
    source = Source(
        write(tmp_path, b'{"a":1}\n\n{"a":\n\0\0\0\n\0\0{"a":2}\n{"a":NaN}\n"\xff"\n{"a":')
    )
    assert [number for number, _ in source.records()] == [1, 5, 6]
    assert source.damage.records == 5
    (remark,) = source.damage.take_remarks()
    assert remark == (
        "left out: 5 records that are not valid: line 3: is not valid JSON: Input data was "
        "truncated; line 4: holds 3 NUL bytes; line 5: holds 2 NUL bytes; line 7: is not UTF-8; "
        "line 8: is not valid JSON: Input data was truncated"
    )
    assert source.damage.take_remarks() == []


def test_a_remark_names_no_more_than_a_few_records(tmp_path):
    source = Source(write(tmp_path, b"{\n" * 1000))
    assert list(source.records()) == []
    (remark,) = source.damage.take_remarks()
    assert remark.startswith("left out: 1,000 records that are not valid: line 1: ")
    assert remark.endswith("; 995 more")


@pytest.mark.parametrize(
    ("content", "found", "lost"),
    [
        (b'[\n{"a":1},\n{"a":', [{"a": 1}], "the file, item 2 and what follows: is not JSON"),
        (b'[{"a":1},\n{"a":2} {"a":3}]', [{"a": 1}, {"a": 2}], "the file, item 3 and what follows"),
        (b'[{"a":1},{"a":', [{"a": 1}], "the file, item 2 and what follows: is not JSON"),
        (b'[{"a":1}]\n[{"a":2},{x]\n{"a":3}', [{"a": 1}, {"a": 2}, {"a": 3}], "line 2, item 2 and"),
    ],
)
def test_of_an_array_that_is_damaged_the_items_before_are_read(tmp_path, content, found, lost):
    source = Source(write(tmp_path, content))
    assert [item for _, item in source.objects()] == found
    assert lost in source.damage.take_remarks()[0]


def test_items_with_lone_surrogates_and_nan_are_read(tmp_path):
    source = Source(write(tmp_path, b'[\n{"a": "\\ud83d"},\n{"a": NaN},\n{"a": "b"}\n]'))
    assert len(list(source.objects())) == 3
    assert source.damage.take_remarks() == [
        "replaced by U+FFFD: 1 lone surrogate, which no tokenizer can read"
    ]


@pytest.mark.parametrize(
    ("content", "first"),
    [
        (b'{"a":1,\n"b":2}', {"a": 1, "b": 2}),
        (b'{"a":1,\n{"b":2}\n', {"b": 2}),
        (b'\0\0\0\n{"b":2}\n', {"b": 2}),
        (b'{"a":\n', None),
        (b"x\n3\n", None),
        (b"", None),
    ],
)
def test_the_first_value_is_that_of_the_file_or_of_the_first_line_that_is_whole(
    tmp_path, content, first
):
    assert Source(write(tmp_path, content)).first == first


def test_of_a_long_array_only_the_first_items_are_decoded_to_tell_its_format(tmp_path):
    source = Source(write(tmp_path, json.dumps([{"a": at} for at in range(10_000)]).encode()))
    assert source.sample == {"a": 0}
    assert len(source.first) < 100
    assert len(list(source.objects())) == 10_000
