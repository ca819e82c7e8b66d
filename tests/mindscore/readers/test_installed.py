"""Third parties' readers: found by their entry point, and no danger to the others."""

import logging
import sqlite3
import subprocess
import sys
from functools import partial

import pytest

from mindscore._util.errors import TranscriptError, UsageError
from mindscore.readers import Reader, Source
from mindscore.readers.conversations import Conversations, load_readers

NATIVE = b'{"role":"user","content":"hello"}\n'
DIARY = b"diary\nuser: hello\nassistant: hi\n"
READER = """
    from mindscore.readers import Reading

    class Diary:
        def detects(self, source):
            return source.content.startswith(b"diary")

        def read(self, source):
            reading = Reading(source)
            for number, line in enumerate(source.content.decode().splitlines()[1:], start=2):
                role, _, text = line.partition(": ")
                reading.add(f"line {number}", {"role": role, "content": text})
            yield reading.conversation("day")
"""
DETECTS = 'return source.content.startswith(b"diary")'


@pytest.fixture
def install(install_extension):
    """Install a distribution with one reader: ``install(name, source, target)``."""
    return partial(install_extension, "mindscore.readers")


@pytest.fixture
def warnings(caplog):
    """Return the lines logged so far."""
    caplog.set_level(logging.WARNING, "mindscore")
    return lambda: [record.getMessage() for record in caplog.records]


def told(conversations):
    return [(str(it.role), it.text) for it in conversations.found[0].messages]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (READER, ":Diary"),
        (READER + "\n    diary = Diary()\n", ":diary"),
        (READER + "\n    detects, read = Diary().detects, Diary().read\n", ""),
    ],
    ids=["class", "object", "module"],
)
def test_a_reader_is_one_file_and_one_entry_point(install, read, warnings, source, target):
    install("diary", source, target)
    assert isinstance(load_readers()["diary"], Reader)
    conversations = read(DIARY)
    assert conversations.format == "diary"
    assert told(conversations) == [("user", "hello"), ("assistant", "hi")]
    assert told(read(DIARY, "diary")) == told(conversations)
    assert read(NATIVE).format == "native"
    assert warnings() == []


def test_the_public_helpers_import_nothing_slow():
    slow = "aiohttp, jinja2, platformdirs, rich, sqlalchemy, tokenizers, torch, transformers"
    code = f"import sys, mindscore.readers; print(*set('{slow}'.split(', ')) & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_a_third_partys_is_asked_before_our_own(install, read):
    install("diary", READER.replace('startswith(b"diary")', 'startswith(b"{")'), ":Diary")
    assert next(iter(load_readers())) == "diary"
    assert read(NATIVE).format == "diary"


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("return 1 / 0", "ZeroDivisionError"),
    ],
)
def test_one_whose_detects_raises_is_passed_over_and_logged(install, read, warnings, failure, says):
    install("bad", READER.replace(DETECTS, failure), ":Diary")
    install("diary", READER, ":Diary")
    assert read(NATIVE).format == "native"
    assert read(DIARY).format == "diary"
    first, second = warnings()
    assert first == second
    assert first.startswith("reader bad was passed over: ")
    assert says in first


def test_an_interrupt_is_the_users(install, read):
    install("bad", READER.replace(DETECTS, "raise KeyboardInterrupt"), ":Diary")
    with pytest.raises(KeyboardInterrupt):
        read(NATIVE)


def test_a_refusal_of_one_is_the_error_only_if_no_other_knows_the_file(install, read):
    refuses = 'return source.refuse("the file", "is torn")'
    install("torn", READER.replace(DETECTS, refuses), ":Diary")
    assert read(NATIVE).format == "native"
    with pytest.raises(TranscriptError, match="the file: is torn"):
        read(b"no format that is known")


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("import no_such_module", "", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "", "SystemExit: 3"),
        ("class R:\n    def __init__(self): raise ValueError('no')", ":R", "ValueError: no"),
        ("", ":R", "AttributeError"),
        ("def detects(source): return True", "", "methods detects(source) and read(source)"),
    ],
)
def test_one_that_cannot_be_loaded_is_named(install, read, warnings, source, target, says):
    install("bad", source, target)
    assert read(NATIVE).format == "native"
    [warning] = warnings()
    assert warning.startswith("reader bad of bad_of_the_test was skipped: ")
    assert says in warning
    with pytest.raises(UsageError, match="--format bad: there is no such format"):
        read(NATIVE, "bad")


def test_a_second_of_one_name_is_refused_and_the_first_stays(install, read, warnings):
    install("native", READER, ":Diary", "a_native")
    install("diary", READER, ":Diary", "a_diary")
    install("diary", READER.replace('"day"', '"night"'), ":Diary", "b_diary")
    assert read(DIARY).found[0].name == "day"
    assert read(NATIVE).format == "native"
    skipped = "reader {} of {} was skipped: another one has this name"
    assert set(warnings()) == {
        skipped.format("native", "a_native"),
        skipped.format("diary", "b_diary"),
    }


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("return 1 / 0", "reader diary failed: ZeroDivisionError"),
        ("raise SystemExit(3)", "reader diary failed: SystemExit: 3"),
        ("return 3", "reader diary failed: TypeError"),
        ("return [3]", "reader diary did not return conversations"),
        ("return []", "holds no conversations"),
    ],
)
def test_one_that_fails_to_read_is_an_error_that_names_it(install, read, answer, says):
    source = READER.replace("reading = Reading(source)", answer).replace("yield", "return")
    install("diary", source, ":Diary")
    with pytest.raises(TranscriptError) as caught:
        read(DIARY)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_readers_errors_name_file_and_place(install, refused):
    install("diary", READER, ":Diary")
    assert refused(DIARY + b"nobody: x").startswith("line 4: 'role': expected one of system")


def test_a_database_may_be_a_third_partys(install, tmp_path):
    source = READER.replace(DETECTS, "return source.is_sqlite")
    install("tables", source.replace("source.content.decode()", "'\\nuser: hello'"), ":Diary")
    with sqlite3.connect(tmp_path / "talk") as database:
        database.execute("create table t (a)")
    database.close()
    assert Source(tmp_path / "talk").is_sqlite
    assert told(Conversations(tmp_path / "talk")) == [("user", "hello")]
