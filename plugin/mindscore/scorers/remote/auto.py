"""The ``auto`` scorer: finds out the kind of its server, once, and uses the scorer for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from mindhooks import BaseScorer, Generated, ScorerError, ScoreResult, WirePrompt
from mindscore.config.settings import ServerSettings, parse_table
from mindscore.conversation.template import RenderChat
from mindscore.http.client import StatusError, UnavailableError, WireClient
from mindscore.scorers.remote.base import RemoteScorer, address, client_of
from mindscore.scorers.remote.openai import OpenAIScorer
from mindscore.scorers.remote.prefix_reuse import PrefixReuse
from mindscore.scorers.remote.score import ScoreScorer
from mindscore.scorers.remote.sglang import SGLangScorer
from mindscore.scorers.remote.vllm import ServerVersion, VLLMScorer

log = logging.getLogger("mindscore")
T = TypeVar("T")

_OWNERS: dict[str | None, type[RemoteScorer]] = {
    "mindscore": ScoreScorer,
    "sglang": SGLangScorer,
    "vllm": VLLMScorer,
}


class _Model(Struct):
    owned_by: str | None = None


class _Models(Struct):
    data: list[_Model]


class _ModelInfo(Struct):
    model_path: str


_SIGNS: tuple[tuple[str, type[Struct], type[RemoteScorer]], ...] = (
    ("/version", ServerVersion, VLLMScorer),
    ("/server_info", ServerVersion, SGLangScorer),
    ("/model_info", _ModelInfo, SGLangScorer),
)
"""Paths that tell a server's kind, the type of their answers, and the scorer for that kind."""


class AutoScorer(BaseScorer):
    """The scorer for whatever kind the server is; its capabilities are known after a call."""

    # True of each kind, as far as flows ask before the first call.
    noisy = RemoteScorer.noisy
    self_tested = RemoteScorer.self_tested
    # Not by the original protocol either: the server that it finds for that is mindscore's own.
    takes_images = RemoteScorer.takes_images

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._table = table
        self._settings = parse_table(table, ServerSettings, "server")
        # Made here, so that errors in the settings show here.
        self._probe = ServerProbe(self._settings)
        self.model = self._settings.model
        self._found: RemoteScorer | None = None
        self._finding = asyncio.Lock()

    async def score(self, prompts: Sequence[WirePrompt]) -> ScoreResult:
        """Return the answers of the scorer that was found; without ranges, ask nothing."""
        if not any(prompt.ranges for prompt in prompts):
            return ScoreResult([[] for _ in prompts], 0)
        return await (await self._scorer()).score(prompts)

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Continue greedily by the scorer that was found."""
        return await (await self._scorer()).generate(prompt, max_tokens=max_tokens, stop=stop)

    async def tokenize(self, text: str) -> list[int]:
        """Return ids by ``server.tokenizer`` where it is set, else by the server."""
        return await (await self._scorer()).tokenize(text)

    async def fingerprint(self) -> str | None:
        """Return that of the scorer that was found."""
        return await (await self._scorer()).fingerprint()

    async def served_models(self) -> tuple[str, ...]:
        """Return the models of the scorer that was found."""
        return await (await self._scorer()).served_models()

    @property
    def reuses_prefixes(self) -> bool | None:  # type: ignore[override]
        """The capability of the scorer that was found; ``None`` until then."""
        return self._found.reuses_prefixes if self._found else None

    @property
    def prefix_reuse(self) -> PrefixReuse | None:
        """The switch of the scorer that was found, for the self-test."""
        return self._found.prefix_reuse if isinstance(self._found, VLLMScorer) else None

    @property
    def render_chat(self) -> RenderChat | None:  # type: ignore[override]
        """The capability of the scorer that was found; ``None`` until then."""
        return self._found.render_chat if self._found else None

    @property
    def bos(self) -> tuple[int, ...]:  # type: ignore[override]
        """The first token of the scorer that was found; empty until then."""
        return self._found.bos if self._found else ()

    async def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, special tokens included."""
        return await (await self._scorer()).detokenize(ids)

    async def aclose(self) -> None:
        """Close the sessions."""
        await self._probe.aclose()
        if self._found is not None:
            await self._found.aclose()

    async def _scorer(self) -> RemoteScorer:
        async with self._finding:
            if self._found is None:
                kind = await self._probe.find()
                # The original protocol knows one address only; the others take it apart.
                own = address(self._settings.base_url)
                more = {"base_url": own.root + own.api} if kind is ScoreScorer else {}
                self._found = kind({**self._table, **more})
                self.swaps_adapters = self._found.swaps_adapters
        return self._found


class ServerProbe:
    """Asks a server for its kind."""

    def __init__(self, settings: ServerSettings) -> None:
        self._client: WireClient = client_of(settings)
        self._models = address(settings.base_url).api + "/models"

    async def find(self) -> type[RemoteScorer]:
        """Return the scorer class for the server.

        Raises:
            UnavailableError: it cannot be reached, or does not list its models for now.
            ScorerError: it wants a key, or is of no known kind; the text has each address tried and
                its answer.
        """
        tried: list[str] = []
        models = await self._ask(self._models, _Models, tried)
        owner = models.data[0].owned_by if models and models.data else None
        if owner in _OWNERS:
            return self._choose(_OWNERS[owner], self._models)
        for path, answer, scorer in _SIGNS:
            if await self._ask(path, answer, tried) is not None:
                return self._choose(scorer, path)
        if models is not None:
            return self._choose(OpenAIScorer, self._models)
        raise ScorerError(
            f"{self._client.base_url}: no model server of a known kind: {'; '.join(tried)}; "
            "is server.base_url right? if it is, set server.scorer"
        )

    async def aclose(self) -> None:
        """Close the session."""
        await self._client.aclose()

    def _choose(self, scorer: type[RemoteScorer], path: str) -> type[RemoteScorer]:
        log.info("%s: using %s, by the answer of %s", self._client.base_url, scorer.__name__, path)
        return scorer

    async def _ask(self, path: str, answer: type[T], tried: list[str]) -> T | None:
        try:
            return await self._client.get(path, answer)
        except UnavailableError as error:
            # Without an answer at all no other path would be answered either.
            if error.status is None or path == self._models:
                raise
            tried.append(str(error))
        except StatusError as error:
            if error.status == 401:
                raise
            tried.append(f"{self._client.base_url}{path}: HTTP {error.status}")
        except ScorerError as error:
            tried.append(str(error))
        return None
