"""Conversations that llm logged, with its fragments as their memories.

``turns`` and ``messages`` as of 0.32, ``responses`` before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from mindhooks import Image, Role
from mindscore.conversation.conversation import Conversation
from mindscore.conversation.message import Message, ToolCall
from mindscore.integrations.llm.database import (
    KINDS,
    NEW,
    OLD,
    Fragment,
    LlmDatabase,
    chain,
    marked,
    prompt_text,
    system_text,
)
from mindscore.readers.source import Source


class LlmLogsReader:
    """llm's ``logs.db``."""

    def detects(self, source: Source) -> bool:
        """Say whether the file is a SQLite database with llm's tables, new or old."""
        if not source.is_sqlite:
            return False
        with LlmDatabase(source) as database:
            return database.tables >= NEW or database.tables >= OLD

    def read(self, source: Source) -> list[Conversation]:
        """Read every conversation, the oldest first."""
        return list(reversed(list(logged(source))))


def logged(file: Path | Source, fragments_only: bool = False) -> Iterator[Conversation]:
    """Yield logged conversations, the newest first; ``fragments_only``: those that may hold some.

    Raises:
        TranscriptError: names the file, the record and the reason.
    """
    with LlmDatabase(file) as database:
        for name in _names(database, fragments_only):
            if found := _one(database, name):
                yield found


def one_logged(file: Path, name: str) -> Conversation | None:
    """Return the conversation of this name; ``None`` if there is none, or it is empty.

    Raises:
        TranscriptError: names the file, the record and the reason.
    """
    with LlmDatabase(file) as database:
        return _one(database, name)


def _one(database: LlmDatabase, name: str) -> Conversation | None:
    old, new = Responses(database, name), Thread(database, name)
    messages = tuple(new.messages(old.messages) or old.messages)
    remarks = (*new.remarks, *old.remarks)
    title = old.title or new.title
    return Conversation(name, messages, title, remarks=remarks, id=name) if messages else None


def _names(database: LlmDatabase, fragments_only: bool) -> Iterator[str]:
    """Yield the ULIDs of threads and of conversations older than threads; they sort by time."""
    queries = []
    if database.tables >= NEW:
        queries.append(
            "select id from threads where forked_from is not null or id in (select thread_id "
            "from turns join turn_fragments on turn_id = turns.id)"
            if fragments_only
            else "select id from threads"
        )
    if database.tables >= OLD:
        given = [it for it in ("prompt_fragments", "system_fragments") if it in database.tables]
        responses = " union all ".join(f"select response_id from {it}" for it in given)  # noqa: S608
        queries.append(
            "select distinct conversation_id from responses where id in "  # noqa: S608
            f"({responses or 'select null'})"
            if fragments_only
            else "select distinct conversation_id from responses where conversation_id is not null"
        )
    for row in database.rows(f"{' union '.join(queries)} order by 1 desc") if queries else ():
        if isinstance(row[0], str):
            yield row[0]


class Responses:
    """The logged responses of one conversation, from before llm 0.32, as messages."""

    def __init__(self, database: LlmDatabase, name: str) -> None:
        self._database = database
        self.messages: list[Message] = []
        self.title = ""
        self.remarks: tuple[str, ...] = ()
        if not database.tables >= OLD:
            return
        for row in database.rows("select name from conversations where id = ?", name):
            self.title = database.text(row, "name")
        system = ""
        for row in database.rows(
            "select id, prompt, system, response, datetime_utc from responses "
            "where conversation_id = ? order by id",
            name,
        ):
            system = self._turn(row, system)

    def _turn(self, row: sqlite3.Row, system: str) -> str:
        """Add one request and its response; return the system prompt, added where it changes."""
        database, id_ = self._database, row["id"]
        given = database.fragments("system_fragments", "response_id", id_, "system")
        text = system_text(given, database.text(row, "system"))
        if text and text != system:
            self._add(Message(Role.SYSTEM, text), given)
        given = database.fragments("prompt_fragments", "response_id", id_, "prompt")
        if asked := prompt_text(given, database.text(row, "prompt")):
            self._add(Message(Role.USER, asked), given)
        if "tool_results" in database.tables:
            found = database.rows("select output from tool_results where response_id = ?", id_)
            self.messages += [Message(Role.TOOL, database.text(it, "output")) for it in found]
        calls = []
        if "tool_calls" in database.tables:
            found = database.rows(
                "select name, arguments from tool_calls where response_id = ?", id_
            )
            calls = [ToolCall(database.text(it, "name"), it["arguments"] or "{}") for it in found]
            if calls:
                self.remarks = ("the tools' definitions are not part of the prompt",)
        when = database.time(row, f"response {id_}")
        said = database.text(row, "response")
        if said or calls:
            answer = Message(Role.ASSISTANT, said, tuple(calls), id=id_, timestamp_ns=when)
            self.messages.append(answer)
        return text or system

    def _add(self, message: Message, fragments: Sequence[Fragment]) -> None:
        self.messages.append(marked(message, fragments, KINDS[message.role]) or message)


TURNS = (
    "select id, thread_id, parent_message_hash, tip_message_hash, schema_id, datetime_utc "
    "from turns"
)


