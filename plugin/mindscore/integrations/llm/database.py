"""llm's ``logs.db``, read by SQL: its tables are documented, its classes are not.

It belongs to another program, so that it is opened read-only, and not by our database layer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import msgspec

from mindhooks import Image
from mindscore._util.errors import TranscriptError
from mindscore._util.text import printable
from mindscore.conversation.message import Message
from mindscore.conversation.native import parse_timestamp
from mindscore.readers.source import Source
from mindscore.recognisers import Block, Entry

Kind = Literal["prompt", "system"]
KINDS: dict[str, Kind] = {"user": "prompt", "system": "system"}
"""The roles whose messages print fragments."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """A stored fragment; ``key`` is its alias, else its source, else the start of its hash."""

    key: str
    content: str


def marked(message: Message, fragments: Sequence[Fragment], kind: Kind) -> Message | None:
    """Return the message with its fragments marked; ``None`` if it does not print them.

    llm joins them by line breaks before the prompt (``Prompt.prompt``), or stripped, by empty
    lines, before the system prompt (``_combine_system``). A message that is one fragment and
    nothing else is not sent without it.
    """
    printed, joiner = list(fragments), "\n"
    if kind == "system":
        printed = [Fragment(it.key, it.content.strip()) for it in fragments]
        printed, joiner = [it for it in printed if it.content], "\n\n"
    joined = joiner.join(it.content for it in printed)
    alone = message.text == joined
    if not joined or not (alone or message.text.startswith(joined + joiner)):
        return None
    keys = {it.key for it in printed}
    if alone and len(keys) == 1 and not message.images:
        return replace(message, memory_key=keys.pop())
    after = "" if alone else joiner
    entries = dict.fromkeys(Entry(it.key, it.content) for it in printed if it.content)

    def render(skipped: frozenset[str]) -> str:
        left = [it.content for it in printed if it.key not in skipped]
        return joiner.join(left) + after if left else ""

    return replace(message, blocks=(Block(0, len(joined + after), tuple(entries), render),))


def prompt_text(fragments: Sequence[Fragment], prompt: str | None) -> str:
    """Return a user message as llm puts it together."""
    return "\n".join([it.content for it in fragments] + ([prompt] if prompt else []))


def system_text(fragments: Sequence[Fragment], system: str | None) -> str:
    """Return a system prompt as llm puts it together."""
    bits = [*(it.content for it in fragments), system or ""]
    return "\n\n".join(bit.strip() for bit in bits if bit.strip())


NEW = frozenset({"threads", "turns", "messages", "parts"})
OLD = frozenset({"conversations", "responses"})

_FRAGMENT = """
select f.hash, f.source, f.content, min(a.alias) as alias from fragments f
left join fragment_aliases a on a.fragment_id = f.id where f.id = ? group by f.id
"""


class LlmDatabase:
    """The database, opened read-only; used as a context manager.

    Raises:
        TranscriptError: names the file, the record and the reason.
    """

    def __init__(self, file: Path | Source) -> None:
        self._source = file if isinstance(file, Source) else Source(file)
        self.file = self._source.file
        self._fragments: dict[int, Fragment] = {}
        self._opened = ExitStack()

    def __enter__(self) -> LlmDatabase:
        with ExitStack() as opened:
            self._connection = opened.enter_context(self._source.database())
            self.tables = frozenset(
                row["name"] for row in self.rows("select name from sqlite_master")
            )
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._opened.__exit__(*raised)

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """Return the rows that a query finds."""
        with closing(self._connection.execute(query, values)) as cursor:
            return cursor.fetchall()

    def fragments(self, table: str, owner: str, name: str, kind: Kind) -> list[Fragment]:
        """List the fragments of a kind that ``table`` gives the record ``name``, in their order."""
        if table not in self.tables:
            return []
        where, values = f"{owner} = ?", [name]
        if table == "turn_fragments":
            where, values = f"{where} and kind = ?", [name, kind]
        query = f'select fragment_id from {table} where {where} order by "order"'  # noqa: S608
        return [self.fragment(row["fragment_id"]) for row in self.rows(query, *values)]

    def fragment(self, id_: int) -> Fragment:
        """Return one fragment by its number."""
        if id_ not in self._fragments:
            found = self.rows(_FRAGMENT, id_)
            if not found:
                self.refuse(f"fragment {id_}", "is missing")
            row = found[0]
            key = row["alias"] or row["source"] or self.text(row, "hash")[:12]
            self._fragments[id_] = Fragment(str(key), self.text(row, "content"))
        return self._fragments[id_]

    def attachment(self, id_: str) -> Image | None:
        """Return an image whose bytes are in the database; ``None`` for any other attachment."""
        for row in self.rows("select type, content from attachments where id = ?", id_):
            if isinstance(row["content"], bytes) and str(row["type"]).startswith("image/"):
                return Image(row["type"], row["content"])
        return None

    def text(self, row: sqlite3.Row, column: str) -> str:
        """Return a column's text, empty for NULL."""
        value = row[column]
        if value is not None and not isinstance(value, str):
            self.refuse(f"column {column}", f"expected text, got {type(value).__name__}")
        return value or ""

    def json(self, row: sqlite3.Row, column: str, where: str) -> dict[str, Any]:
        """Return a column's JSON object, empty for NULL."""
        try:
            return msgspec.json.decode(self.text(row, column) or "{}", type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            self.refuse(where, f"is not valid JSON: {error}")

    def time(self, row: sqlite3.Row, where: str) -> int:
        """Return the time of a record, in nanoseconds since the epoch."""
        try:
            return parse_timestamp(self.text(row, "datetime_utc"))
        except ValueError as error:
            self.refuse(where, error)

    def refuse(self, where: str, why: object) -> NoReturn:
        """Raise a ``TranscriptError`` that names the file, the place in it, and the reason."""
        raise TranscriptError(f"{self.file}, {where}: {printable(str(why))}") from None


def chain(database: LlmDatabase, tip: str) -> Iterator[sqlite3.Row]:
    """Yield the messages that lead to ``tip``, in their order."""
    found = database.rows(
        "with recursive chain as (select hash, parent_hash, role from messages where hash = ? "
        "union select m.hash, m.parent_hash, m.role from messages m "
        "join chain c on m.hash = c.parent_hash) select * from chain",
        tip,
    )
    by_hash = {row["hash"]: row for row in found}
    messages: list[sqlite3.Row] = []
    at: str | None = tip
    while at is not None:
        row = by_hash.pop(at, None)
        if row is None:
            database.refuse(f"message {at}", "is missing, or precedes itself")
        messages.append(row)
        at = row["parent_hash"]
    yield from reversed(messages)
