"""A turn as it is sent: a request to a model, with all that was said before, and its answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from mindhooks import Role
from mindscore._util.encodings import without_lone_surrogates
from mindscore._util.errors import TranscriptError
from mindscore.conversation.conversation import Conversation
from mindscore.conversation.message import Message
from mindscore.conversation.native import parse_timestamp
from mindscore.readers.genai import is_request, nested, read_span, require_whole, says_model
from mindscore.readers.memories import named_memories
from mindscore.readers.opentelemetry import named_conversation
from mindscore.readers.requests import ModelRequest, conversation_of, parsed
from mindscore.readers.source import Source

SENT = Path("turn")
"""Stands for the file in messages about what was sent."""

NAME_CHARACTERS = 500
"""Longest name of a conversation or a turn."""

NO_SYSTEM = (
    "no system prompt was sent: where the agent has one, the scores are of a reconstructed context"
)
NO_TOOLS = "the definitions of the tools were not sent: the scores are of a reconstructed context"
RECONSTRUCTED = frozenset({NO_SYSTEM, NO_TOOLS})
"""Remarks without which scores say too much."""

Name = Annotated[str, Meta(max_length=NAME_CHARACTERS)]


class TurnRequest(Struct):
    """``POST /v1/turns``."""

    conversation: Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS)]
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    response: dict[str, Any]
    memories: dict[str, str] = field(default_factory=dict)
    tools: list[dict[str, Any]] | None = None
    model: Name = ""
    id: Name = ""
    at: str | None = None


class Record(Struct):
    """The part of a turn that waits: what it takes to score it. ``model`` is the agent's own."""

    messages: list[Any]
    answer: Any
    tools: Any
    memories: dict[str, str]
    model: str

    def conversation(self, name: str) -> Conversation:
        """Return the conversation up to the answer, with its definite id.

        Raises:
            TranscriptError: a message of it is not valid, or its answer says nothing.
        """
        source = Source(SENT, b"")
        asked = ModelRequest(name, "", self.messages, [self.answer], self.tools)
        found = conversation_of(source, name, [asked], ())
        if source.damage.first is not None:
            raise source.damage.first
        if not any(_says_something(it) for it in found.messages[-1:]):
            raise TranscriptError(f"{SENT}: the response says nothing that is understood")
        missing = []
        if not any(it.role == Role.SYSTEM for it in found.messages):
            missing.append(NO_SYSTEM)
        if not found.tools and any(it.tool_calls for it in found.messages):
            missing.append(NO_TOOLS)
        return replace(found, remarks=(*missing, *found.remarks))