class Thread:
    """A thread as of llm 0.32: what was sent and said, as a chain of messages."""

    def __init__(self, database: LlmDatabase, name: str) -> None:
        self._database = database
        self._threads: list[sqlite3.Row] = []
        self._turns: list[sqlite3.Row] = []
        self._remarks: dict[str, None] = {}
        if database.tables >= NEW:
            self._threads = database.rows(
                "select name, tip_message_hash from threads where id = ?", name
            )
            self._turns = database.rows(f"{TURNS} where thread_id = ? order by id", name)
        self._senders: dict[str, list[sqlite3.Row]] = {}
        for turn in self._turns:
            self._senders.setdefault(turn["parent_message_hash"], []).append(turn)

    @property
    def title(self) -> str:
        """The thread's own name."""
        return self._database.text(self._threads[0], "name") if self._threads else ""

    @property
    def remarks(self) -> tuple[str, ...]:
        """Remarks on what of the thread cannot be part of a prompt."""
        return tuple(self._remarks)

    def messages(self, before: list[Message]) -> list[Message]:
        """Return the thread's messages; ``before``: those that older versions logged of it."""
        tip = self._threads[0]["tip_message_hash"] if self._threads else None
        tip = tip or (self._turns[-1]["tip_message_hash"] if self._turns else None)
        if tip is None:
            return []
        known = {(it.role, it.text): it for it in before}
        times = {it["tip_message_hash"]: it for it in self._turns}
        found: list[Message] = []
        rows = list(chain(self._database, tip))
        there = {row["hash"] for row in rows}
        if any(turn["tip_message_hash"] not in there for turn in self._turns):
            self._remark("turns on other branches than the conversation's last one are left out")
        for at, row in enumerate(rows):
            following = rows[at + 1]["hash"] if at + 1 < len(rows) else None
            turn = times.get(row["hash"])
            when = self._database.time(turn, f"turn {turn['id']}") if turn is not None else None
            for message in self._said(row):
                if message.role in KINDS:
                    message = self._marked(message, row["hash"], following, known)
                elif when is None and (alike := known.get((message.role, message.text))):
                    when = alike.timestamp_ns
                found.append(replace(message, timestamp_ns=when))
        self._tools()
        return found

    def _marked(
        self,
        message: Message,
        hash_: str,
        following: str | None,
        known: dict[tuple[Role, str], Message],
    ) -> Message:
        """Return the message with the fragments of the turn that first sent it marked."""
        kind = KINDS[message.role]
        sent = [hash_, following] if kind == "system" else [hash_]
        own = [turn for it in sent if it for turn in self._senders.get(it, ())]
        # A fork's first messages were sent by the thread that it left.
        for turn in own or self._database.rows(
            f"{TURNS} where parent_message_hash in (?, ?) order by id",
            sent[0],
            sent[-1],
        ):
            fragments = self._database.fragments("turn_fragments", "turn_id", turn["id"], kind)
            if fragments and (found := marked(message, fragments, kind)):
                return found
            if fragments:
                names = ", ".join(it.key for it in fragments)
                self._remark(
                    f"a {message.role} message does not print its fragments ({names}) as llm does: "
                    "they stay plain text"
                )
        alike = known.get((message.role, message.text))
        if not own and alike is not None:
            return replace(message, blocks=alike.blocks, memory_key=alike.memory_key)
        return message

    def _said(self, row: sqlite3.Row) -> Iterator[Message]:
        """Yield a row as one message, or as one for each result of a tool."""
        role, hash_ = row["role"], row["hash"]
        if role not in list(Role):
            self._database.refuse(f"message {hash_}", f"has the role {role!r}")
        texts: list[str] = []
        calls: list[ToolCall] = []
        images: list[Image] = []
        results: list[str] = []
        parts = self._database.rows(
            "select id, type, text, payload from parts where message_hash = ? order by position",
            hash_,
        )
        for part in parts:
            payload = self._database.json(part, "payload", f"part {part['id']}")
            if part["type"] == "text":
                texts.append(self._text(part, payload))
            elif part["type"] == "tool_call":
                arguments = msgspec.json.encode(payload.get("arguments", {})).decode()
                calls.append(ToolCall(str(payload.get("name")), arguments))
            elif part["type"] == "tool_result":
                results.append(str(payload.get("output", "")))
            elif part["type"] == "attachment":
                images += self._image(payload)
            else:
                self._remark(f"parts of type {part['type']} are left out")
        if results:
            yield from (Message(Role.TOOL, it, id=hash_) for it in results)
        else:
            text = "".join(texts)
            yield Message(Role(role), text, tuple(calls), id=hash_, images=tuple(images))

    def _text(self, part: sqlite3.Row, payload: dict[str, Any]) -> str:
        where = f"part {part['id']}"
        text = self._database.text(part, "text")
        for piece in payload.get("text_ref") or ():
            if isinstance(piece, dict) and isinstance(piece.get("literal"), str):
                text += piece["literal"]
            elif isinstance(piece, dict) and isinstance(piece.get("fragment"), int):
                text += self._database.fragment(piece["fragment"]).content
            else:
                self._database.refuse(where, "holds what is neither text nor a fragment")
        return text

    def _image(self, payload: dict[str, Any]) -> list[Image]:
        given = payload.get("attachment")
        name = str(given.get("id")) if isinstance(given, dict) else ""
        image = self._database.attachment(name)
        if image is None:
            self._remark("attachments that are no images, or not in the database, are left out")
        return [image] if image is not None else []

    def _tools(self) -> None:
        """Remark on requests with tools or schemas, which are no message."""
        schemas = any(it["schema_id"] for it in self._turns)
        tools = self._turns and self._database.rows(
            "select 1 from turn_tools join turns on turns.id = turn_id where thread_id = ? limit 1",
            self._turns[0]["thread_id"],
        )
        if tools or schemas:
            self._remark("the tools' and schemas' definitions are not part of the prompt")

    def _remark(self, remark: str) -> None:
        self._remarks[remark] = None
