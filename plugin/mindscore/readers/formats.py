"""The formats that conversations are read from."""

from __future__ import annotations

from mindscore.errors import TranscriptError, UsageError
from mindscore.readers.atif import ATIFReader
from mindscore.readers.claude_code import ClaudeCodeReader
from mindscore.readers.hermes import HermesReader
from mindscore.readers.langchain import LangChainReader
from mindscore.readers.llm_logs import LlmLogsReader
from mindscore.readers.native import NativeReader
from mindscore.readers.openai_chat import OpenAIChatReader
from mindscore.readers.sharegpt import ShareGPTReader
from mindscore.readers.source import Reader, Source

NATIVE = NativeReader()
READERS: tuple[Reader, ...] = (
    NATIVE,
    HermesReader(),
    LlmLogsReader(),
    ClaudeCodeReader(),
    LangChainReader(),
    ATIFReader(),
    ShareGPTReader(),
    OpenAIChatReader(),
)
"""In the order in which they are asked whether a file is theirs."""


def reader_of(source: Source, name: str | None) -> Reader:
    """The reader called ``name``, or the first that knows the file; native where none does.

    Raises:
        UsageError: no reader is called so.
        TranscriptError: the file cannot be read, or is a database that no reader knows.
    """
    if name is not None:
        for reader in READERS:
            if reader.name == name:
                return reader
        known = ", ".join(reader.name for reader in READERS)
        raise UsageError(f"--format {name}: there is no such format; there are {known}")
    for reader in READERS:
        if reader.detects(source):
            return reader
    if source.is_sqlite:
        raise TranscriptError(f"{source.file}: is a SQLite database of no known format")
    return NATIVE
