"""``-`` as a transcript, and as a file of memories: standard input of the real command."""

import gzip
import json
import sqlite3
import subprocess
from contextlib import closing

import pytest

from ..readers.written import FIXTURES
from .conftest import COMMAND, PATIENCE_S

SAID = [
    {"role": "system", "content": "You help.\n- The user drinks green tea."},
    {"role": "user", "content": "What do I drink?"},
    {"role": "assistant", "content": "You drink green tea."},
]
TALK = json.dumps({"messages": SAID}).encode()
KNOWN = json.dumps({"tea": "The user drinks green tea."}).encode()


def piped(content, *arguments):
    done = subprocess.run(
        [COMMAND, *map(str, arguments)],
        input=content,
        capture_output=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize("content", [TALK, gzip.compress(TALK)], ids=["plain", "gzip"])
def test_a_transcript_is_read_from_standard_input(content, tmp_path):
    known = tmp_path / "known.json"
    known.write_bytes(KNOWN)
    options = ("--memories", known, "--json", "--set", "server.scorer=toy")
    status, out, err = piped(content, "score", "-", *options)
    assert (status, err) == (0, "")
    assert [it["key"] for it in json.loads(out)["scores"]] == ["tea"]


@pytest.mark.parametrize(
    ("dump", "format_"), [("hermes_state.sql", "hermes"), ("llm-0.36.sql", "llm")]
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_database_is_read_from_standard_input(dump, format_, pack, tmp_path):
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.executescript((FIXTURES / dump).read_text())
    content = (tmp_path / "a.db").read_bytes()
    status, out, err = piped(pack(content), "list", "-", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["format"] == format_


def test_memories_are_read_from_standard_input(tmp_path):
    talk = tmp_path / "talk.json"
    talk.write_bytes(TALK)
    status, out, _ = piped(KNOWN, "list", talk, "--memories", "-", "--json")
    assert status == 0
    assert json.loads(out)["conversations"][0]["memories"] == ["tea"]


def test_an_error_of_standard_input_names_it():
    status, _, err = piped(b'{"messages": []}', "list", "-")
    assert status == 2
    assert err.startswith("mindscore: -, line 1: 'messages': expected an array")


def test_standard_input_is_one_of_the_two():
    for command in ("list", "score"):
        status, _, err = piped(TALK, command, "-", "--memories", "-")
        assert status == 2
        assert (
            err == "mindscore: standard input is the transcript or one file of memories, not both\n"
        )
