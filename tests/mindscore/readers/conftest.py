"""Files of conversations, and how they are read."""

import pytest

from mindscore._util.errors import TranscriptError
from mindscore.readers.conversations import Conversations

from .written import FIXTURES


@pytest.fixture
def read(tmp_path):
    """Read a file of these bytes, or a fixture: ``read(b"...")``, ``read("atif.json")``."""

    def read(content, format_=None):
        file = FIXTURES / content if isinstance(content, str) else tmp_path / "talk"
        if isinstance(content, bytes):
            file.write_bytes(content)
        return Conversations(file, format_)

    return read


@pytest.fixture
def refused(read, tmp_path):
    """Return the error of a file of these bytes, less the file's name."""

    def refused(content, format_=None):
        with pytest.raises(TranscriptError) as caught:
            read(content, format_)
        text = str(caught.value)
        assert text.startswith(str(tmp_path / "talk"))
        assert len(text.splitlines()) == 1
        return text.removeprefix(str(tmp_path / "talk")).lstrip(", ")

    return refused
