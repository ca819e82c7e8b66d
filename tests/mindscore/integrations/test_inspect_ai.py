"""Inspect's logs, as JSON and as zip files of samples."""

import io
import json
import struct
import zipfile

import pytest
from tests.mindscore.readers.written import FIXTURES

from mindscore._util.errors import TranscriptError
from mindscore.integrations.inspect_ai import ZSTD
from mindscore.readers.conversations import Conversations

LOG = json.loads((FIXTURES / "inspect.json").read_text())
SAMPLE = json.dumps(LOG["samples"][0]).encode()


def archive(*samples):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("_journal/start.json", "{}")
        for at, sample in enumerate(samples, start=1):
            made.writestr(f"samples/s{at}_epoch_1.json", sample)
        made.writestr("header.json", json.dumps({"version": 2}))
    return packed.getvalue()


@pytest.fixture
def read(tmp_path):
    """Read a log of these bytes."""

    def read(content):
        file = tmp_path / "log.eval"
        file.write_bytes(content)
        return Conversations(file)

    return read


def test_a_zip_file_is_read_as_the_json_is(read):
    packed = read(archive(SAMPLE))
    assert packed.format == "inspect"
    assert packed.found == Conversations(FIXTURES / "inspect.json").found
    assert packed.chosen("s1-1") == packed.found[0]


def test_long_texts_are_put_where_they_are_referred_to(read):
    system = read(archive(SAMPLE)).found[0].messages[0]
    assert system.text == "You help Ines.\n- She uses oak glue."


def test_an_error_of_a_tool_is_what_it_says(read):
    sample = json.loads(SAMPLE)
    sample["messages"][3] |= {"content": "", "error": {"type": "timeout", "message": "Too late."}}
    assert read(archive(json.dumps(sample))).found[0].messages[3].text == "Too late."


def test_a_damaged_sample_is_left_out_and_the_others_are_read(read):
    assert [it.name for it in read(archive(b"{", SAMPLE)).found] == ["s1-1"]
    with pytest.raises(TranscriptError, match=r"samples/s1_epoch_1.json: is not valid JSON"):
        read(archive(b"{"))


def test_zstd_that_python_cannot_read_yet_is_said_with_what_helps(read):
    content = archive(SAMPLE)
    name = content.index(b"samples/")
    # The method in the file's own header, and in the list at the end.
    for at in (name - 30 + 8, content.index(b"samples/", name + 1) - 46 + 10):
        content = content[:at] + struct.pack("<H", ZSTD) + content[at + 2 :]
    with pytest.raises(TranscriptError) as caught:
        read(content)
    said = str(caught.value)
    assert "samples/s1_epoch_1.json: is compressed with zstd" in said or "is damaged zstd" in said


def test_a_zip_file_of_something_else_is_no_log(read):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        made.writestr("word/document.xml", "<x/>")
    with pytest.raises(TranscriptError):
        read(packed.getvalue())
    with pytest.raises(TranscriptError):
        read(archive(SAMPLE)[:200])