def _says_something(message: Message) -> bool:
    return message.role == Role.ASSISTANT and bool(message.text.strip() or message.tool_calls)


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn that was understood.

    ``scope`` is what its sender calls the conversation, empty for no name, and ``name`` what it is
    called if it continues none that is known. ``said`` and ``exact`` have a hash for each response,
    of the responses up to it, and of all that user, tools and model said: not of the system prompt,
    which hosts print anew each time. ``prompted`` is a hash of all that, and of the system prompt;
    ``prompt`` one of the system prompt alone.
    """

    scope: str
    name: str
    id: str
    at_ns: int | None
    said: tuple[bytes, ...]
    exact: tuple[bytes, ...]
    prompted: bytes
    prompt: bytes
    record: bytes


def turn_of(request: TurnRequest) -> Turn:
    """Return what ``POST /v1/turns`` sends.

    Raises:
        ValueError: it is not valid; the text says why.
    """
    at_ns = None if request.at is None else parse_timestamp(request.at)
    answer = {"role": "assistant", **request.response}
    if answer["role"] != "assistant":
        raise ValueError("'response': expected the role assistant")
    record = Record(request.messages, answer, request.tools, request.memories, request.model)
    return _turn(request.conversation, request.conversation, request.id, at_ns, record)


@dataclass(frozen=True, slots=True)
class Unsaid:
    """A span that has nothing to score; ``asks_model``: it is of a request without its texts."""

    asks_model: bool


def turn_of_span(span: Mapping[str, Any], memory_attribute: str | None) -> Turn | Unsaid:
    """Return the turn that a span records; ``memory_attribute`` names one that holds memories.

    Raises:
        ValueError: it is not valid; the text says why.
    """
    attributes = nested(span["attributes"])
    if not is_request(attributes):
        return Unsaid(False)
    messages, answers, tools = read_span(attributes, span["events"])
    model = says_model(attributes)
    if not messages or not answers:
        return Unsaid(bool(model) and not messages)
    require_whole(attributes, span)
    memories = _memories(span["attributes"].get(memory_attribute)) if memory_attribute else {}
    record = Record(messages, answers[0], tools, memories, model[:NAME_CHARACTERS])
    scope, trace = named_conversation(attributes), span["traceId"]
    if len(scope) > NAME_CHARACTERS:
        raise ValueError(f"the conversation's name is over {NAME_CHARACTERS} characters long")
    ended = span["endTimeUnixNano"]
    at_ns = ended if 0 < ended < 2**63 else None
    id_ = f"{trace}-{span['spanId']}" if trace and span["spanId"] else ""
    return _turn(scope, scope or trace, id_, at_ns, record)


def _memories(given: Any) -> dict[str, str]:
    value = parsed(given)
    if value is None or value == "":
        return {}
    found: dict[str, str] = {}
    for key, text in named_memories(Source(Path("memories"), b""), _listed(value)):
        if not isinstance(text, str) or not text.strip() or not key:
            raise ValueError("the attribute of memories: expected texts by their keys")
        found[key] = text
    return found


def _listed(value: Any) -> Any:
    """Return a list of memories; one that is no JSON is a memory itself."""
    if isinstance(value, list):
        return [parsed(it) for it in value]
    return [value] if isinstance(value, str) else value


def _turn(scope: str, name: str, id_: str, at_ns: int | None, record: Record) -> Turn:
    raw, repaired = _encoded(record)
    conversation = repaired.conversation(name)
    said, exact = digests(conversation.messages)
    known = id_ or hashlib.sha256(repr((scope, name)).encode() + exact[-1]).hexdigest()[:32]
    prompt = prompt_digest(conversation.messages)
    prompted = hashlib.sha256(exact[-1] + prompt).digest()[:16]
    return Turn(scope, name or known, known, at_ns, said, exact, prompted, prompt, raw)


def _encoded(record: Record) -> tuple[bytes, Record]:
    """Return the record as JSON, and as it is read from that.

    Raises:
        ValueError: it holds what JSON cannot.
    """
    try:
        return msgspec.json.encode(record), record
    except (UnicodeEncodeError, OverflowError):
        # Half a pair of surrogates, as of an emoji that was cut; or a number of many digits.
        text = json.dumps(msgspec.structs.asdict(record)).encode()
        raw, _ = without_lone_surrogates(text)
        try:
            return raw, msgspec.json.decode(raw, type=Record)
        except msgspec.MsgspecError as error:
            raise ValueError(f"holds a value that cannot be kept: {error}") from None


def digests(messages: tuple[Message, ...]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return ``Turn.said`` and ``Turn.exact``: 16 bytes for each response."""
    words, everything = hashlib.sha256(), hashlib.sha256()
    said: list[bytes] = []
    exact: list[bytes] = []
    for message in messages:
        if message.role in (Role.SYSTEM, Role.MEMORY):
            continue
        told = _told(message)
        everything.update(told)
        if message.role == Role.ASSISTANT:
            words.update(told)
            said.append(words.digest()[:16])
            exact.append(everything.digest()[:16])
    return tuple(said), tuple(exact)


def prompt_digest(messages: tuple[Message, ...]) -> bytes:
    """Return a hash of the system prompt: 16 bytes."""
    system = repr([it.text for it in messages if it.role == Role.SYSTEM])
    return hashlib.sha256(system.encode("utf-8", "surrogatepass")).digest()[:16]


def _told(message: Message) -> bytes:
    calls = [[it.name, _same(it.arguments)] for it in message.tool_calls]
    images = [[it.mime, hashlib.sha256(it.data).hexdigest()] for it in message.images]
    told = [message.role, message.text.strip(), calls, images, message.placeholders]
    return json.dumps(told).encode()


def _same(arguments: str) -> str:
    """Return arguments as they are written here: each host has its own way with white space."""
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except (RecursionError, ValueError):
        return arguments
