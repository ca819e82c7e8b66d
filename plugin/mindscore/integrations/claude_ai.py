"""Claude.ai's data export: ``conversations.json``, with ``memories.json`` beside it if it is there.

As of 2026, in the shape that is publicly described; Anthropic documents none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.readers import Reading, Source, first_text, kind_of, listed
from mindscore.readers.branches import branch_to

NOT_RECORDED = (
    "Claude's own system prompt and the definitions of the tools are not in the file: the scores "
    "are of a reconstructed context"
)
AS_OF_EXPORT = (
    "the memories are those of memories.json beside the file, as of the export: the file does not "
    "record which ones the conversation began with"
)
ATTACHED = "the text of attachments stands before the message, without Claude's own wrapping of it"
ROLES = {"human": "user", "assistant": "assistant"}
MEMORIES = "memories.json"


class ClaudeAIReader:
    """Reads an export; Claude's memory, of all conversations and of a project, is a memory."""

    def detects(self, source: Source) -> bool:
        """Return true if it begins with a conversation of Claude.ai's."""
        first = source.sample
        return isinstance(first, dict) and isinstance(first.get("chat_messages"), list)

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the conversations, named by their ids."""
        memories = _memories(source.file)

        def read(number: str, where: str, record: dict[str, Any]) -> Conversation:
            return _conversation(source, number, where, record, memories)

        return source.read_each(source.objects(), read, _name)


def _memories(file: Path) -> dict[str, str]:
    """Return the memories beside the export: of all conversations, and by a project's id."""
    beside = file.with_name(MEMORIES) if file.name.startswith("conversations") else file
    found: dict[str, str] = {}
    if beside == file or not beside.is_file():
        return found
    for _, record in Source(beside).objects():
        general, projects = record.get("conversations_memory"), record.get("project_memories")
        if isinstance(general, str) and general.strip():
            found["conversations_memory"] = general
        for project, text in projects.items() if isinstance(projects, dict) else ():
            if isinstance(text, str) and text.strip():
                found[f"project_memories/{project}"] = text
    return found


def _conversation(
    source: Source, number: str, where: str, record: dict[str, Any], memories: Mapping[str, str]
) -> Conversation:
    messages = record.get("chat_messages")
    if not isinstance(messages, list):
        source.refuse(where, f"'chat_messages': expected an array, got {kind_of(messages)}")
    reading = Reading(source)
    nodes = {first_text(it.get("uuid")): it for it in messages if isinstance(it, dict)}
    if not nodes:
        source.refuse(where, "a conversation without messages")
    is_tree = len(nodes) == len(messages) and all("parent_message_uuid" in it for it in messages)
    branch = [(str(at), it) for at, it in enumerate(messages, start=1)]
    if is_tree:
        leaf = first_text(record.get("current_leaf_message_uuid"), messages[-1].get("uuid"))
        branch = branch_to(leaf, nodes, "parent_message_uuid", reading.leave_out)
    project = record.get("project")
    own = f"project_memories/{project.get('uuid')}" if isinstance(project, dict) else ""
    remarks = [NOT_RECORDED]
    for key in ("conversations_memory", own):
        if key in memories:
            reading.add_memory(where, key, memories[key])
            remarks = [NOT_RECORDED, AS_OF_EXPORT]
    for id_, message in branch:
        place = f"{where}, message {id_}"
        with source.leaving_out(), source.placed(place):
            reading.add(place, _fields(reading, message), timestamp=_time(message))
    name = _name(record)
    title = first_text(record.get("name"))
    return reading.conversation(name or number, remarks, title=title, id_=name)


def _name(record: Mapping[str, Any]) -> str:
    return first_text(record.get("uuid"))


def _time(message: Mapping[str, Any]) -> str | None:
    return first_text(message.get("created_at")) or None


def _fields(reading: Reading, message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise ValueError(f"expected an object, got {kind_of(message)}")
    sender = message.get("sender")
    if not isinstance(sender, str) or sender not in ROLES:
        raise ValueError(f"'sender': expected one of {', '.join(ROLES)}, got {sender!r}")
    blocks = message.get("content") or message.get("text")
    if isinstance(blocks, str):
        blocks = [{"type": "text", "text": blocks}]
    attached = []
    for it in listed(message.get("attachments")):
        if isinstance(it, dict) and (text := first_text(it.get("extracted_content"))):
            attached.append({"type": "text", "text": f"{text}\n\n"})
            if ATTACHED not in reading.remarks:
                reading.remarks.append(ATTACHED)
        else:
            reading.leave_out("attached files that the file only names")
    for _ in listed(message.get("files")):
        reading.leave_out("attached files that the file only names")
    return {
        "role": ROLES[sender],
        "content": [*attached, *listed(blocks)],
        "id": message.get("uuid"),
    }
