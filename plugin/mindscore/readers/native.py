"""mindscore's own format, which marks its memories itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from mindscore.conversation.conversation import Conversation, Transcript
from mindscore.conversation.message import ROLES as MESSAGE_ROLES
from mindscore.conversation.native import ROLES, read_transcript
from mindscore.readers.arrays import PEEKED
from mindscore.readers.source import Source
from mindscore.recognisers import MemoryFinder


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeConversation(Conversation):
    """A conversation whose file marks its memories: nothing else is looked for."""

    marked: Transcript

    def transcript(self, file: Path, finder: MemoryFinder) -> Transcript:
        """Return the transcript that the file holds."""
        del file, finder
        return self.marked


class NativeReader:
    """Reads one message a line; a line that is not valid is an error here."""

    def detects(self, source: Source) -> bool:
        """Return true if the first line is such a message."""
        return _is_line(source.first) and not is_chat_log(source)

    def read(self, source: Source) -> list[Conversation]:
        """Return the one conversation.

        Raises:
            TranscriptError: names the file, the line and the reason.
        """
        marked = read_transcript(source.file, source.content)
        return [NativeConversation(source.file.stem, marked.messages, marked=marked)]


def nearly_native(source: Source) -> bool:
    """Return true if one of the first lines is such a message, even if the first is not."""
    return any(_is_line(it) for it in islice(source.peek_lines(), PEEKED))


NATIVE_ROLES = {*get_args(ROLES)}
_OWN_ROLES = {"memory", "identity"}
_OWN_FIELDS = {"key", "section", "token_ids", "body"}
_CHAT_FIELDS = {
    "tool_calls", "tool_call_id", "function_call", "refusal", "reasoning_content", "parts",
}  # fmt: skip


def is_chat_log(source: Source) -> bool:
    """Return true if its lines are messages of a chat API, one each, with a response among them.

    Lines of nothing but a role and a text are either; they are native.
    """
    first = source.first
    if not isinstance(first, dict) or "role" not in first or "messages" in first:
        return False
    is_chat = is_answered = False
    for line in source.peek_lines():
        if isinstance(line, dict):
            if _is_own(line):
                return False
            is_chat = is_chat or _is_chat(line)
            is_answered = is_answered or line.get("role") == "assistant"
    return is_chat and is_answered


def _is_own(line: Mapping[str, Any]) -> bool:
    parts = _parts(line)
    untyped = any("text" in it and "type" not in it for it in parts)
    return untyped or line.get("role") in _OWN_ROLES or not _OWN_FIELDS.isdisjoint(line)


def _is_chat(line: Mapping[str, Any]) -> bool:
    role = line.get("role")
    if not isinstance(role, str) or role not in MESSAGE_ROLES:
        return False
    typed = any("type" in it for it in _parts(line))
    return typed or role not in NATIVE_ROLES or not _CHAT_FIELDS.isdisjoint(line)


def _parts(line: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = line.get("content")
    return [it for it in content if isinstance(it, dict)] if isinstance(content, list) else []


def _is_line(value: object) -> bool:
    return (
        isinstance(value, dict) and {"role", "content"} <= value.keys() and "messages" not in value
    )
