"""The ``local`` scorer: a language model in this process, beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from mindhooks import Generated, RangeScore, ScorerError, Scores, WirePrompt, in_thread
from mindscore.config.settings import ServerSettings, parse_table

if TYPE_CHECKING:
    from mindscore.scorers.local.model import LocalModel


T = TypeVar("T")


class LocalScorer:
    """Scores one prompt at a time in a worker thread; loads its model on first use."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._settings = parse_table(table, ServerSettings, "server")
        self.model = self._settings.model
        # In float32 rounding is far below what a response's words make of a difference.
        self.noisy = self._settings.dtype != "float32"
        self.reuses_prefixes = self._settings.cache_mb > 0
        self._loaded: LocalModel | None = None
        self._loading = asyncio.Lock()
        self._turn = asyncio.Lock()

    @property
    def context_length(self) -> int | None:
        """How many tokens the model reads; ``None`` where it does not say, or is not loaded."""
        return self._loaded.context_length if self._loaded else None

    @property
    def vocabulary(self) -> int | None:
        """How many token ids the model knows; ``None`` where it is not loaded."""
        return self._loaded.vocabulary if self._loaded else None

    @property
    def adapter(self) -> Path | None:
        """The folder of the adapter that the model has, or will be loaded with."""
        return Path(self._settings.adapter) if self._settings.adapter else None

    async def score(self, prompts: Sequence[WirePrompt]) -> list[list[RangeScore]]:
        """Totals and values; logits are computed for the responses' rows only.

        When cancelled, it ends at the next stretch of tokens.
        """
        answers, computed = [], 0
        # One turn for all prompts: who asked first is answered first.
        async with self._turn:
            loaded = await self._load()
            for prompt in prompts:
                ranges, tokens = await _stoppable(loaded.score, prompt)
                answers.append(ranges)
                computed += tokens
        return Scores(answers, computed)

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Greedy; when cancelled, ends at the next token."""
        async with self._turn:
            loaded = await self._load()
            return await _stoppable(loaded.generate, prompt, max_tokens, stop)

    async def tokenize(self, text: str) -> list[int]:
        """By the model's own tokenizer."""
        return await in_thread((await self._load()).encode, text)

    async def detokenize(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, special tokens included."""
        return await in_thread((await self._load()).decode, ids)

    async def render_chat(self, messages: Sequence[Mapping[str, Any]], asks: bool) -> str:
        """The prompt by the model's own chat template; with ``asks``, for the model to go on.

        Raises:
            ScorerError: the model has no template.
        """
        return await in_thread((await self._load()).render_chat, messages, asks)

    async def adopt(self, adapter: Path | None) -> None:
        """Have the model with ``adapter``, a folder in PEFT's format, from now on, or without any.

        It waits for its turn, as what is asked meanwhile does. For a moment, there are two models.

        Raises:
            ScorerError: the adapter cannot be used; the model is as it was.
        """
        settings = msgspec.structs.replace(self._settings, adapter=str(adapter or ""))
        async with self._turn, self._loading:
            self._loaded = await in_thread(_load, settings)
            self._settings = settings

    async def aclose(self) -> None:
        """Let go of the model's memory."""
        async with self._turn:
            self._loaded = None

    async def _load(self) -> LocalModel:
        async with self._loading:
            if self._loaded is None:
                self._loaded = await in_thread(_load, self._settings)
            return self._loaded


async def _stoppable(work: Callable[..., T], *arguments: Any) -> T:
    """``work`` in a thread, told by its last argument, a function, that it is cancelled."""
    stopped = threading.Event()
    working = asyncio.create_task(in_thread(work, *arguments, stopped.is_set))
    try:
        return await asyncio.shield(working)
    finally:
        stopped.set()
        await asyncio.wait({working})
        # Nobody waits any more for what stopping raised.
        working.exception()


def _load(settings: ServerSettings) -> LocalModel:
    try:
        from mindscore.scorers.local.model import LocalModel
        from mindscore.scorers.local.weights import locate

        name, cache_bytes = settings.model, settings.cache_mb * 2**20
        return LocalModel(name, locate(name), settings.dtype, cache_bytes, settings.adapter)
    except ImportError as error:
        raise ScorerError(
            f"the local scorer needs torch and transformers ({error}); "
            "install them with: pip install 'mindscore[local]'"
        ) from error
