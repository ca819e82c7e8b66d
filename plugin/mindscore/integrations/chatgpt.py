"""ChatGPT's data export: ``conversations.json``, or one of its parts ``conversations-*.json``.

As of 2026, in the shape that is publicly described; OpenAI documents none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from mindhooks import Role
from mindscore.conversation.conversation import Conversation
from mindscore.conversation.message import Message
from mindscore.readers import Reading, Source, first_text, iso_time, kind_of, listed
from mindscore.readers.branches import branch_to
from mindscore.readers.memories import slug
from mindscore.recognisers import Block, Entry

NOT_RECORDED = (
    "ChatGPT's own system prompt, a custom GPT's instructions and the definitions of the tools are "
    "not in the file: the scores are of a reconstructed context"
)
INSTRUCTIONS = {"user_profile": "about_user_message", "user_instructions": "about_model_message"}
"""Custom instructions as a message holds them, and their names in its metadata: their keys."""

_SAVED = re.compile(r"^(?P<number>\d+)\. (?P<date>\[[^\]\n]*\]\. ?)?", re.MULTILINE)


class ChatGPTReader:
    """Reads an export; custom instructions and saved memories are memories."""

    def detects(self, source: Source) -> bool:
        """Return true if it begins with a conversation that is such a tree of messages."""
        first = source.sample
        mapping = first.get("mapping") if isinstance(first, dict) else None
        if not isinstance(mapping, dict):
            return False
        nodes = [it for it in mapping.values() if isinstance(it, dict)]
        return "current_node" in first or any("message" in it for it in nodes[:1])

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the conversations, named by their ids."""

        def read(number: str, where: str, record: dict[str, Any]) -> Conversation:
            return _Chat(source, where, record).conversation(number)

        return source.read_each(source.objects(), read, _name)


def _name(record: dict[str, Any]) -> str:
    return first_text(record.get("conversation_id"), record.get("id"))


