"""Logs of Inspect, of the UK AI Security Institute: ``.json`` and ``.eval``. As of 0.3.285."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from mindscore._util.errors import TranscriptError
from mindscore._util.files import decode
from mindscore.conversation.conversation import Conversation
from mindscore.readers import Reading, Source, first_text, kind_of, listed, tool_call

ZIP = b"PK\x03\x04"
ZSTD = 93
"""The number of zstd among the methods of a zip file."""
MAX_SAMPLE_BYTES = 1 << 30
"""Most bytes that one sample may hold."""
HEADER_BYTES = 30
"""Bytes of a file's header in a zip file, before its name."""
ATTACHED = "attachment://"


class InspectReader:
    """Reads logs of evaluations; each sample is a conversation."""

    def detects(self, source: Source) -> bool:
        """Return true if it is such a log, as one JSON value or as a zip file of samples."""
        if source.content.startswith(ZIP):
            return "header.json" in _archive(source).namelist()
        first = source.first
        return isinstance(first, dict) and {"eval", "status", "samples"} <= first.keys()

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the samples, named by their ids and epochs."""

        def read(number: str, where: str, sample: Any) -> Conversation:
            if isinstance(sample, zipfile.ZipInfo):
                with source.placed(where):
                    sample = decode(_content(_archive(source), sample))
            if not isinstance(sample, dict):
                source.refuse(where, f"expected an object, got {kind_of(sample)}")
            return _conversation(source, number, where, sample)

        def name(sample: Any) -> str:
            # What a file of the archive is called is known once it is read.
            is_file = isinstance(sample, zipfile.ZipInfo)
            return (source.selected.name or "") if is_file else _name(sample)

        return source.read_each(_samples(source), read, name)


def _samples(source: Source) -> Iterator[tuple[str, Any]]:
    if not source.content.startswith(ZIP):
        log = source.whole()
        samples = log.get("samples") if isinstance(log, dict) else None
        yield from source.items("the log", "samples", samples, "sample")
        return
    for item in _archive(source).infolist():
        if item.filename.startswith("samples/") and item.filename.endswith(".json"):
            yield item.filename, item


def _archive(source: Source) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(source.content))
    except zipfile.BadZipFile as error:
        raise TranscriptError(f"{source.file}: is a damaged zip file: {error}") from None


def _content(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> bytes:
    """Return what a file of the archive holds.

    Raises:
        ValueError: it cannot be decompressed.
    """
    if item.file_size > MAX_SAMPLE_BYTES:
        raise ValueError(f"holds more than {MAX_SAMPLE_BYTES / (1 << 30):.0f} GiB")
    if item.compress_type != ZSTD:
        try:
            return archive.read(item)
        except (NotImplementedError, OSError, RuntimeError, zipfile.BadZipFile) as error:
            raise ValueError(f"cannot be decompressed: {error}") from None
    return _zstd(_stored(archive, item))


def _stored(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> bytes:
    """Return the bytes of a file as they are stored, which ``zipfile`` cannot decompress."""
    assert archive.fp is not None  # noqa: S101 - it is open
    archive.fp.seek(item.header_offset)
    header = archive.fp.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        raise ValueError("is cut off")
    # The lengths of its name and of its further fields.
    name, more = struct.unpack("<HH", header[-4:])
    archive.fp.seek(name + more, io.SEEK_CUR)
    return archive.fp.read(item.compress_size)


def _zstd(stored: bytes) -> bytes:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            module = import_module(name)
        except ImportError:
            continue
        try:
            with module.open(io.BytesIO(stored)) as stream:
                content: bytes = stream.read(MAX_SAMPLE_BYTES)
        # ZstdError is no ValueError.
        except Exception as error:
            raise ValueError(f"is damaged zstd: {error}") from None
        return content
    raise ValueError(
        "is compressed with zstd, which Python reads from 3.14 on: pip install backports.zstd, or "
        "write the log anew with inspect log convert --to json"
    )


def _whole(value: Any, texts: dict[str, Any]) -> Any:
    """Return a value with the long texts in the places that refer to them."""
    if isinstance(value, dict):
        return {key: _whole(it, texts) for key, it in value.items()}
    if isinstance(value, list):
        return [_whole(it, texts) for it in value]
    if isinstance(value, str) and value.startswith(ATTACHED):
        return texts.get(value.removeprefix(ATTACHED), value)
    return value


def _fields(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message in the shape of ``chat.completions``; an error is what the tool says."""
    named = [
        tool_call(it.get("function"), it.get("arguments")) | {"id": it.get("id")}
        for it in listed(message.get("tool_calls"))
        if isinstance(it, dict)
    ]
    error = message.get("error")
    failed = first_text(error.get("message")) if isinstance(error, dict) else ""
    content = message.get("content") or failed or message.get("content")
    return {**message, "content": content, "tool_calls": named, "name": message.get("function")}


def _name(sample: dict[str, Any]) -> str:
    id_, epoch = sample.get("id"), sample.get("epoch")
    return f"{id_}-{epoch}" if isinstance(id_, str | int) else ""


def _conversation(source: Source, number: str, where: str, sample: dict[str, Any]) -> Conversation:
    reading = Reading(source)
    attached = sample.get("attachments")
    texts = attached if isinstance(attached, dict) else {}
    messages = sample.get("messages")
    for place, message in source.items(where, "messages", messages, "message"):
        with source.leaving_out(), source.placed(place):
            reading.add(place, _fields(_whole(message, texts)))
    tools = None
    for event in listed(sample.get("events")):
        if isinstance(event, dict) and event.get("event") == "model" and event.get("tools"):
            tools = event["tools"]
    name, id_ = _name(sample) or number, first_text(sample.get("uuid"))
    return reading.conversation(name, tools=tools, id_=id_)
