"""A conversation as llm logged it before 0.32: a response a row."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from mindscore.chat.message import ChatMessage
from mindscore.chat.tool_call import ToolCall
from mindscore.hosts.llm_database import OLD, LlmDatabase
from mindscore.hosts.llm_fragments import KINDS, Fragment, marked, prompt_text, system_text


class Responses:
    """The responses of one conversation; without messages where there are none."""

    def __init__(self, database: LlmDatabase, name: str) -> None:
        self._database = database
        self.messages: list[ChatMessage] = []
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
        """One request and its response; a system prompt is sent again where it changes."""
        database, id_ = self._database, row["id"]
        given = database.fragments("system_fragments", "response_id", id_, "system")
        text = system_text(given, database.text(row, "system"))
        if text and text != system:
            self._add(ChatMessage("system", text), given)
        given = database.fragments("prompt_fragments", "response_id", id_, "prompt")
        if asked := prompt_text(given, database.text(row, "prompt")):
            self._add(ChatMessage("user", asked), given)
        if "tool_results" in database.tables:
            found = database.rows("select output from tool_results where response_id = ?", id_)
            self.messages += [ChatMessage("tool", database.text(it, "output")) for it in found]
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
            answer = ChatMessage("assistant", said, tuple(calls), id=id_, timestamp_ns=when)
            self.messages.append(answer)
        return text or system

    def _add(self, message: ChatMessage, fragments: Sequence[Fragment]) -> None:
        self.messages.append(marked(message, fragments, KINDS[message.role]) or message)
