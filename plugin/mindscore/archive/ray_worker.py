"""A worker of a pass with Ray: one scorer, for conversation after conversation."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mindhooks import ScorerUnavailable
from mindscore._util.errors import format_error
from mindscore.archive.archive_pass import open_server, places_of
from mindscore.archive.attempt import Attempt, Attempts, Server, Work
from mindscore.archive.budget import TokenBudget
from mindscore.archive.jobs import MOST_SERVERS_TRIED, NOT_REACHED
from mindscore.archive.pass_record import PassFingerprint, record_of
from mindscore.archive.ray_rows import Finding, Waiting, as_rows, as_table, finding, unpack
from mindscore.archive.ray_share import PassShare
from mindscore.config.file import merge
from mindscore.config.settings import parse_settings
from mindscore.store import Pass


def sent_tables(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that workers are sent.

    They are without the store's address, which may hold a password: a worker keeps nothing.
    """
    plugins, store = dict(tables.get("plugins", {})), dict(tables.get("store", {}))
    store.pop("url", None)
    plugins["disabled"] = [*dict.fromkeys([*plugins.get("disabled", []), "score-recorder"])]
    return {**tables, "store": store, "plugins": plugins}


@dataclass(frozen=True, slots=True)
class Orders:
    """The facts that every worker of a pass is sent.

    ``tables`` are the settings as ``sent_tables`` returns them, ``digest`` is that of all of them,
    and ``key`` that of the rows' seals. ``places`` are the servers that answered when the pass
    began, with their conditions.
    """

    tables: Mapping[str, Any]
    command: str
    digest: bytes
    key: bytes
    measure_again: bool
    places: dict[str, str]
    max_tokens: int | None


class ConversationWorker:
    """An actor of Ray Data's pool: takes tables of conversations, and returns their findings.

    ``name`` returns that of this worker, which stays when it is restarted.
    """

    def __init__(self, orders: Orders, share: PassShare, name: Callable[[], str]) -> None:
        self._orders, self._share, self._name = orders, share, name()
        self._settings = parse_settings(orders.tables)
        self._attempts = Attempts(
            orders.command,
            self._settings,
            # Without a limit nobody need be asked.
            TokenBudget(None) if orders.max_tokens is None else share,
            measure_again=orders.measure_again,
        )
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._servers: dict[str, Server] = {}

    def __call__(self, table: Any) -> Any:
        """Score the conversations of a table; one that fails is a finding with an error."""
        return as_table(Finding, [self._find(it) for it in as_rows(Waiting, table)])

    def close(self) -> None:
        """Close the scorers; Ray ends a worker without it."""
        with self._runner:
            self._runner.run(self._stack.aclose())

    def _find(self, waiting: Waiting) -> Finding:
        try:
            return self._runner.run(self._score(waiting))
        # A plugin is anybody's code, and other conversations may do.
        except Exception as error:
            ended = Attempt(None, error=format_error(error))
            return self._finding(waiting, ended, self._done(waiting, ended, ""), [])

    async def _score(self, waiting: Waiting) -> Finding:
        work, given_up = unpack(waiting, self._orders.key), dict[str, Pass]()
        ended = Attempt(None, error=NOT_REACHED)
        done = self._done(waiting, ended, "")
        while len(given_up) < MOST_SERVERS_TRIED:
            place = self._share.take(self._name, list(given_up), work.prefers)
            if place is None:
                break
            ended = await self._attempt(place, work)
            self._share.end(place, ended.error if ended.gave_up else None)
            server = self._servers.get(place)
            done = self._done(waiting, ended, "" if server is None else server.model)
            if not ended.gave_up:
                break
            given_up[place], work = done, _gone_on(work, ended)
        return self._finding(waiting, ended, done, list(given_up.values()))

    async def _attempt(self, place: str, work: Work) -> Attempt:
        try:
            if place not in self._servers:
                self._servers[place] = await self._open(place)
        except ScorerUnavailable as error:
            return Attempt(None, error=format_error(error), gave_up=True)
        return await self._attempts.score(self._servers[place], work, _nothing)

    async def _open(self, place: str) -> Server:
        """Open a server; this worker's store is empty, a file that is never made."""
        nowhere = Path(tempfile.gettempdir()) / f"mindscore-{uuid.uuid4()}" / "store.sqlite3"
        tables = places_of(self._orders.tables)[place]
        own = merge(tables, {"store": {"url": f"sqlite:///{nowhere}"}})
        return await open_server(self._stack, own, self._orders.digest)

    def _finding(
        self, waiting: Waiting, ended: Attempt, done: Pass, given_up: list[Pass]
    ) -> Finding:
        keep_texts = self._settings.store.keep_texts
        return finding(waiting, ended, done, given_up, keep_texts=keep_texts)

    def _done(self, waiting: Waiting, ended: Attempt, model: str) -> Pass:
        result = None if ended.scored is None else ended.scored.result
        kept = "" if ended.fingerprint is None else model
        return record_of(
            kept if result is None else result.model,
            waiting.conversation,
            self._orders.command,
            ended.fingerprint or PassFingerprint("", ""),
            ended.error,
            None if result is None else result.stats,
        )


def _gone_on(work: Work, ended: Attempt) -> Work:
    """Return the conversation with the rows that a server had measured when it gave up."""
    if ended.scored is None or work.past.rows is None:
        return work
    rows = [*work.past.rows, *ended.scored.rows()]
    return replace(work, past=replace(work.past, rows=rows))


async def _nothing(_: PassFingerprint) -> None:
    """Record nothing: a worker has no store."""


def actor_name() -> str:
    """Return the id of the actor of Ray's that this process is."""
    import ray

    return str(ray.get_runtime_context().get_actor_id())
