"""Hand-offs to sinks whose outcome is unknown, of a namespace."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, func, insert

from mindhooks import FinetuneCandidate, TrainingSample
from mindscore.measure.prompts import response_hash
from mindscore.store.namespace import NamespaceTables
from mindscore.store.records import intact, row_id
from mindscore.store.schema import sends, trained
from mindscore.store.store import read_marks


@dataclass(frozen=True, slots=True)
class Send:
    """One hand-off whose outcome is unknown.

    ``key`` is its Idempotency-Key, ``sink`` its destination, ``responses`` how many it carried,
    ``since`` its time in seconds since the epoch.
    """

    key: str
    sink: str
    responses: int
    since: float


class Sends(NamespaceTables):
    """The sends of one namespace. Every method is one transaction and may raise ``StoreError``.

    A response is in at most one send to each sink, and one that is in none is not on its way.
    ``Store.mark_trained`` removes the responses that it marks.
    """

    async def unknown(self, sink: str | None = None) -> list[Send]:
        """List every send, or those to ``sink``, the oldest first."""
        since = func.min(sends.c.sent_at)
        query = (
            self._select(sends, sends.c.idempotency_key, sends.c.sink, func.count(), since)
            .group_by(sends.c.idempotency_key, sends.c.sink)
            .order_by(since, sends.c.idempotency_key)
        )
        if sink is not None:
            query = query.where(sends.c.sink == sink)
        return [Send(*row) for row in await self._all(query)]

    async def samples(self, key: str) -> list[TrainingSample]:
        """Return what was sent under ``key``, in its order; nothing if its outcome is known."""
        query = (
            self._select(sends, row_id(sends), sends.c.sample, sends.c.timestamp_ns)
            .where(sends.c.idempotency_key == key)
            .order_by(sends.c.position)
        )
        query = query.add_columns(sends.c.namespace)
        return await self._database.read(
            lambda connection: list(intact(sends, connection.execute(query), decode_sample))
        )

    async def covering(self, samples: Sequence[TrainingSample], sink: str) -> list[Send]:
        """List the sends to ``sink`` that hold any of ``samples``, the oldest first."""
        names = {_name(sample) for sample in samples}
        columns = (sends.c.timestamp_ns, sends.c.continuation_hash, sends.c.idempotency_key)
        found = await self._all(self._select(sends, *columns).where(sends.c.sink == sink))
        keys = {key for stamp, hash_, key in found if (stamp, hash_) in names}
        return [send for send in await self.unknown(sink) if send.key in keys]

    async def free(self, samples: Sequence[TrainingSample], sink: str) -> list[TrainingSample]:
        """Return the samples that ``sink`` neither has nor may have, each response once."""
        return await self._database.read(
            lambda connection: list(self._free(connection, samples, sink).values())
        )

    async def reserve(
        self, key: str, samples: Sequence[TrainingSample], sink: str
    ) -> list[TrainingSample]:
        """Reserve those of ``samples`` that are ``free`` for a send under ``key``; return them.

        Of two processes that try it at once, one gets each.
        """
        now = time.time()

        def work(connection: Connection) -> list[TrainingSample]:
            free = self._free(connection, samples, sink)
            reserved = [
                {
                    "namespace": self._namespace,
                    "timestamp_ns": stamp,
                    "continuation_hash": hash_,
                    "sink": sink,
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
        """Remove the send ``key``, which the sink has not accepted; return how many responses."""
        return await self._delete(sends, sends.c.idempotency_key == key)

    def _free(
        self, connection: Connection, samples: Sequence[TrainingSample], sink: str
    ) -> dict[tuple[int, str], TrainingSample]:
        marks = read_marks(connection, self._in_namespace(trained))
        names = self._select(sends, sends.c.timestamp_ns, sends.c.continuation_hash)
        query = names.where(sends.c.sink == sink)
        sent = {tuple(row) for row in connection.execute(query)}
        named = {_name(it): it for it in samples}
        return {
            name: it
            for name, it in named.items()
            if name not in sent and not marks.covers(name[0], it.candidate.continuation_ids, sink)
        }


def _name(sample: TrainingSample) -> tuple[int, str]:
    """Return the response's timestamp and hash, whichever answer to train on was chosen."""
    response = sample.candidate
    return response.timestamp_ns, response_hash(response.continuation_ids)


class _IdsAlone(msgspec.Struct):
    """A sample as versions 1 and 2 of the store kept it."""

    context_ids: tuple[int, ...]
    continuation_ids: tuple[int, ...]


def decode_sample(text: str, timestamp_ns: int, namespace: str) -> TrainingSample:
    """Return a sample as it was kept, by whichever version.

    Raises:
        msgspec.MsgspecError: it is damaged.
    """
    try:
        return msgspec.json.decode(text, type=TrainingSample)
    except msgspec.ValidationError:
        ids = msgspec.json.decode(text, type=_IdsAlone)
    candidate = FinetuneCandidate(
        entry_idx=0,
        node_id="",
        divergence=0.0,
        response_text="",
        prior_context="",
        context_ids=ids.context_ids,
        bare_context_ids=(),
        continuation_ids=ids.continuation_ids,
        alternate_text=None,
        alternate_ids=None,
        timestamp_ns=timestamp_ns,
    )
    return TrainingSample(
        ids.context_ids, ids.continuation_ids, None, "full", candidate, "", namespace
    )
