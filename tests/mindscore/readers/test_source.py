"""Databases of other programs: hostile ones end, are interrupted, and are named."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from mindscore._util.errors import TranscriptError
from mindscore.integrations.hermes.reader import HermesReader
from mindscore.readers import source as source_module
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
        connection.execute(f"CREATE VIEW messages AS {ENDLESS}")
        connection.commit()
    return file


def test_a_view_without_end_is_given_up(endless, monkeypatch):
    monkeypatch.setattr(source_module, "MAX_READING_S", 0.5)
    with pytest.raises(TranscriptError, match=r"state\.db, the database: is not read within"):
        HermesReader().read(Source(endless))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupt_ends_the_reading_of_a_view_without_end(endless):
    reading = subprocess.Popen(
        [sys.executable, "-P", "-m", "mindscore", "list", str(endless)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        time.sleep(3)
        assert reading.poll() is None
        reading.send_signal(signal.SIGINT)
        reading.communicate(timeout=30)
    finally:
        reading.kill()
    assert reading.returncode == 130


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
@pytest.mark.parametrize("ending", source_module.BESIDE)
def test_a_pipe_beside_a_database_is_refused_and_not_waited_for(endless, ending):
    os.mkfifo(endless.with_name(endless.name + ending))
    with pytest.raises(TranscriptError, match="no regular file"):
        HermesReader().read(Source(endless))


def test_an_error_of_decoding_names_the_file(endless):
    refused = pytest.raises(TranscriptError, match=r"state\.db, the database: cannot be read")
    with refused, Source(endless).database():
        b"\xff".decode()
