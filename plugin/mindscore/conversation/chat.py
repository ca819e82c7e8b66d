"""Read the messages of any chat API: OpenAI's, Anthropic's, Gemini's, Vercel's and others'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mindhooks import Image, Role
from mindscore._util.errors import TranscriptError
from mindscore._util.text import shortened
from mindscore.conversation.blocks import (
    Omitted,
    Piece,
    Reasoning,
    Step,
    Text,
    ToolResult,
    first_field,
    invocation,
    read_blocks,
    read_call,
    reasoning_text,
    said,
)
from mindscore.conversation.message import ROLES, Message, ToolCall

FIELDS = (
    "role", "content", "parts", "id", "refusal", "reasoning_content", "reasoning", "thinking",
    "tool_calls", "function_call", "additional_kwargs", "toolInvocations", "tool_call_id",
    "toolCallId", "call_id", "name", "tool_name", "toolName",
)  # fmt: skip
"""The fields of a message that are read."""

LeaveOut = Callable[[str], None]
"""Is told the name of one thing that a conversation goes without."""

NAMED_KINDS = 10
"""Most kinds of omitted parts that a remark names."""

NO_CONTENT = "responses whose content is not understood"
SAYS_NOTHING = "responses that say nothing"


class LeftOut(Counter[str]):
    """Counts of what a conversation goes without, by name."""

    def add(self, what: str) -> None:
        """Count one more."""
        self[what] += 1

    def remarks(self) -> list[str]:
        """Return a line that names them with their counts, or none."""
        named = [
            f"{shortened(what, 60)} ({number:,})" for what, number in self.most_common(NAMED_KINDS)
        ]
        if len(self) > NAMED_KINDS:
            named.append(f"{len(self) - NAMED_KINDS:,} more kinds")
        return [f"left out: {', '.join(named)}"] if named else []


def read_messages(fields: Mapping[str, Any], leave_out: LeaveOut) -> list[Message]:
    """Return what one message of a chat API says: several messages if it brings tools' results.

    A response of which nothing is understood is left out; so no response is empty by mistake.

    Raises:
        TranscriptError: it is not a message; the text says why.
    """
    given = fields.get("role")
    if not isinstance(given, str) or given not in ROLES:
        raise TranscriptError(f"'role': expected one of {', '.join(ROLES)}, got {given!r}")
    role = ROLES[given]
    pieces: list[Piece] = []
    for piece in _pieces(fields):
        if isinstance(piece, Omitted):
            leave_out(piece.what)
        pieces.append(piece)
    name = first_field(fields, "id")
    if role == Role.ASSISTANT:
        return _responses(name, pieces, leave_out)
    if role == Role.TOOL and not any(isinstance(it, ToolResult) for it in pieces):
        text, images = said(pieces)
        called = first_field(fields, "tool_call_id", "toolCallId", "call_id")
        tool = first_field(fields, "name", "tool_name", "toolName")
        return [Message(role, text, id=name, images=images, tool_call_id=called, name=tool)]
    return _asked(role, name, pieces)


def _asked(role: Role, name: str, pieces: Sequence[Piece]) -> list[Message]:
    """Return a message for each result of a tool, and one for what is said before and after."""
    found: list[Message] = []
    spoken: list[Piece] = []

    def speak() -> None:
        if spoken:
            text, images = said(spoken)
            found.append(Message(role, text, id=name, images=images))
            spoken.clear()

    for piece in pieces:
        if isinstance(piece, ToolResult):
            speak()
            found.append(_tool_message(piece, name))
        elif isinstance(piece, Text | Image):
            spoken.append(piece)
    speak()
    return found or [Message(role, "", id=name)]


def _tool_message(result: ToolResult, name: str) -> Message:
    return Message(
        Role.TOOL,
        result.text,
        id=name,
        images=result.images,
        tool_call_id=result.call_id,
        name=result.name,
    )


@dataclass(slots=True)
class _Response:
    """One response as its pieces come in, and the results of its calls."""

    texts: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    results: list[ToolResult] = field(default_factory=list)

    def messages(self, name: str) -> Iterator[Message]:
        """Yield the response, if it says anything, and the results."""
        if self.texts or self.calls or self.images:
            yield Message(
                Role.ASSISTANT,
                "".join(self.texts),
                tuple(self.calls),
                id=name,
                images=tuple(self.images),
                reasoning="\n".join(self.reasoning),
            )
        for result in self.results:
            yield _tool_message(result, name)


def _responses(name: str, pieces: Sequence[Piece], leave_out: LeaveOut) -> list[Message]:
    """Return a response for each request to the model, with the tools' results between them."""
    found: list[Message] = []
    at = _Response()
    for piece in pieces:
        # Parallel calls may stand beside their results; what is said after those is another turn.
        is_next = isinstance(piece, Step) or (
            bool(at.results) and isinstance(piece, Text | Reasoning)
        )
        if is_next:
            found += at.messages(name)
            at = _Response()
        if isinstance(piece, Text):
            at.texts.append(piece.text)
        elif isinstance(piece, Reasoning):
            at.reasoning.append(piece.text)
        elif isinstance(piece, ToolCall):
            at.calls.append(piece)
        elif isinstance(piece, Image):
            at.images.append(piece)
        elif isinstance(piece, ToolResult):
            at.results.append(piece)
    found += at.messages(name)
    if not found:
        unknown = any(isinstance(it, Omitted) for it in pieces)
        leave_out(NO_CONTENT if unknown else SAYS_NOTHING)
    return found


def _pieces(fields: Mapping[str, Any]) -> Iterator[Piece]:
    for key in ("reasoning_content", "reasoning", "thinking"):
        if text := reasoning_text(fields.get(key)):
            yield Reasoning(text)
            break
    parts = fields.get("parts")
    content = parts if isinstance(parts, list) and parts else fields.get("content")
    calls = list(_calls(fields))
    known = {it.id for it in calls if it.id}
    is_empty = True
    for piece in read_blocks(content):
        is_empty = is_empty and not (isinstance(piece, Text) and piece.text)
        # The same call may stand among the blocks and in a field of its own.
        if isinstance(piece, ToolCall) and (piece.id in known or piece in calls):
            continue
        if isinstance(piece, Omitted) and piece.what in _REPEATED and calls:
            continue
        yield piece
    if is_empty and isinstance(refusal := fields.get("refusal"), str):
        yield Text(refusal)
    yield from calls
    for item in _list(fields, "toolInvocations"):
        yield from invocation(item)


_REPEATED = ("tool_call_chunk", "input_json_delta", "invalid_tool_call")
"""Blocks that repeat, piece by piece, a call which the message holds elsewhere too."""


def _calls(fields: Mapping[str, Any]) -> Iterator[ToolCall]:
    extra = fields.get("additional_kwargs")
    for holder in (fields, extra if isinstance(extra, Mapping) else {}):
        given = holder.get("tool_calls") or ()
        if not isinstance(given, Sequence) or isinstance(given, str):
            raise TranscriptError("'tool_calls': expected a list")
        older = holder.get("function_call")
        if not given and older is not None:
            given = [older]
        if given:
            yield from map(read_call, given)
            return


def _list(fields: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = fields.get(key)
    return [it for it in value if isinstance(it, Mapping)] if isinstance(value, list) else []
