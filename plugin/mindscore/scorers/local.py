"""The ``local`` scorer: a language model in this process, beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mindhooks import Generated, RangeScore, ScorerError, Scores, WirePrompt, in_thread
from mindscore.config import ServerSettings, parse_table

if TYPE_CHECKING:
    from mindscore.scorers.local_model import LocalModel


class LocalScorer:
    """Scores one prompt at a time in a worker thread; loads its model on first use."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self.model = parse_table(table, ServerSettings, "server").model
        self._loaded: LocalModel | None = None
        self._turn = asyncio.Lock()

    async def score(self, prompts: Sequence[WirePrompt]) -> list[list[RangeScore]]:
        """Totals and values; logits are computed for the responses' rows only."""
        answers, computed = [], 0
        # One turn for all prompts: who asked first is answered first.
        async with self._turn:
            loaded = await self._load()
            for prompt in prompts:
                ranges, tokens = await in_thread(loaded.score, prompt)
                answers.append(ranges)
                computed += tokens
        return Scores(answers, computed)

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Greedy; when cancelled, ends at the next token."""
        stopped = threading.Event()
        async with self._turn:
            loaded = await self._load()
            arguments = (prompt, max_tokens, stop, stopped.is_set)
            generation = asyncio.create_task(in_thread(loaded.generate, *arguments))
            try:
                return await asyncio.shield(generation)
            finally:
                stopped.set()
                await asyncio.wait({generation})

    async def tokenize(self, text: str) -> list[int]:
        """By the model's own tokenizer."""
        async with self._turn:
            loaded = await self._load()
        return await in_thread(loaded.encode, text)

    async def detokenize(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, special tokens included."""
        async with self._turn:
            loaded = await self._load()
        return await in_thread(loaded.decode, ids)

    async def aclose(self) -> None:
        """Let go of the model's memory."""
        async with self._turn:
            self._loaded = None

    async def _load(self) -> LocalModel:
        if self._loaded is None:
            self._loaded = await in_thread(_load, self.model)
        return self._loaded


def _load(model: str) -> LocalModel:
    try:
        from mindscore.scorers.local_model import LocalModel
        from mindscore.scorers.weights import locate

        return LocalModel(model, locate(model))
    except ImportError as error:
        raise ScorerError(
            f"the local scorer needs torch and transformers ({error}); "
            "install them with: pip install 'mindscore[local]'"
        ) from error
