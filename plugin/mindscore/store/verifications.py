"""Verifications of advice: what is measured of an unfinished one, and the last one's receipt."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, bindparam, delete

from mindscore.store.namespace import NamespaceTables
from mindscore.store.records import intact, row_id
from mindscore.store.schema import receipts, removals
from mindscore.store.transactions import replacing, upsert

if TYPE_CHECKING:
    from mindscore.measure.archive_advice import Receipt


@dataclass(frozen=True, slots=True)
class MeasuredResponse:
    """The effect on one response of memories that were removed together, and its noise, in nats.

    ``entry_idx`` is its index in the conversation; ``noise`` is ``None`` where it is not known.
    """

    node_id: str
    entry_idx: int
    signed: float
    noise: float | None


@dataclass(frozen=True, slots=True)
class MeasuredRemoval:
    """The effects of a joint removal on one conversation, and what it took to measure them.

    ``tokens`` is the sum, over the responses, of those by which their prompts are shorter.
    ``unread`` is a line on the responses that the model does not read, ``None`` if it reads all.
    ``computed_tokens`` is ``None`` where the server does not say.
    """

    responses: tuple[MeasuredResponse, ...] = ()
    tokens: int = 0
    unread: str | None = None
    calls: int = 0
    prompt_tokens: int = 0
    computed_tokens: int | None = 0


@dataclass(frozen=True, slots=True)
class RemovalName:
    """The name of a joint removal: the conversation, and a hash of all that its effects rest on."""

    conversation: str
    fingerprint: str


class Verifications(NamespaceTables):
    """The verifications of one namespace's advice. Methods may raise ``StoreError``."""

    async def removal(self, model: str, name: RemovalName) -> MeasuredRemoval | None:
        """Return what was measured of a removal, or ``None`` if that is not known."""
        same = [removals.c.model == model]
        same += [removals.c[column] == value for column, value in _columns(name).items()]
        query = self._select(removals, row_id(removals), removals.c.removal).where(*same)

        def decode(text: str) -> MeasuredRemoval:
            return msgspec.json.decode(text, type=MeasuredRemoval)

        return await self._database.read(
            lambda connection: next(intact(removals, connection.execute(query), decode), None)
        )

    async def record_removal(
        self, model: str, name: RemovalName, measured: MeasuredRemoval
    ) -> None:
        """Keep what was measured of a removal, until the receipt is made."""
        row = self._with_namespace(
            model=model,
            **_columns(name),
            removal=msgspec.json.encode(measured).decode(),
            measured_at=time.time(),
        )

        def work(connection: Connection) -> None:
            self._prune(connection, removals.c.measured_at)
            upsert(connection, removals, [row], replacing(removals))

        await self._database.write(work)

    async def receipt(self, model: str) -> Receipt | None:
        """Return the last receipt of advice by ``model``, or ``None`` if there is none."""
        query = self._select(receipts, row_id(receipts), receipts.c.receipt)
        query = query.where(receipts.c.model == model)
        return await self._database.read(
            lambda connection: next(
                intact(receipts, connection.execute(query), decode_receipt), None
            )
        )

    async def record_receipt(
        self, model: str, receipt: Receipt, finished: Collection[RemovalName]
    ) -> None:
        """Keep a receipt in place of the last one; what was measured of ``finished`` may go."""
        row = self._with_namespace(
            model=model,
            receipt=msgspec.json.encode(receipt).decode(),
            verified_at=receipt.verified_at,
        )
        parameters = [{f"_{column}": it for column, it in _columns(n).items()} for n in finished]
        same = [removals.c[column] == bindparam(f"_{column}") for column in RemovalName.__slots__]
        gone = delete(removals).where(self._in_namespace(removals), removals.c.model == model)

        def work(connection: Connection) -> None:
            upsert(connection, receipts, [row], replacing(receipts))
            if parameters:
                connection.execute(gone.where(*same), parameters)

        await self._database.write(work)


def _columns(name: RemovalName) -> dict[str, Any]:
    return {"conversation": name.conversation, "fingerprint": name.fingerprint}


def decode_receipt(text: str) -> Receipt:
    """Return a receipt as it was kept.

    Raises:
        msgspec.MsgspecError: it is damaged.
    """
    # Its module imports numpy, which nothing else of a store needs.
    from mindscore.measure.archive_advice import Receipt

    return msgspec.json.decode(text, type=Receipt)
