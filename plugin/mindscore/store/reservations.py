"""Tokens that runs have reserved of those that an hour has, in whichever process they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta
from sqlalchemy import Column, ColumnElement, Connection, Float, Table, delete, insert, update

from mindscore.store.history import Sent, sent_within_hour
from mindscore.store.namespace import NamespaceTables
from mindscore.store.records import checked, intact, row_id
from mindscore.store.schema import Int, Str, metadata, runs

# A run that is under way: when it ends, its row goes, and ``runs`` has what it has sent.
reservations = Table(
    "reservations",
    metadata,
    Column("namespace", Str, primary_key=True),
    Column("id", Str, primary_key=True),
    Column("tokens", Int, nullable=False),
    # Again and again while the run goes on.
    Column("renewed_at", Float, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Reservation:
    """The most tokens that a run may send; ``renewed_at`` is in seconds since the epoch."""

    id: str
    tokens: Annotated[int, Meta(ge=0)]
    renewed_at: float


@dataclass(frozen=True, slots=True)
class Grant:
    """A number of tokens; ``lapsed`` are the reservations of processes that have died."""

    tokens: int
    lapsed: Sequence[Reservation] = ()


Decide = Callable[[Sequence[Sent], Sequence[Reservation]], Grant]
"""A function from what runs have sent, and have reserved, to what one more may have."""


class Reservations(NamespaceTables):
    """The reservations of one namespace; methods may raise ``StoreError``."""

    async def reserve(self, id_: str, decide: Decide) -> int:
        """Reserve what ``decide`` grants, under ``id_``; return how many tokens.

        Nobody else reserves between what it is given and its answer.
        """
        now = time.time()
        columns = [reservations.c[name] for name in Reservation.__slots__]
        query = self._select(reservations, row_id(reservations), *columns)
        made = checked(Reservation)

        def work(connection: Connection) -> int:
            found = list(intact(reservations, connection.execute(query), made))
            sent = sent_within_hour(connection, self._in_namespace(runs), now)
            grant = decide(sent, found)
            for it in grant.lapsed:
                connection.execute(delete(reservations).where(*self._is(it.id)))
            if grant.tokens:
                row = self._with_namespace(id=id_, tokens=grant.tokens, renewed_at=now)
                connection.execute(insert(reservations), [row])
            return grant.tokens

        return await self._database.write(work)

    async def renew(self, id_: str) -> None:
        """Let a reservation count for longer: its run goes on."""
        later = update(reservations).where(*self._is(id_)).values(renewed_at=time.time())
        await self._database.write(lambda connection: connection.execute(later))

    async def narrow(self, id_: str, tokens: int) -> None:
        """Give back all of a reservation but ``tokens``."""
        less = update(reservations).where(*self._is(id_), reservations.c.tokens > tokens)
        await self._database.write(lambda it: it.execute(less.values(tokens=tokens)))

    async def release(self, id_: str) -> None:
        """Remove a reservation: its run has ended."""
        await self._delete(reservations, reservations.c.id == id_)

    def _is(self, id_: str) -> tuple[ColumnElement[bool], ...]:
        return self._in_namespace(reservations), reservations.c.id == id_
