"""The ``auto`` scorer: finds out which kind of server it is, once, and goes on as that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from mindhooks import Generated, RangeScore, ScorerError, WirePrompt
from mindscore.config.settings import ServerSettings, parse_table
from mindscore.http.client import RefusedError, RetriableError, WireClient
from mindscore.scorers.remote.base import RemoteScorer, address, client_of
from mindscore.scorers.remote.openai import OpenAIScorer
from mindscore.scorers.remote.score import ScoreScorer
from mindscore.scorers.remote.sglang import SGLangScorer
from mindscore.scorers.remote.vllm import VLLMScorer

log = logging.getLogger("mindscore")
_Answer = TypeVar("_Answer")

Kind = type[RemoteScorer] | type[ScoreScorer]

_OWNERS: dict[str | None, Kind] = {
    "mindscore": ScoreScorer,
    "sglang": SGLangScorer,
    "vllm": VLLMScorer,
}


class _Model(Struct):
    owned_by: str | None = None


class _Models(Struct):
    data: list[_Model]


class _Version(Struct):
    version: str


class _ModelInfo(Struct):
    model_path: str


_SIGNS: tuple[tuple[str, type[Struct], type[RemoteScorer]], ...] = (
    ("/version", _Version, VLLMScorer),
    ("/server_info", _Version, SGLangScorer),
    ("/model_info", _ModelInfo, SGLangScorer),
)
"""A path, what a server that has it answers there, and the scorer for such a server."""


class AutoScorer:
    """The scorer for whatever the server answers as."""

    self_tested = True

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._table = table
        self._settings = parse_table(table, ServerSettings, "server")
        # Made here, so that what is wrong with the settings is told here.
        self._probe = Probe(self._settings)
        self.model = self._settings.model
        self._found: RemoteScorer | ScoreScorer | None = None
        self._finding = asyncio.Lock()

    @property
    def noisy(self) -> bool:
        """As of what was found: true of each."""
        return self._found.noisy if self._found else RemoteScorer.noisy

    @property
    def batch_size(self) -> int:
        """As of what was found."""
        return getattr(self._found, "batch_size", 1) if self._found else RemoteScorer.batch_size

    @property
    def reuses_prefixes(self) -> bool | None:
        """As of what was found; ``None``, not known, before that."""
        return getattr(self._found, "reuses_prefixes", None)

    @property
    def swaps_adapters(self) -> bool:
        """As of what was found."""
        return getattr(self._found, "swaps_adapters", False)

    async def score(self, prompts: Sequence[WirePrompt]) -> list[list[RangeScore]]:
        """Totals and values, from the scorer that was found."""
        if not any(prompt.ranges for prompt in prompts):
            return [[] for _ in prompts]
        return await (await self._scorer()).score(prompts)

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Greedy, by the scorer that was found."""
        return await (await self._scorer()).generate(prompt, max_tokens=max_tokens, stop=stop)

    async def tokenize(self, text: str) -> list[int]:
        """By ``server.tokenizer`` where it is set, else by the server."""
        return await (await self._scorer()).tokenize(text)

    async def detokenize(self, ids: Sequence[int]) -> str:
        """By ``server.tokenizer`` where it is set, else by the server; special tokens included."""
        return await (await self._scorer()).detokenize(ids)

    async def aclose(self) -> None:
        """Close what was found."""
        await self._probe.aclose()
        if self._found is not None:
            await self._found.aclose()

    async def _scorer(self) -> RemoteScorer | ScoreScorer:
        async with self._finding:
            if self._found is None:
                kind = await self._probe.find()
                # The original protocol knows one address only; the others take it apart.
                own = address(self._settings.base_url)
                more = {"base_url": own.root + own.api} if kind is ScoreScorer else {}
                self._found = kind({**self._table, **more})
        return self._found


class Probe:
    """Asks a server what it is."""

    def __init__(self, settings: ServerSettings) -> None:
        self._client: WireClient = client_of(settings)
        self._models = address(settings.base_url).api + "/models"

    async def find(self) -> Kind:
        """The scorer for the server.

        Raises:
            ScorerError: it cannot be reached, wants a key, or is of no known kind; the text has
                each address tried and what it answered.
        """
        tried: list[str] = []
        models = await self._ask(self._models, _Models, tried)
        owner = models.data[0].owned_by if models and models.data else None
        if owner in _OWNERS:
            return self._told(_OWNERS[owner], self._models)
        for path, answer, scorer in _SIGNS:
            if await self._ask(path, answer, tried) is not None:
                return self._told(scorer, path)
        if models is not None:
            return self._told(OpenAIScorer, self._models)
        raise ScorerError(
            f"{self._client.base_url}: no model server of a known kind: {'; '.join(tried)}; "
            "is server.base_url right? if it is, set server.scorer"
        )

    async def aclose(self) -> None:
        """Close the session."""
        await self._client.aclose()

    def _told(self, scorer: Kind, path: str) -> Kind:
        log.info("%s: using %s, by what %s answers", self._client.base_url, scorer.__name__, path)
        return scorer

    async def _ask(self, path: str, answer: type[_Answer], tried: list[str]) -> _Answer | None:
        try:
            return await self._client.get(path, answer)
        except RetriableError as error:
            # No other path would be answered either.
            if error.status is None:
                raise
            tried.append(str(error))
        except RefusedError as error:
            if error.status == 401:
                raise
            tried.append(f"{self._client.base_url}{path}: HTTP {error.status}")
        except ScorerError as error:
            tried.append(str(error))
        return None
