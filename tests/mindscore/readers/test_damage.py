"""Damaged files: an error of one line that names the file, or a transcript."""

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mindscore._util.errors import TranscriptError
from mindscore._util.text import printable
from mindscore.readers.conversations import Conversations, load_readers

from .written import FIXTURES

FILES = sorted(FIXTURES.glob("*.json*"))
VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|\[|\{')
NASTY = [
    b"null", b"true", b"0", b"-1.5", b"1e999", b'""', b'"a"', b"[]", b"{}", b"[[]]", b"[null]",
    b'{"type":"text"}', b'[{"type":3}]', b"[" * 2000, b'{"a":' * 2000, b"[" * 900 + b"]" * 900,
    b'"\\ud800"', b'"\\u0000"', b"\x00", b"\xff", b"\x1b[31m", b'"\\u001b[2J\\u202e"', b"\n", b",",
    b'"' + b"k" * 10_000 + b'"', b'"9999-12-31T23:59:59Z"', b"9" * 5000,
    b'"data:image/png;base64,\xc3\xa9"',
]  # fmt: skip
LINE = 500
# Of each of very many files; `make slow` tries more.
FEWER = settings.default.max_examples // 3

places = st.integers(0, 2**16 - 1)
mutations = st.tuples(
    st.sampled_from(["value", "value", "value", "cut", "drop", "repeat", "insert", "lines"]),
    places,
    places,
    st.sampled_from(NASTY) | st.binary(max_size=6),
)


def mutated(document, mutation):
    kind, first, second, payload = mutation
    start, end = sorted((first * len(document) >> 16, second * len(document) >> 16))
    values = list(VALUE.finditer(document)) if kind == "value" else []
    if values:
        start, end = values[first % len(values)].span()
        return document[:start] + payload + document[end:]
    if kind == "cut":
        return document[:start]
    if kind == "drop":
        return document[:start] + document[end:]
    if kind == "repeat":
        return document[:end] + document[start:end] + document[end:]
    if kind == "lines":
        lines = document.splitlines(keepends=True)
        one, other = first % len(lines), second % len(lines)
        lines[one], lines[other] = lines[other], lines[one]
        return b"".join(lines)
    return document[:start] + payload + document[start:]


def whole_or_refused(file, format_):
    try:
        conversations = Conversations(file, format_)
        for _, transcript in conversations.transcripts():
            assert transcript.conversation or transcript.system or transcript.identity
    except TranscriptError as error:
        text = str(error)
        assert text.startswith(str(file))
        assert len(text) < len(str(file)) + LINE
        assert printable(text) == text


@pytest.mark.parametrize("file", FILES, ids=lambda it: it.name)
@settings(max_examples=FEWER, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(mutations, min_size=1, max_size=3), st.booleans())
def test_a_damaged_file_is_refused_in_one_line_or_read(file, changes, forced):
    original = file.read_bytes()
    content = original
    for change in changes:
        content = mutated(content, change) or original
    format_ = Conversations(file).format if forced else None
    with tempfile.TemporaryDirectory() as folder:
        broken = Path(folder, "talk")
        broken.write_bytes(content)
        whole_or_refused(broken, format_)


@pytest.mark.parametrize("name", load_readers())
@settings(max_examples=FEWER)
@given(st.binary(max_size=60) | st.sampled_from(NASTY))
def test_any_bytes_are_refused_in_one_line_by_every_reader(name, content):
    with tempfile.TemporaryDirectory() as folder:
        broken = Path(folder, "talk")
        broken.write_bytes(content)
        whole_or_refused(broken, name)


@pytest.mark.parametrize("name", load_readers())
def test_a_file_that_is_not_there_is_refused_in_one_line(name, tmp_path):
    with pytest.raises(TranscriptError, match="nowhere"):
        Conversations(tmp_path / "nowhere", name)
