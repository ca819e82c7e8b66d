"""A worker of a pass with Ray: one scorer, for conversation after conversation."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from mindscore._util.errors import format_error
from mindscore.archive.pass_record import PassFingerprint, short_hash
from mindscore.archive.ray_rows import Finding, Waiting, as_rows, as_table, finding, unpack
from mindscore.archive.unit import Unit, open_unit
from mindscore.config.file import merge
from mindscore.config.settings import parse_settings
from mindscore.measure.cached_scorer import weights_of
from mindscore.measure.retry import Retry
from mindscore.store import Pass


class ServerShare:
    """The servers of a pass, divided among its workers: an actor of Ray's."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = list(urls)
        self._taken: dict[str, str] = {}

    def take(self, worker: str) -> str:
        """Return the server of a worker: the one that fewest have; the same if it asks again."""
        if worker not in self._taken:
            counts = Counter(self._taken.values())
            self._taken[worker] = min(self._urls, key=lambda url: counts[url])
        return self._taken[worker]


def sent_tables(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that workers are sent.

    They are without the store's address, which may hold a password: a worker keeps nothing.
    """
    plugins, store = dict(tables.get("plugins", {})), dict(tables.get("store", {}))
    store.pop("url", None)
    plugins["disabled"] = [*dict.fromkeys([*plugins.get("disabled", []), "score-recorder"])]
    return {**tables, "store": store, "plugins": plugins}


class ConversationWorker:
    """An actor of Ray Data's pool: takes tables of conversations, and returns their findings.

    ``tables`` are the settings as ``sent_tables`` returns them, ``key`` is that of the rows' seals,
    and ``share`` a handle of ``ServerShare``, or ``None`` where there is no choice of servers.
    """

    def __init__(self, tables: Mapping[str, Any], command: str, key: bytes, share: Any) -> None:
        self._tables, self._command, self._key, self._share = tables, command, key, share
        self._settings = parse_settings(tables)
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._unit: Unit | None = None
        self._weights: str | None = None

    def __call__(self, table: Any) -> Any:
        """Score the conversations of a table; one that fails is a finding with an error."""
        return as_table(Finding, [self._find(it) for it in as_rows(Waiting, table)])

    def _find(self, waiting: Waiting) -> Finding:
        begun = time.time()
        try:
            return self._runner.run(self._score(waiting, begun))
        # A plugin is anybody's code, and other conversations may do.
        except Exception as error:
            model, fingerprint = self._settings.server.model, PassFingerprint(waiting.content, "")
            done = self._done(waiting, model, fingerprint, None, begun, format_error(error))
            return Finding(waiting.id, waiting.source, done, [], [], None, [], "")

    async def _score(self, waiting: Waiting, begun: float) -> Finding:
        unit = await self._opened()
        scored = await unit.score(unpack(waiting, self._key), self._command)
        result, fingerprint = scored.result, PassFingerprint(waiting.content, self._weights or "")
        if scored.context is not None:
            fingerprint = fingerprint.grown(scored.context)
        done = self._done(waiting, result.model, fingerprint, result.stats, begun, scored.error)
        return finding(waiting.id, scored, done, keep_texts=self._settings.store.keep_texts)

    async def _opened(self) -> Unit:
        """Return the unit with this worker's scorer, opened on first use."""
        if self._unit is None:
            tables = self._own_tables()
            unit = await self._stack.enter_async_context(open_unit(tables))
            server = parse_settings(tables).server
            weights = await weights_of(await unit.scorer(), server, Retry(server))
            self._weights = None if weights is None else short_hash(weights)
            self._unit = unit
        return self._unit

    def _own_tables(self) -> dict[str, Any]:
        """Return the settings with this worker's server, and with an empty store of its own."""
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mindscore-"))
        own: dict[str, Any] = {"store": {"url": f"sqlite:///{folder}/store.sqlite3"}}
        if self._share is not None:
            import ray

            worker = ray.get_runtime_context().get_actor_id()
            own["server"] = {"base_url": ray.get(self._share.take.remote(worker))}
        return merge(dict(self._tables), own)

    def _done(
        self,
        waiting: Waiting,
        model: str,
        fingerprint: PassFingerprint,
        stats: Any,
        begun: float,
        error: str | None,
    ) -> Pass:
        now = time.time()
        return Pass(
            model=model,
            conversation=waiting.conversation,
            command=self._command,
            fingerprint=str(fingerprint),
            done_at=now,
            seconds=now - begun,
            calls=0 if stats is None else stats.calls,
            prompt_tokens=0 if stats is None else stats.prompt_tokens,
            computed_tokens=None if stats is None else stats.computed_tokens,
            error=error,
        )
