"""The ``vllm`` scorer: a vLLM server, stock or with mindscore's plugin."""

from __future__ import annotations

import asyncio
import importlib
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from msgspec import Struct

from mindhooks import Generated, ScorerError, WirePrompt, in_thread
from mindscore.config.settings import ServerSettings
from mindscore.http.client import StatusError, UnavailableError, WireClient
from mindscore.measure.prefixes import PrefixQueue, prefix_key
from mindscore.scorers.remote import answers
from mindscore.scorers.remote.base import client_of
from mindscore.scorers.remote.prefix_reuse import SMALL_BLOCK, PrefixReuse, cache_facts
from mindscore.scorers.remote.priority import PrioritySender
from mindscore.scorers.remote.rendering import RenderingScorer
from mindscore.scorers.remote.score_endpoint import ScoreEndpoint
from mindscore.scorers.remote.vllm_endpoints import (
    COMPLETIONS,
    GENERATE,
    CompletionsEndpoint,
    Endpoint,
    EntriesEndpoint,
    NoRowsError,
    RowsEndpoint,
)

log = logging.getLogger("mindscore")
T = TypeVar("T")

SCORE = "/v1/score"
FIRST_TO_REUSE = (0, 32)
"""The first version that can be told to read its prefix cache, or have mindscore's plugin."""

FLAGS = "--enable-scale-out --enable-prompt-tokens-details"
"""The flags with which a stock vLLM computes prefixes once that prompts share."""

ABSENT = frozenset({403, 404, 405})
"""Statuses of an endpoint that is not offered, whatever it is asked for."""


class ServerVersion(Struct):
    """The version that a server says it is of."""

    version: str


Way = Callable[[WirePrompt], Awaitable[answers.Answer]]


class VLLMScorer(RenderingScorer):
    """A scorer by ``/v1/score`` of mindscore's plugin, ``/inference/v1/generate`` or completions.

    The first of these that the server offers is used for good: the first prompt shows which it is.
    All but ``/v1/completions``, which every vLLM has, compute once what prompts share. A prompt
    that the one in use refuses fails: none is scored another way than the others of a run.
    """

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._salt = secrets.token_urlsafe(24)
        super().__init__(table)
        # As in the settings, a larger priority is served later.
        self._sender = PrioritySender(self._client, self._settings.priority)
        self._plugin = ScoreEndpoint(self._client, self.model, self._settings.priority, SCORE)
        self._completions = CompletionsEndpoint(self._client, self.model, self._sender)
        self._queue = PrefixQueue(SMALL_BLOCK)
        self._way: Way | None = None
        self._learning = asyncio.Lock()
        self.prefix_reuse: PrefixReuse | None = None

    def _make_client(self, settings: ServerSettings) -> WireClient:
        return client_of(settings, self._salt)

    @property
    def reuses_prefixes(self) -> bool | None:  # type: ignore[override]
        """True if what prompts share is computed once; known after the first prompt."""
        if self._way is None:
            return None
        return self._way == self._by_plugin or (
            self.prefix_reuse is not None and self.prefix_reuse.is_on
        )

    async def _ask(self, prompt: WirePrompt) -> answers.Answer:
        answers.refuse_images(prompt)
        prompt = answers.scored_part(prompt)
        async with self._learning:
            if self._way is None:
                return await self._learn(prompt)
        try:
            return await self._way(prompt)
        except StatusError as error:
            if error.status not in ABSENT:
                raise
            said = f"{error}; it answered when this run began: was the server started otherwise?"
            raise StatusError(said, error.status, error.said) from error

    async def _learn(self, prompt: WirePrompt) -> answers.Answer:
        """Score ``prompt`` by the best way that the server offers, which is then kept."""
        try:
            version = (await self._client.get("/version", ServerVersion)).version
        except UnavailableError as error:
            # A gateway may fail at all paths but /v1, so the prompt goes there meanwhile.
            if error.status is None:
                raise
            return await self._by_completions(prompt)
        except ScorerError:
            version = ""
        number = re.match(r"v?(\d+)\.(\d+)", version)
        is_new = number is not None and (int(number[1]), int(number[2])) >= FIRST_TO_REUSE
        if (is_new or number is None) and await self._has_plugin():
            self._way = self._by_plugin
            return await self._by_plugin(prompt)
        why = f"vLLM {self._client.quote(version)}" if number else "its version is not known"
        for endpoint in await self._endpoints() if is_new else ():
            reuse = PrefixReuse(endpoint, self._client.base_url, self._salt)
            try:
                answer = await reuse.score(prompt)
            except (StatusError, NoRowsError) as error:
                status = error.status if isinstance(error, StatusError) else None
                why = "no rows" if status is None else f"HTTP {status}"
                if status in ABSENT:
                    break
            else:
                reuse.learn(await cache_facts(self._client))
                self._way, self.prefix_reuse = reuse.score, reuse
                return answer
        # If this is refused too, the prompt is at fault, and not the endpoint.
        answer = await self._by_completions(prompt)
        self._way = self._by_completions
        log.info(
            "%s%s is not offered (%s): using %s, so each prompt is computed in full; vLLM 0.32 or "
            "later, started with %s, computes once what prompts share",
            self._client.base_url,
            GENERATE,
            why,
            COMPLETIONS,
            FLAGS,
        )
        return answer

    async def _has_plugin(self) -> bool:
        try:
            plugin = await self._plugin.plugin()
        except UnavailableError as error:
            if error.status is None:
                raise
            return False
        if plugin is None:
            return False
        self._queue.block = (await cache_facts(self._client)).block
        log.info("%s%s: scoring by the plugin of %s", self._client.base_url, SCORE, plugin)
        return True

    async def _endpoints(self) -> list[Endpoint]:
        """Return the ways of asking ``/inference/v1/generate``, the best first."""
        common = (self._client, self.model, self._sender)
        rows = [RowsEndpoint(*common)] if await in_thread(_has_numpy) else []
        return [*rows, EntriesEndpoint(*common)]

    async def _by_plugin(self, prompt: WirePrompt) -> answers.Answer:
        most = min(start for start, _ in prompt.ranges) - 1
        async with self._queue.turn(prefix_key(prompt.tokens), most):
            reply = await self._plugin.ask(prompt)
        computed = reply.usage.computed(default_cached=None) if reply.usage else None
        return answers.Answer(reply.scores, computed)

    async def _by_completions(self, prompt: WirePrompt) -> answers.Answer:
        reply = await self._completions.ask(prompt, {})
        # Where usage has no details, nothing was cached: vLLM does not read its cache for this.
        computed = reply.usage.computed(default_cached=0) if reply.usage else None
        return answers.Answer(reply.scores, computed)

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Continue greedily by ``/v1/completions``."""
        answers.refuse_images(prompt)
        return await self._complete(COMPLETIONS, prompt, max_tokens, stop, {})

    async def _post(self, path: str, body: Mapping[str, Any], answer: type[T], room: int) -> T:
        return await self._sender.post(path, body, answer, room)


def _has_numpy() -> bool:
    # Imported in a thread: it takes a tenth of a second.
    with suppress(ImportError):
        importlib.import_module("numpy")
        return True
    return False
