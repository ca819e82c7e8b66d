"""The part of a verification that is measured: kept in the store until its receipt is made."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mindscore._util.errors import StoreError
from mindscore.archive.pass_record import settings_digest
from mindscore.config.settings import parse_settings
from mindscore.measure.archive_advice import Proposed, Receipt
from mindscore.measure.usage import Usage
from mindscore.store import MeasuredRemoval, RemovalName, Verifications

log = logging.getLogger("mindscore")


class KnownRemovals:
    """The measurements of a verification, by this process or one that was cut off before.

    It is known again for the same conversation, memories, ``drops``, settings and weights. ``kept``
    is called for each measurement that the store has now. ``calls``, ``prompt_tokens`` and
    ``computed_tokens`` are what all of it took, those of earlier processes included.
    """

    def __init__(
        self,
        tables: Mapping[str, Any],
        model: str,
        drops: Mapping[str, Proposed],
        kept: Callable[[], None],
    ) -> None:
        self.calls = 0
        self.prompt_tokens = 0
        self.computed_tokens: int | None = 0
        self._store: Verifications | None = Verifications(parse_settings(tables).store)
        self._model = model
        self._kept = kept
        judged = sorted((key, it.text_hash, it.instead) for key, it in drops.items())
        self._facts = (settings_digest(tables, "advise"), judged)
        self._used: set[RemovalName] = set()

    def name(self, conversation: str, facts: object) -> RemovalName:
        """Return the name of a removal, of which ``facts`` are what its effects rest on."""
        encoded = msgspec.msgpack.encode((self._facts, facts))
        return RemovalName(conversation, hashlib.blake2b(encoded, digest_size=16).hexdigest())

    async def find(self, name: RemovalName | None) -> MeasuredRemoval | None:
        """Return what was measured of a removal, or ``None`` if that is not known."""
        if name is None or self._store is None:
            return None
        try:
            found = await self._store.removal(self._model, name)
        except StoreError as error:
            self._give_up(error)
            return None
        if found is not None and name not in self._used:
            self._used.add(name)
            self.count(found)
            self._kept()
        return found

    async def add(self, name: RemovalName | None, measured: MeasuredRemoval) -> None:
        """Keep what was measured; a store that cannot be written costs a warning, not the run."""
        if name is None or self._store is None:
            return
        self._used.add(name)
        try:
            await self._store.record_removal(self._model, name, measured)
        except StoreError as error:
            self._give_up(error)
        else:
            self._kept()

    def count(self, spent: Usage | MeasuredRemoval) -> None:
        """Count what a measurement took."""
        self.calls += spent.calls
        self.prompt_tokens += spent.prompt_tokens
        if self.computed_tokens is not None:
            computed = spent.computed_tokens
            self.computed_tokens = None if computed is None else self.computed_tokens + computed

    async def finish(self, receipt: Receipt) -> None:
        """Keep the receipt; of one that is complete, nothing that was measured is needed more."""
        if self._store is None:
            return
        finished = self._used if receipt.is_complete else ()
        try:
            await self._store.record_receipt(self._model, receipt, finished)
        except StoreError as error:
            self._give_up(error)

    def _give_up(self, error: StoreError) -> None:
        self._store = None
        log.warning("the verification of advice is not kept: %s", error)
