"""A worker of a pass with Ray: one scorer, for conversation after conversation."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindhooks import MindCommand
from mindscore._util.errors import format_error
from mindscore.archive.pass_record import PassFingerprint, conditions_of, record_of
from mindscore.archive.ray_rows import Finding, Waiting, as_rows, as_table, finding, unpack
from mindscore.archive.unit import ScoredConversation, Unit, open_unit
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

    ``tables`` are the settings as ``sent_tables`` returns them, ``digest`` is that of all of them,
    and ``key`` that of the rows' seals. ``share`` is a handle of ``ServerShare``, or ``None`` where
    there is no choice of servers.
    """

    def __init__(
        self, tables: Mapping[str, Any], command: str, digest: bytes, key: bytes, share: Any
    ) -> None:
        self._tables, self._command, self._digest = tables, command, digest
        self._key, self._share = key, share
        self._settings = parse_settings(tables)
        self._runner = asyncio.Runner()
        self._server: _Server | None = None

    def __call__(self, table: Any) -> Any:
        """Score the conversations of a table; one that fails is a finding with an error."""
        return as_table(Finding, [self._find(it) for it in as_rows(Waiting, table)])

    def close(self) -> None:
        """Close the scorer; Ray ends a worker without it."""
        with self._runner:
            if self._server is not None:
                self._runner.run(self._server.stack.aclose())

    def _find(self, waiting: Waiting) -> Finding:
        try:
            return self._runner.run(self._score(waiting))
        # A plugin is anybody's code, and other conversations may do.
        except Exception as error:
            done = self._done(waiting, None, format_error(error))
            return Finding(waiting.id, waiting.source, done, [], [], None, [], "")

    async def _score(self, waiting: Waiting) -> Finding:
        if self._server is None:
            self._server = await self._open()
        transcript, server = unpack(waiting, self._key), self._server
        await server.unit.render(transcript)
        keys = tuple(waiting.keys)
        options = self._settings.plugins.settings.get("memory-scoring", {})
        if self._command == MindCommand.SCORE:
            options = {**options, "only": list(keys)}
        scored = await server.unit.score(transcript, self._command, keys, options)
        done = self._done(waiting, scored, scored.error)
        return finding(waiting.id, scored, done, keep_texts=self._settings.store.keep_texts)

    async def _open(self) -> _Server:
        """Return this worker's server; its store is empty, a file that is never made."""
        stack = AsyncExitStack()
        nowhere = Path(tempfile.gettempdir()) / f"mindscore-{uuid.uuid4()}" / "store.sqlite3"
        own: dict[str, Any] = {"store": {"url": f"sqlite:///{nowhere}"}}
        if self._share is not None:
            import ray

            worker = ray.get_runtime_context().get_actor_id()
            own["server"] = {"base_url": ray.get(self._share.take.remote(worker))}
        tables = merge(dict(self._tables), own)
        unit = await stack.enter_async_context(open_unit(tables))
        scorer, settings = await unit.scorer(), parse_settings(tables).server
        weights = await weights_of(scorer, settings, Retry(settings))
        return _Server(unit, scorer.model, conditions_of(self._digest, weights), stack)

    def _done(self, waiting: Waiting, scored: ScoredConversation | None, error: str | None) -> Pass:
        conditions = "" if self._server is None else self._server.conditions
        fingerprint = PassFingerprint(waiting.content, conditions)
        if error is None and scored is not None and scored.context is not None:
            fingerprint = fingerprint.finished(scored.context)
        result = None if scored is None else scored.result
        return record_of(
            "" if result is None else result.model,
            waiting.conversation,
            self._command,
            fingerprint,
            error,
            None if result is None else result.stats,
        )


@dataclass(frozen=True, slots=True)
class _Server:
    """A worker's server, with its registry; ``stack`` keeps it open."""

    unit: Unit
    model: str
    conditions: str
    stack: AsyncExitStack
