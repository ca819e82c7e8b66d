"""What was sent to a trainer and may have been accepted, by namespace."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from mindscore.config import StoreSettings
from mindscore.fingerprint import response_hash
from mindscore.store.database import Database
from mindscore.store.schema import sends, trained
from mindscore.store.store import marks_of


@dataclass(frozen=True, slots=True)
class Sample:
    """What a trainer learns from: a prompt, and the response to it that bears a timestamp."""

    timestamp_ns: int
    context_ids: tuple[int, ...]
    continuation_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Send:
    """One request whose outcome is not known, or not yet.

    ``key`` is its Idempotency-Key, ``responses`` how many it carried, ``since`` when it was made,
    in seconds since the epoch.
    """

    key: str
    responses: int
    since: float


class Sends:
    """The sends of one namespace. Every method is one transaction and may raise ``StoreError``.

    A sample is in at most one of them, and one that is in none is not on its way to a trainer.
    ``Store.mark_trained`` removes those that it marks.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self._database = Database(settings.url)
        self._namespace = settings.namespace
        self._mine = sends.c.namespace == settings.namespace

    async def unknown(self) -> list[Send]:
        """Every send, the oldest first."""
        since = func.min(sends.c.sent_at)
        query = (
            select(sends.c.idempotency_key, func.count(), since)
            .where(self._mine)
            .group_by(sends.c.idempotency_key)
            .order_by(since, sends.c.idempotency_key)
        )
        found = await self._database.read(lambda connection: connection.execute(query).all())
        return [Send(*row) for row in found]

    async def samples(self, key: str) -> list[Sample]:
        """What was sent under ``key``, in its order; nothing where that is settled."""
        query = (
            select(sends.c.sample)
            .where(self._mine, sends.c.idempotency_key == key)
            .order_by(sends.c.position)
        )

        def work(connection: Connection) -> list[Sample]:
            found = connection.execute(query).all()
            return [msgspec.json.decode(sample, type=Sample) for (sample,) in found]

        return await self._database.read(work)

    async def covering(self, samples: Sequence[Sample]) -> list[Send]:
        """The sends that hold any of ``samples``, the oldest first."""
        names = {_name(sample) for sample in samples}
        columns = (sends.c.timestamp_ns, sends.c.continuation_hash, sends.c.idempotency_key)
        query = select(*columns).where(self._mine)
        found = await self._database.read(lambda connection: connection.execute(query).all())
        keys = {key for stamp, hash_, key in found if (stamp, hash_) in names}
        return [send for send in await self.unknown() if send.key in keys]

    async def reserve(self, key: str, samples: Sequence[Sample]) -> list[Sample]:
        """Note that ``samples`` are about to be sent under ``key``, and return those that may be.

        What is trained, or in another send, is left out: of two processes one has it.
        """
        now = time.time()

        def work(connection: Connection) -> list[Sample]:
            columns = (trained.c.timestamp_ns, trained.c.continuation_hash, trained.c.sink)
            mine = trained.c.namespace == self._namespace
            marks = marks_of(connection.execute(select(*columns).where(mine)))
            names = select(sends.c.timestamp_ns, sends.c.continuation_hash).where(self._mine)
            sent = {tuple(row) for row in connection.execute(names)}
            free = {
                _name(it): it
                for it in samples
                if not marks.covers(it.timestamp_ns, it.continuation_ids) and _name(it) not in sent
            }
            reserved = [
                {
                    "namespace": self._namespace,
                    "timestamp_ns": stamp,
                    "continuation_hash": hash_,
                    "sink": "http",
                    "idempotency_key": key,
                    "position": position,
                    "sample": msgspec.json.encode(sample).decode(),
                    "sent_at": now,
                }
                for position, ((stamp, hash_), sample) in enumerate(free.items())
            ]
            if reserved:
                connection.execute(insert(sends), reserved)
            return list(free.values())

        return await self._database.write(work)

    async def release(self, key: str) -> int:
        """Forget what was sent under ``key``: the trainer has not accepted it; how many."""
        statement = delete(sends).where(self._mine, sends.c.idempotency_key == key)
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)


def _name(sample: Sample) -> tuple[int, str]:
    return sample.timestamp_ns, response_hash(sample.continuation_ids)
