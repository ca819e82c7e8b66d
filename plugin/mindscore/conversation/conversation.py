"""A conversation of chat messages, made into a transcript with its memories marked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mindhooks import Part, Role
from mindscore.conversation.message import ChatMessage, Message, with_ids
from mindscore.conversation.native import Transcript
from mindscore.recognisers import Found, MemoryFinder


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation of a file, or a host's.

    ``name`` tells it from the file's others, ``title`` is for people. ``memories`` are those that
    the source itself names, ``remarks`` what it does not record.
    """

    name: str
    messages: tuple[ChatMessage, ...]
    title: str = ""
    memories: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def transcript(self, file: Path, finder: MemoryFinder) -> Transcript:
        """The conversation with the memories that ``finder`` recognises in it.

        What ``finder`` refused is among the transcript's remarks.
        """
        remarks = dict.fromkeys((*self.remarks, *finder.remarks))
        sections: dict[str, list[Message]] = {"system": [], "identity": [], "conversation": []}
        spoken = False
        for name, message in with_ids(self.messages):
            found = Found(message.blocks, ())
            if not message.blocks:
                found = finder.find(message.role, message.text)
            remarks.update(dict.fromkeys(found.remarks))
            spoken = spoken or message.role in ("user", "assistant")
            sections[_section(message, spoken)].append(_message(name, message, found))
        system, identity, conversation = map(tuple, sections.values())
        return Transcript(file, system, identity, conversation, tuple(remarks))


def _section(message: ChatMessage, spoken: bool) -> str:
    if spoken:
        return "conversation"
    return {"system": "system", "memory": "identity"}.get(message.role, "conversation")


def _message(name: str, message: ChatMessage, found: Found) -> Message:
    return Message(
        id=name,
        role=Role(message.role),
        text=message.text,
        key=message.memory_key,
        parts=_parts(message.text, found) if found.blocks else (),
        timestamp_ns=message.timestamp_ns,
        images=message.images,
        token_ids=None,
        body=None,
        tool_calls=message.tool_calls,
        without=_Without(message.text, found) if found.blocks else None,
    )


def _parts(text: str, found: Found) -> tuple[Part, ...]:
    """The text between the blocks as it is, and each entry as a part of its own."""
    parts: list[Part] = []
    at = 0
    for block in found.blocks:
        parts.append(Part(text[at : block.start], None))
        parts += [Part(entry.text, entry.key) for entry in block.entries]
        at = block.end
    parts.append(Part(text[at:], None))
    return tuple(part for part in parts if part.text)


@dataclass(frozen=True, slots=True)
class _Without:
    """What the message would have said without some of its memories, by their hosts' rules."""

    text: str
    found: Found

    def __call__(self, skipped: frozenset[str]) -> str:
        text, at = "", 0
        for block in self.found.blocks:
            text += self.text[at : block.start] + block.render(skipped)
            at = block.end
        return text + self.text[at:]
