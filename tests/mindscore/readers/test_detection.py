"""Which format a file is in, and which of its conversations is meant."""

import json
import sqlite3
import sys

import pytest

from mindscore._util.errors import TranscriptError, UsageError
from mindscore.conversation.native import read_transcript
from mindscore.readers import Reading, Source
from mindscore.readers.conversations import Conversations, load_readers

from .written import FIXTURES, WRITERS, openai

SAID = [("user", "hello"), ("assistant", "hi")]
NATIVE = b'{"role":"user","content":"hello"}\n{"role":"assistant","content":"hi"}\n'


def detected(file):
    return [name for name, it in load_readers().items() if it.detects(Source(file))]


@pytest.mark.parametrize("name", WRITERS)
def test_a_format_is_detected_by_its_own_reader_alone(name, tmp_path):
    format_, write, _ = WRITERS[name]
    file = tmp_path / "talk"
    file.write_bytes(write(SAID))
    assert detected(file) == [format_]


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("*.json*")), ids=lambda it: it.name)
def test_no_fixture_is_of_two_formats(file):
    assert len(detected(file)) == 1


def test_lines_of_messages_are_native(read, tmp_path):
    conversations = read(NATIVE)
    assert conversations.format == "native"
    assert conversations.transcript(conversations.found[0]) == read_transcript(tmp_path / "talk")


def test_a_byte_order_mark_and_empty_lines_hide_nothing(read):
    assert read(b"\xef\xbb\xbf\n\n" + openai(SAID)).format == "openai"
    assert read(b"\xef\xbb\xbf\n" + NATIVE).format == "native"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"x", " (the file: is not valid JSON: JSON is malformed: invalid character (byte 0))"),
        (b"{", " (the file: is not valid JSON: Input data was truncated)"),
        (b"\xff", " (the file: is not valid JSON: JSON is malformed: invalid character (byte 0))"),
        *(
            (it, "")
            for it in (b"3", b"[]", b"[[]]", b"{}", b"null", b'{"messages":[{"type":"u"}]}')
        ),
    ],
)
def test_a_file_that_nobody_knows_is_refused_with_the_formats_that_are_known(refused, content, why):
    known = ", ".join(sorted(load_readers()))
    assert refused(content) == f": is of no known format{why}; known are: {known}"


def test_an_empty_file_holds_no_messages(refused):
    assert refused(b"") == refused(b"\n\n") == ": holds no messages"


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (b"{oops\n" + NATIVE, "line 1: is not valid JSON"),
        (NATIVE + b"{", "line 3: is not valid JSON: Input data was truncated"),
        (NATIVE + b'{"role":"bot","content":""}', "line 3: 'role': expected system, identity"),
        (NATIVE + b'{"role":"user","contents":""}', "line 3: Object contains unknown field"),
        (NATIVE + b'{"role":"user","content":"","model":"m"}', "line 3: Object contains unknown"),
        (b'{"role":"memory","content":"a"}', "line 1: a memory needs a 'key'"),
        (b'{"role":"user","content":[{"text":"a","keys":"k"}]}', "line 1: Object contains unknown"),
    ],
)
def test_a_file_that_is_nearly_native_names_the_line(refused, lines, error):
    assert refused(lines).startswith(error)


def test_the_format_that_is_asked_for_has_the_word(read, refused):
    assert refused(NATIVE, "sharegpt").startswith("line 1: 'conversations'")
    assert refused(openai(SAID), "native").startswith("line 1: ")
    with pytest.raises(UsageError, match="there is no such format; there are atif"):
        read(NATIVE, "word")


def test_a_database_that_nobody_knows_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "talk") as database:
        database.execute("create table t (a)")
    database.close()
    with pytest.raises(TranscriptError, match="is a SQLite database of no known format"):
        Conversations(tmp_path / "talk")


