"""The native format: JSON Lines, one message a line, in order."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, NoReturn, get_args

import msgspec
from msgspec import Meta, Struct, field

from mindhooks import Image, Part, Role
from mindscore._util.errors import TranscriptError
from mindscore._util.files import decode, numbered_lines, read_content
from mindscore._util.text import shortened
from mindscore.conversation.conversation import Section, Transcript, id_by_beginning, section_of
from mindscore.conversation.message import Message

# Python itself keeps six digits of a fraction, and silently drops the rest.
_FRACTION = re.compile(r"(.*[T ]\d\d:?\d\d:?\d\d)[.,](\d+)([^.,]*)")
_TIMESTAMP_CHARACTERS = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_timestamp(text: str) -> int:
    """Return nanoseconds since the epoch; nine fractional digits are kept, no offset means UTC.

    Raises:
        ValueError: not an ISO 8601 timestamp, or outside 64-bit nanoseconds (1677 to 2262).
    """
    if len(text) > _TIMESTAMP_CHARACTERS:
        raise ValueError(f"{text[:_TIMESTAMP_CHARACTERS]!r}… is not an ISO 8601 timestamp")
    fraction = _FRACTION.fullmatch(text)
    nanoseconds = int(fraction[2][:9].ljust(9, "0")) if fraction else 0
    whole = fraction[1] + fraction[3] if fraction else text
    try:
        if "." in whole or "," in whole:
            raise ValueError("a fraction that is not of a second")
        moment = datetime.fromisoformat(whole)
    except ValueError:
        raise ValueError(f"{text!r} is not an ISO 8601 timestamp") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    microseconds = (moment - _EPOCH) // timedelta(microseconds=1)
    stamp = microseconds * 1000 + nanoseconds
    if not -(2**63) <= stamp < 2**63:
        raise ValueError(f"{text!r} is outside 64-bit nanoseconds (the years 1677 to 2262)")
    return stamp


Key = Annotated[str, Meta(min_length=1)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
ROLES = Literal["system", "identity", "memory", "user", "assistant", "tool"]
SECTIONS = Literal["identity", "conversation"]


class _Part(Struct, forbid_unknown_fields=True):
    text: str
    key: Key | None = None


class _Image(Struct, forbid_unknown_fields=True):
    mime: Key
    data: bytes


class _Line(Struct, forbid_unknown_fields=True):
    role: ROLES
    content: str | list[_Part]
    key: Key | None = None
    section: SECTIONS | None = None
    timestamp: str | None = None
    id: Key | None = None
    token_ids: list[TokenId] | None = None
    body: tuple[int, int] | None = None
    images: list[_Image] = field(default_factory=list)


def read_transcript(file: Path, content: bytes | None = None) -> Transcript:
    """Read a native transcript; ``content`` is the file's, if it has been read already.

    Raises:
        TranscriptError: names the file, the line and the reason.
    """
    sections: dict[Section, list[Message]] = {"system": [], "identity": [], "conversation": []}
    lines_by_id: dict[str, int] = {}
    digest = b""
    spoken = False
    for number, raw in numbered_lines(read_content(file) if content is None else content):
        try:
            line = _decode(raw)
            spoken = spoken or line.role in ("user", "assistant")
            digest = hashlib.blake2b(digest + msgspec.json.encode(line), digest_size=8).digest()
            message = _message(line, line.id or digest.hex())
            earlier = lines_by_id.setdefault(message.id, number)
            if earlier != number:
                raise ValueError(f"the id {message.id!r} is taken by line {earlier}")
        except ValueError as error:
            _refuse(file, number, error)
        default = "identity" if line.role == "identity" else section_of(message.role, spoken)
        sections[line.section or default].append(message)
    if not lines_by_id:
        raise TranscriptError(f"{file}: holds no messages")
    system, identity, conversation = map(tuple, sections.values())
    id_ = id_by_beginning((*system, *identity, *conversation))
    return Transcript(file, system, identity, conversation, id=id_)


def _refuse(file: Path, number: int, error: ValueError) -> NoReturn:
    why = shortened(str(error), 300, tail=100)
    raise TranscriptError(f"{file}, line {number}: {why}") from None


def _explain(message: str) -> str:
    """Return an error of msgspec's in our words, without JSON paths such as `$.content`."""
    for name, allowed in (("role", ROLES), ("section", SECTIONS)):
        if message.startswith("Invalid enum value") and f"`$.{name}`" in message:
            value = message.removeprefix("Invalid enum value ").partition(" - at")[0]
            return f"'{name}': expected {', '.join(get_args(allowed))}, got {value}"
    return message.replace("$.", "").replace("`", "'")


def _decode(raw: bytes) -> _Line:
    try:
        line: _Line = decode(raw, _Line)
    except msgspec.ValidationError as error:
        raise ValueError(_explain(str(error))) from None
    return line


def _message(line: _Line, id_: str) -> Message:
    plain = line.content if isinstance(line.content, str) else None
    parts = [] if isinstance(line.content, str) else line.content
    if line.role == "memory" and line.key is None:
        raise ValueError("a memory needs a 'key'")
    if line.role != "memory" and line.key is not None:
        raise ValueError(f"'key' goes with role 'memory' only, not with {line.role!r}")
    if line.role == "assistant" and any(part.key is not None for part in parts):
        raise ValueError("a response holds no memories: 'key' in a part of an assistant line")
    if line.token_ids is not None and plain is None:
        raise ValueError("'token_ids' goes with a plain 'content' only")
    return Message(
        id=id_,
        role=Role.SYSTEM if line.role == "identity" else Role(line.role),
        text="".join(part.text for part in parts) if plain is None else plain,
        memory_key=line.key,
        parts=tuple(Part(part.text, part.key) for part in parts),
        timestamp_ns=parse_timestamp(line.timestamp) if line.timestamp is not None else None,
        images=tuple(Image(image.mime, image.data) for image in line.images),
        token_ids=None if line.token_ids is None else tuple(line.token_ids),
        body=_body(line),
    )


def _body(line: _Line) -> tuple[int, int] | None:
    if line.body is not None:
        if line.token_ids is None:
            raise ValueError("'body' goes with 'token_ids' only")
        start, end = line.body
        if line.role != "assistant" and start != end:
            raise ValueError("'body' is what the model produced: only assistant lines have one")
        if not 0 <= start <= end <= len(line.token_ids):
            raise ValueError(f"'body' is not a span within the {len(line.token_ids)} token_ids")
        return start, end
    if line.role == "assistant" and line.token_ids is not None:
        return 0, len(line.token_ids)
    return None
