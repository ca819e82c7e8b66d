"""Conversations that llm logged, with its fragments as their memories.

``turns`` and ``messages`` as of 0.32, ``responses`` before.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mindscore.conversation.conversation import Conversation
from mindscore.integrations.llm.database import NEW, OLD, LlmDatabase
from mindscore.integrations.llm.messages import Responses, Thread
from mindscore.readers.source import Source


class LlmLogsReader:
    """llm's ``logs.db``."""

    def detects(self, source: Source) -> bool:
        """Whether the file is a SQLite database with llm's tables, new or old."""
        if not source.is_sqlite:
            return False
        with LlmDatabase(source.file) as database:
            return database.tables >= NEW or database.tables >= OLD

    def read(self, source: Source) -> list[Conversation]:
        """Every conversation, the oldest first."""
        return list(reversed(list(logged(source.file))))


def logged(file: Path, fragments_only: bool = False) -> Iterator[Conversation]:
    """The logged conversations, the newest first; ``fragments_only``: those that may hold some.

    Raises:
        TranscriptError: names the file, the record and the reason.
    """
    with LlmDatabase(file) as database:
        for name in _names(database, fragments_only):
            if found := _one(database, name):
                yield found


def one_logged(file: Path, name: str) -> Conversation | None:
    """The conversation of this name; ``None``: there is none, or it is empty.

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
    return Conversation(name, messages, title, remarks=remarks) if messages else None


def _names(database: LlmDatabase, fragments_only: bool) -> Iterator[str]:
    """ULIDs of threads and of conversations before there were threads: they sort by time."""
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