def test_one_of_several_has_to_be_chosen(read):
    conversations = read(openai(SAID) * 2)
    with pytest.raises(UsageError, match="holds 2 conversations: choose one with --select; see "):
        conversations.chosen(None)
    assert conversations.chosen("2") == conversations.found[1]
    for wrong in ("0", "3", "-1", "x", "", "9" * 5000):
        with pytest.raises(UsageError, match="holds no such conversation; see mindscore list"):
            conversations.chosen(wrong)


def test_a_name_goes_before_a_number(read):
    named = [json.dumps({"id": name, "messages": [{"role": "user", "content": name}]})
             for name in ("2", "b", "b")]  # fmt: skip
    conversations = read("\n".join(named).encode())
    assert conversations.chosen("2") == conversations.found[0]
    assert conversations.chosen("3") == conversations.found[2]
    with pytest.raises(UsageError, match="holds 2 such conversations"):
        conversations.chosen("b")


@pytest.fixture
def counted(install_extension):
    """Install a reader of 50 conversations; return how many it made, and how many lived at once."""
    install_extension(
        "mindscore.readers",
        "many",
        """
        import gc
        from mindscore.conversation.conversation import Conversation
        from mindscore.readers import Reading

        MADE, LIVING = [], []

        class Many:
            def detects(self, source):
                return source.content.startswith(b"many")

            def read(self, source):
                for number in range(1, 51):
                    reading = Reading(source)
                    reading.add("", {"role": "user", "content": "a"})
                    MADE.append(number)
                    yield reading.conversation(f"{number if b'plain' in source.content else 'x'}")
                    LIVING.append(sum(type(it) is Conversation for it in gc.get_objects()))
        """,
        ":Many",
    )

    def count(content, read, select):
        conversations = read(content)
        module = sys.modules[type(conversations._reader).__module__]
        conversations.chosen(select)
        return len(module.MADE), max(module.LIVING)

    return count


def test_a_numbered_conversation_is_chosen_without_those_after_it(counted, read):
    made, _ = counted(b"many plain", read, "3")
    assert made <= 4


def test_all_names_are_looked_at_but_few_conversations_are_kept(counted, read):
    made, living = counted(b"many", read, "3")
    assert made == 50
    assert living < 25


def test_records_that_are_not_selected_are_not_made_into_conversations(read, monkeypatch):
    made = []
    conversation = Reading.conversation

    def counted(self, name, *arguments, **named):
        made.append(name)
        return conversation(self, name, *arguments, **named)

    monkeypatch.setattr(Reading, "conversation", counted)
    records = [{"id": f"c{at}", "messages": [{"role": "user", "content": "a"}]} for at in range(99)]
    for content in (json.dumps(records, indent=1), "\n".join(map(json.dumps, records))):
        conversations = read(content.encode())
        made.clear()
        assert conversations.chosen("c97").name == "c97"
        assert made == ["c97"]
        assert len(conversations.found) == 99


def test_of_what_cannot_be_chosen_damage_may_be_the_reason(read):
    bad = json.dumps({"id": "b", "messages": []}).encode()
    with pytest.raises(
        UsageError, match=r"no such conversation \(1 record left out as not valid\)"
    ):
        read(openai(SAID) + bad).chosen("b")


def test_known_memories_are_found_and_those_that_are_nowhere_are_named(read):
    conversations = read("openai_array.json")
    known = {"tea": "The user drinks green tea.", "cat": "The user has a cat."}
    transcript = conversations.transcript(conversations.chosen(None), known)
    assert transcript.keys() == ["tea"]
    assert transcript.remarks == ("memories that stand nowhere in the conversation: cat",)


def test_a_long_list_of_memories_that_are_nowhere_is_cut(read):
    conversations = read("openai_array.json")
    known = {f"k{at}": f"nowhere {at}" for at in range(50)}
    (remark,) = conversations.transcript(conversations.chosen(None), known).remarks
    assert remark.endswith("k18, k19 and 30 more")


def test_native_files_take_no_memories(read):
    conversations = read(NATIVE)
    with pytest.raises(UsageError, match="is in the native format, which marks its own"):
        conversations.transcript(conversations.found[0], {})
