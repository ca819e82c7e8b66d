"""Open WebUI's export of chats, all of them or one. As of 0.6 and 0.8."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.readers import Reading, Source, first_text, iso_time, kind_of, listed
from mindscore.readers.branches import branch_to

_DETAILS = re.compile(
    r"<details type=\"(?P<type>reasoning|tool_calls)\"(?P<attributes>[^>]*)>\n?"
    r"(?:<summary>[^<]*</summary>\n?)?(?P<body>[^<]*(?:<(?!/?details\b)[^<]*)*)</details>\n?"
)
_ATTRIBUTE = re.compile(r"(\w+)=\"([^\"]*)\"")


class OpenWebUIReader:
    """Reads chats on their current branch."""

    def detects(self, source: Source) -> bool:
        """Return true if it begins with a chat, its messages in a tree or in a list."""
        first = source.sample
        chat = first.get("chat") if isinstance(first, dict) else None
        return isinstance(chat, dict) and (
            isinstance(chat.get("history"), dict) or isinstance(chat.get("messages"), list)
        )

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the chats, named by their ids."""

        def read(number: str, where: str, record: dict[str, Any]) -> Conversation:
            return _conversation(source, number, where, record)

        return source.read_each(source.objects(), read, _name)


def _name(record: dict[str, Any]) -> str:
    chat = record.get("chat")
    return first_text(record.get("id"), chat.get("id") if isinstance(chat, dict) else None)


def _conversation(source: Source, number: str, where: str, record: dict[str, Any]) -> Conversation:
    chat = record.get("chat")
    if not isinstance(chat, dict):
        source.refuse(where, f"'chat': expected an object, got {kind_of(chat)}")
    reading = Reading(source)
    params = chat.get("params")
    system = first_text(params.get("system") if isinstance(params, dict) else None)
    if system := first_text(system, chat.get("system")):
        reading.add(where, {"role": "system", "content": system})
    history = chat.get("history")
    nodes = history.get("messages") if isinstance(history, dict) else None
    if isinstance(nodes, dict) and isinstance(history, dict):
        branch = branch_to(history.get("currentId"), nodes, "parentId", reading.leave_out)
    else:
        branch = [(str(at), it) for at, it in enumerate(listed(chat.get("messages")), start=1)]
    for id_, message in branch:
        place = f"{where}, message {id_}"
        with source.leaving_out(), source.placed(place):
            if not isinstance(message, dict):
                raise ValueError(f"expected an object, got {kind_of(message)}")
            when = iso_time(message.get("timestamp"))
            reading.add(place, {**_fields(reading, message), "id": id_}, timestamp=when)
    if not reading.messages:
        source.refuse(where, "a chat without messages")
    name = _name(record)
    title = first_text(record.get("title"), chat.get("title"))
    return reading.conversation(name or number, title=title, id_=name)


def _fields(reading: Reading, message: dict[str, Any]) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    blocks: Any = content
    if isinstance(content, str):
        blocks = _blocks(content) if role == "assistant" else [{"type": "text", "text": content}]
    for it in listed(message.get("files")):
        url = first_text(it.get("url")) if isinstance(it, dict) else ""
        if url.startswith("data:image/") and isinstance(blocks, list):
            blocks = [*blocks, {"type": "image_url", "image_url": {"url": url}}]
        else:
            reading.leave_out("attached files that the file only names")
    if message.get("sources"):
        reading.leave_out("lists of documents that were added to the prompt")
    return {"role": role, "content": blocks}


def _blocks(content: str) -> list[dict[str, Any]]:
    """Return what a response says: its reasoning, calls and their results stand in HTML."""
    found: list[dict[str, Any]] = []
    at = 0
    for details in _DETAILS.finditer(content):
        found.append({"type": "text", "text": content[at : details.start()]})
        at = details.end()
        given = {key: html.unescape(it) for key, it in _ATTRIBUTE.findall(details["attributes"])}
        if details["type"] == "reasoning":
            lines = html.unescape(details["body"]).strip().split("\n")
            found.append({"type": "reasoning", "text": "\n".join(_unquoted(it) for it in lines)})
            continue
        arguments, id_ = _plain(given.get("arguments", "")), given.get("id", "")
        found.append({"type": "tool_use", "name": given.get("name"), "id": id_, "input": arguments})
        if given.get("done") != "false":
            result = _plain(given.get("result", ""))
            found.append({"type": "tool_result", "tool_use_id": id_, "content": result})
    found.append({"type": "text", "text": content[at:]})
    said = [it for it in found if it.get("text") or it["type"] not in ("text", "reasoning")]
    return said or [{"type": "text", "text": ""}]


def _unquoted(line: str) -> str:
    return line.removeprefix(">").removeprefix(" ")


def _plain(text: str) -> str:
    """Return a text that may be written as JSON once more."""
    try:
        value = json.loads(text)
    except (RecursionError, ValueError):
        return text
    return value if isinstance(value, str) else text
