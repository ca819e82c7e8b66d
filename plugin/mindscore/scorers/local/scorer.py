"""The ``local`` scorer: a language model in this process, beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from mindhooks import BaseScorer, Generated, ScorerError, ScoreResult, WirePrompt, in_thread
from mindscore.config.settings import ServerSettings, parse_table

if TYPE_CHECKING:
    from mindscore.scorers.local.model import LocalModel


T = TypeVar("T")


class LocalScorer(BaseScorer):
    """A scorer that computes one prompt at a time, in a worker thread.

    It loads its model on first use.
    """

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._settings = parse_table(table, ServerSettings, "server")
        self.model = self._settings.model
        # In float32 rounding is far below what a response's words make of a difference.
        self.noisy = self._settings.dtype != "float32"
        self.reuses_prefixes = self._settings.cache_mb > 0
        self.adapter = self._settings.adapter or None
        self._loaded: LocalModel | None = None
        self._loading = asyncio.Lock()
        self._turn = asyncio.Lock()

    @property
    def adapter_folder(self) -> Path | None:
        """Return the folder of the adapter that the model has, or will be loaded with."""
        return Path(self.adapter) if self.adapter else None

    @property
    def vocabulary(self) -> int | None:
        """Return the number of token ids of the model, or ``None`` if it is not loaded."""
        return self._loaded.vocabulary if self._loaded else None

    async def score(self, prompts: Sequence[WirePrompt]) -> ScoreResult:
        """Return totals and values; logits are computed for the responses' rows only.

        When cancelled, it ends after the chunk of tokens that is being computed.
        """
        answers, computed = [], 0
        # One turn for all prompts of a call: calls are answered in order.
        async with self._turn:
            loaded = await self._load()
            for prompt in prompts:
                ranges, tokens = await _stoppable(loaded.score, prompt)
                answers.append(ranges)
                computed += tokens
        return ScoreResult(answers, computed)

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Continue greedily; when cancelled, end at the next token."""
        async with self._turn:
            loaded = await self._load()
            return await _stoppable(loaded.generate, prompt, max_tokens, stop)

    async def tokenize(self, text: str) -> list[int]:
        """Return the ids of ``text`` by the model's own tokenizer."""
        return await in_thread((await self._load()).encode, text)

    async def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, special tokens included."""
        return await in_thread((await self._load()).decode, ids)

    async def render_chat(
        self, messages: Sequence[Mapping[str, object]], add_generation_prompt: bool
    ) -> str:
        """Return the text of ``messages`` by the model's own chat template.

        Raises:
            ScorerError: the model has no template.
        """
        return await in_thread((await self._load()).render_chat, messages, add_generation_prompt)

    async def adopt(self, adapter: Path | None) -> None:
        """Load the model with ``adapter``, a folder in PEFT's format, or without any.

        It waits for its turn behind the calls under way; later calls wait for it. For a moment,
        both models are in memory.

        Raises:
            ScorerError: the adapter cannot be used; the model is as it was.
        """
        settings = msgspec.structs.replace(self._settings, adapter=str(adapter or ""))
        async with self._turn, self._loading:
            self._loaded = await in_thread(_load, settings)
            self._settings, self.adapter = settings, settings.adapter or None

    async def aclose(self) -> None:
        """Free the model's memory."""
        async with self._turn:
            self._loaded = None

    async def _load(self) -> LocalModel:
        async with self._loading:
            if self._loaded is None:
                try:
                    self._loaded = await in_thread(_load, self._settings)
                except ScorerError as error:
                    error.arrived = False
                    raise
                self.context_length = self._loaded.context_length
            return self._loaded


async def _stoppable(work: Callable[..., T], *arguments: Any) -> T:
    """Run ``work`` in a thread; its last argument is a function that says when to stop."""
    stopped = threading.Event()
    working = asyncio.create_task(in_thread(work, *arguments, stopped.is_set))
    try:
        return await asyncio.shield(working)
    finally:
        stopped.set()
        await asyncio.wait({working})
        # Retrieved, so that asyncio does not log it: nobody waits for it any more.
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
