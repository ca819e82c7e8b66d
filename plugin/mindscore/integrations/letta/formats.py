"""Letta: the memory blocks that its server prints in the system prompt, and agent files.

As of 0.16.8, its last version in Python (``letta/schemas/memory.py``), with line numbers or not;
agent files (``.af``) of that version and of the first one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.readers import Reading, Source, first_text, kind_of, listed
from mindscore.recognisers import Block, Entry, Unread, hookimpl

_NAME = "<memory_blocks>\n"
_OPEN = f"{_NAME}The following memory blocks are currently engaged in your core memory unit:\n\n"
_CLOSE = "\n</memory_blocks>"
_BLOCK = re.compile(
    r"<(?P<label>[^<>\n]+)>\n<description>\n.*?\n</description>\n<metadata>(?:\n- read_only=true)?"
    r"\n- chars_current=(?P<length>\d{1,9})\n- chars_limit=\d+\n</metadata>\n"
    r"(?P<numbered><warning>\n[^\n]*\n</warning>\n)?<value>\n",
    re.DOTALL,
)
_FILES = "<projection>$MEMORY_DIR/"


class Letta:
    """The recogniser of memory blocks; keys are ``letta:LABEL``."""

    @hookimpl
    def find_memories(self, role: str, text: str) -> Iterator[Block | Unread]:
        """Find the section of a system prompt, whose blocks state their own lengths."""
        if role != "system":
            return
        start = text.find(_NAME)
        if start >= 0:
            yield _section(text, start) or Unread(
                start, len(text), "the memory blocks are not as their lengths say"
            )
        if (files := text.find(_FILES)) >= 0:
            yield Unread(files, len(text), "memories kept in git cannot be told apart yet")


def _section(text: str, start: int) -> Block | None:
    entries: list[Entry] = []
    at, numbered = start + len(_OPEN), False
    if not text.startswith(_OPEN, start):
        return None
    while not entries or not text.startswith(_CLOSE, at):
        if entries and not text.startswith("\n", at):
            return None
        at += 1 if entries else 0
        head = _BLOCK.match(text, at)
        if head is None:
            return None
        numbered = head["numbered"] is not None
        length = int(head["length"])
        end = _numbered(text, head.end(), length) if numbered else head.end() + length + 1
        closing = f"</value>\n</{head['label']}>\n"
        if end is None or not text.startswith(f"\n{closing}", end - 1):
            return None
        end += len(closing)
        entries.append(Entry(f"letta:{head['label']}", text[at:end]))
        at = end
    # Only what it prints with line numbers, it prints of no blocks too.
    nothing = _OPEN + _CLOSE if numbered else ""

    def render(skipped: frozenset[str]) -> str:
        left = "\n".join(entry.text for entry in entries if entry.key not in skipped)
        return _OPEN + left + _CLOSE if left else nothing

    return Block(start, at + len(_CLOSE), tuple(entries), render)


def _numbered(text: str, at: int, length: int) -> int | None:
    """Return the end of lines ``1→ …``, ``2→ …`` of ``length`` characters; ``None`` if not so."""
    said, number = -1 if length else 0, 0
    while said < length:
        number += 1
        mark, end = f"{number}→ ", text.find("\n", at)
        if end < 0 or not text.startswith(mark, at):
            return None
        said += 1 + end - at - len(mark)
        at = end + 1
    return at if said == length else None


class LettaReader:
    """Reads agent files; each agent is a conversation, its memory blocks are memories."""

    def detects(self, source: Source) -> bool:
        """Return true of an agent file, new or old."""
        first = source.first
        if not isinstance(first, dict):
            return False
        is_new = isinstance(first.get("agents"), list) and isinstance(first.get("blocks"), list)
        return is_new or ("core_memory" in first and "messages" in first)

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the agents' messages that are in context, named by the agents' ids."""
        file = source.whole()
        if not isinstance(file, dict):
            source.refuse("the file", f"expected an object, got {kind_of(file)}")
        agents = [("the file", file)]
        if "agents" in file:
            agents = list(source.items("the file", "agents", file["agents"], "agent"))

        def read(number: str, where: str, agent: dict[str, Any]) -> Conversation:
            return _agent(source, number, where, agent, file)

        return source.read_each(agents, read)


def _objects(value: Any) -> list[dict[str, Any]]:
    return [it for it in listed(value) if isinstance(it, dict)]


def _agent(
    source: Source, number: str, where: str, agent: dict[str, Any], file: dict[str, Any]
) -> Conversation:
    reading = Reading(source)
    messages = list(source.items(where, "messages", agent.get("messages"), "message"))
    named, numbers = agent.get("in_context_message_ids"), agent.get("in_context_message_indices")
    in_context = set(range(len(messages)))
    if isinstance(named, list) and named:
        in_context = {at for at, (_, it) in enumerate(messages) if it.get("id") in named}
    elif isinstance(numbers, list) and numbers:
        in_context &= {it for it in numbers if isinstance(it, int)}
    for at, (place, message) in enumerate(messages):
        if at not in in_context:
            reading.leave_out("messages that are out of the context")
            continue
        with source.leaving_out(), source.placed(place):
            reading.add(place, _fields(message))
    own = agent.get("block_ids")
    blocks = _objects(agent.get("core_memory")) or [
        it
        for it in _objects(file.get("blocks"))
        if not isinstance(own, list) or it.get("id") in own
    ]
    memories = {
        f"letta:{label}": value
        for it in blocks
        if (label := first_text(it.get("label"))) and (value := first_text(it.get("value"))).strip()
    }
    tools = [it.get("json_schema") for it in _objects(agent.get("tools") or file.get("tools"))]
    name, title = first_text(agent.get("id")), first_text(agent.get("name"))
    return reading.conversation(
        name or number, title=title, memories=memories, tools=tools, id_=name
    )


def _fields(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message with its content, or the ``text`` of old files."""
    content = message.get("content")
    return {**message, "content": message.get("text") if content is None else content}