class _Chat:
    def __init__(self, source: Source, where: str, record: dict[str, Any]) -> None:
        self._source, self._where, self._record = source, where, record
        self._reading = Reading(source)
        self._memories: dict[str, str] = {}
        self._thoughts: list[str] = []

    def conversation(self, number: str) -> Conversation:
        mapping = self._record.get("mapping")
        if not isinstance(mapping, dict):
            self._source.refuse(
                self._where, f"'mapping': expected an object, got {kind_of(mapping)}"
            )
        leaf, leave_out = self._record.get("current_node"), self._reading.leave_out
        for id_, node in branch_to(leaf, mapping, "parent", leave_out):
            message = node.get("message")
            if isinstance(message, dict):
                place = f"{self._where}, message {id_}"
                with self._source.leaving_out(), self._source.placed(place):
                    self._message(id_, message)
        if not self._reading.messages:
            self._source.refuse(self._where, "a conversation without messages")
        name = _name(self._record)
        title = first_text(self._record.get("title"))
        return self._reading.conversation(
            name or number, [NOT_RECORDED], title=title, memories=self._memories, id_=name
        )

    def _message(self, id_: str, message: dict[str, Any]) -> None:
        author, content = message.get("author"), message.get("content")
        if not isinstance(author, dict) or not isinstance(content, dict):
            raise ValueError("expected an author and a content")
        kind, when = content.get("content_type"), iso_time(message.get("create_time"))
        role, where = author.get("role"), f"{self._where}, message {id_}"
        if kind == "user_editable_context":
            for field, key in INSTRUCTIONS.items():
                if text := first_text(content.get(field)):
                    self._reading.add_memory(where, key, text, timestamp=when)
        elif kind == "model_editable_context":
            self._saved(id_, first_text(content.get("model_set_context")))
        elif kind == "thoughts":
            said = [it for it in listed(content.get("thoughts")) if isinstance(it, dict)]
            self._thoughts += [first_text(it.get("content"), it.get("summary")) for it in said]
        elif kind == "reasoning_recap":
            self._reading.leave_out("recaps of reasoning")
        elif fields := self._fields(message, author, content):
            reasoning = None
            if role == "assistant":
                reasoning, self._thoughts = "\n".join(self._thoughts), []
            fields = {**fields, "role": role, "id": id_, "reasoning_content": reasoning}
            self._reading.add(where, fields, timestamp=when)

    def _saved(self, id_: str, text: str) -> None:
        """Add what the ``bio`` tool has saved, numbered anew without those left out."""
        heads = list(_SAVED.finditer(text))
        if not heads:
            if not text.strip():
                self._reading.leave_out("saved memories that the file does not hold")
            else:
                self._reading.messages.append(Message(Role.SYSTEM, text, id=id_))
            return
        ends = [it.start() for it in heads[1:]] + [len(text)]
        items: list[tuple[str, str]] = []
        for head, end in zip(heads, ends, strict=True):
            item = text[head.start() + len(head["number"]) : end]
            items.append((slug(text[head.end() : end]), item))
        entries = dict(items)

        def render(skipped: frozenset[str]) -> str:
            left = [item for key, item in items if key not in skipped]
            return "".join(f"{number}{item}" for number, item in enumerate(left, start=1))

        block = Block(
            heads[0].start(), len(text), tuple(Entry(*it) for it in entries.items()), render
        )
        message = Message(Role.SYSTEM, text, id=id_)
        if len(entries) == len(items) and render(frozenset()) == text[block.start :]:
            message = message.with_blocks([block])
        self._reading.messages.append(message)

    def _fields(
        self, message: dict[str, Any], author: dict[str, Any], content: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Return what a message says; ``None`` of one that says nothing."""
        metadata = message.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        given = metadata.get("user_context_message_data")
        for key in INSTRUCTIONS.values():
            if isinstance(given, dict) and (text := first_text(given.get(key))):
                self._memories[key] = text
        for _ in listed(metadata.get("attachments")):
            self._reading.leave_out("attached files that the file only names")
        blocks = _blocks(content)
        text = "".join(it["text"] for it in blocks if it["type"] == "text")
        recipient = first_text(message.get("recipient"))
        if author.get("role") == "assistant" and recipient not in ("", "all"):
            return {"content": "", "tool_calls": [_call(recipient, text, message.get("id"))]}
        if author.get("role") == "tool":
            return {"content": blocks, "name": author.get("name")}
        # The root of every conversation is an empty system message.
        is_empty = author.get("role") == "system" and not text
        return None if is_empty else {"content": blocks}


def _blocks(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a content as blocks of text, images, and others that are counted by their type."""
    kind = first_text(content.get("content_type"))
    unknown = kind if kind not in ("", "text") else "content without text"
    parts = content.get("parts")
    if not isinstance(parts, list):
        fields = ("text", "result", "output_str", "content")
        text = first_text(*(content.get(it) for it in fields))
        return [{"type": "text", "text": text}] if text else [{"type": unknown}]
    found: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, str):
            found.append({"type": "text", "text": part})
        elif not isinstance(part, dict):
            raise ValueError(f"'parts': expected text or objects, got {kind_of(part)}")
        elif part.get("content_type") == "image_asset_pointer":
            found.append({"type": "image"})
        elif text := first_text(part.get("text")):
            found.append({"type": "text", "text": text})
        else:
            found.append({"type": first_text(part.get("content_type")) or "parts of no type"})
    return found


def _call(tool: str, text: str, id_: Any) -> dict[str, Any]:
    """Return what is said to a tool as a call of it: text of any form, or JSON."""
    try:
        is_object = isinstance(json.loads(text), dict)
    except (RecursionError, ValueError):
        is_object = False
    if is_object:
        return {"id": id_, "function": {"name": tool, "arguments": text}}
    return {"id": id_, "custom": {"name": tool, "input": text}}
