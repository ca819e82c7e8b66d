"""The facts of an archive: texts of memories, conversations, and passes over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, case, delete, func

from mindscore.store.namespace import NamespaceTables
from mindscore.store.records import checked, intact, row_id
from mindscore.store.schema import conversations, memory_texts, passes
from mindscore.store.transactions import replacing, upsert


@dataclass(frozen=True, slots=True)
class MemoryText:
    """A text that a memory has had.

    ``text`` is ``None`` where ``store.keep_texts`` was false, ``tokens``, which a prompt has of it,
    where it is not known. Times are in seconds since the epoch.
    """

    key: str
    text_hash: str
    text: str | None
    tokens: int | None
    first_seen: float
    last_seen: float


@dataclass(frozen=True, slots=True)
class ConversationFacts:
    """A conversation as it was when it was scored last.

    ``conversation`` is ``Context.id``. ``source`` is the file that it was read from and ``title``
    how it begins, each empty if it is not known. ``responses`` and ``memories`` are counts,
    ``tokens`` is those of the whole context. ``begun_at`` and ``ended_at`` are the first and the
    last message's own times. Times are in seconds since the epoch.
    """

    conversation: str
    source: str
    title: str
    responses: int
    memories: int
    tokens: int
    begun_at: float | None
    ended_at: float | None
    seen_at: float


@dataclass(frozen=True, slots=True)
class Pass:
    """A command that was run over one conversation of an archive.

    ``fingerprint`` is of all that the result depends on: with the same, it need not be run again.
    ``done_at`` is in seconds since the epoch, ``seconds`` the duration.
    """

    model: str
    conversation: str
    command: str
    fingerprint: str
    done_at: float
    seconds: float
    calls: int
    prompt_tokens: int
    computed_tokens: int | None
    error: str | None


def storable_text(text: str) -> str:
    """Return ``text`` with U+FFFD for what some database cannot hold: NUL and lone surrogates."""
    whole = text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass")
    return whole.decode("utf-16", "replace")


def keep_texts(connection: Connection, namespace: str, texts: Sequence[MemoryText]) -> None:
    """Keep texts of a namespace's memories, made storable, within a transaction."""
    rows = [
        {
            **asdict(it),
            "namespace": namespace,
            "text": None if it.text is None else storable_text(it.text),
        }
        for it in texts
    ]
    known = memory_texts.c

    def changes(new: Any) -> dict[str, Any]:
        return {
            "text": func.coalesce(new["text"], known.text),
            "tokens": func.coalesce(new["tokens"], known.tokens),
            "first_seen": _chosen(new["first_seen"] < known.first_seen, new, known, "first_seen"),
            "last_seen": _chosen(new["last_seen"] > known.last_seen, new, known, "last_seen"),
        }

    upsert(connection, memory_texts, rows, changes)


def keep_conversation(connection: Connection, namespace: str, facts: ConversationFacts) -> None:
    """Keep the facts of a conversation, with storable texts, within a transaction."""
    _keep_conversations(connection, namespace, [facts])


def _keep_conversations(
    connection: Connection,
    namespace: str,
    facts: Iterable[ConversationFacts],
    where: Callable[[Any], ColumnElement[bool]] | None = None,
) -> None:
    rows = [
        {
            **asdict(it),
            "namespace": namespace,
            "source": storable_text(it.source),
            "title": storable_text(it.title),
        }
        for it in facts
    ]

    def changes(new: Any) -> dict[str, Any]:
        known, latest = conversations.c, replacing(conversations)(new)
        texts = {name: _chosen(new[name] != "", new, known, name) for name in ("source", "title")}
        return {**latest, **texts}

    upsert(connection, conversations, rows, changes, where)


def _chosen(is_new: ColumnElement[bool], new: Any, known: Any, name: str) -> ColumnElement[Any]:
    return case((is_new, new[name]), else_=known[name])


class ArchiveTables(NamespaceTables):
    """The facts of one namespace's archive: the part of ``Store`` that is about them.

    What is older than ``retention_days`` is removed when one of its kind is written, as the
    evidence is that it belongs to.
    """

    async def memory_texts(self) -> list[MemoryText]:
        """List the texts that memories have had, by key, each memory's oldest first."""
        order = (memory_texts.c.key, memory_texts.c.first_seen, memory_texts.c.text_hash)
        return await self._every(memory_texts, MemoryText, order)

    async def conversations(self) -> list[ConversationFacts]:
        """List the conversations that were scored, by their ids."""
        return await self._every(conversations, ConversationFacts, (conversations.c.conversation,))

    async def passes(self, model: str | None = None, command: str | None = None) -> list[Pass]:
        """List the passes, of ``model`` and of ``command`` where they are given."""
        where = [
            column == value
            for column, value in ((passes.c.model, model), (passes.c.command, command))
            if value is not None
        ]
        order = (passes.c.model, passes.c.conversation, passes.c.command)
        return await self._every(passes, Pass, order, *where)

    async def record_texts(self, texts: Iterable[MemoryText]) -> None:
        """Keep texts of memories; ``None`` in the place of one leaves what is known."""
        found = list(texts)

        def work(connection: Connection) -> None:
            self._prune(connection, memory_texts.c.last_seen)
            keep_texts(connection, self._namespace, found)

        await self._database.write(work)

    async def record_conversation(self, facts: ConversationFacts) -> None:
        """Keep a conversation's facts; an empty source or title leaves what is known."""

        def work(connection: Connection) -> None:
            self._prune(connection, conversations.c.seen_at)
            keep_conversation(connection, self._namespace, facts)

        await self._database.write(work)

    async def add_conversations(self, facts: Iterable[ConversationFacts]) -> None:
        """Keep facts that another store has; of two about one conversation, those seen later."""
        found = list(facts)

        def is_newer(new: Any) -> ColumnElement[bool]:
            newer: ColumnElement[bool] = new["seen_at"] > conversations.c.seen_at
            return newer

        await self._database.write(
            lambda connection: _keep_conversations(connection, self._namespace, found, is_newer)
        )

    async def add_passes(self, done: Iterable[Pass]) -> None:
        """Keep passes that another store has; of two over one conversation, the later one."""
        rows = list(map(self._pass_row, done))

        def is_newer(new: Any) -> ColumnElement[bool]:
            newer: ColumnElement[bool] = new["done_at"] > passes.c.done_at
            return newer

        await self._database.write(
            lambda connection: upsert(connection, passes, rows, replacing(passes), where=is_newer)
        )

    def _pass_row(self, done: Pass) -> dict[str, Any]:
        row = self._with_namespace(**asdict(done))
        if done.error is not None:
            row["error"] = storable_text(done.error)
        return row

    async def record_pass(self, done: Pass) -> None:
        """Keep a pass in place of the one before it over the same conversation."""
        row = self._pass_row(done)

        def work(connection: Connection) -> None:
            # By its beginning: the first of the evidence that it led to goes then.
            begun = passes.c.done_at - passes.c.seconds
            oldest = self._oldest(connection, passes.c.done_at)
            connection.execute(delete(passes).where(self._in_namespace(passes), begun < oldest))
            upsert(connection, passes, [row], replacing(passes))

        await self._database.write(work)

    async def _every(
        self,
        table: Table,
        kind: Any,
        order: Sequence[ColumnElement[Any]],
        *where: ColumnElement[bool],
    ) -> list[Any]:
        columns = [table.c[name] for name in kind.__slots__]
        query = self._select(table, row_id(table), *columns).where(*where).order_by(*order)
        made = checked(kind)
        return await self._database.read(
            lambda connection: list(intact(table, connection.execute(query), made))
        )
