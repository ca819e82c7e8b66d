"""The ``score`` scorer: the original protocol, totals of ranges from one POST per prompt."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from mindhooks import Generated, Image, RangeScore, ScorerError, WirePrompt
from mindscore.config.settings import ServerSettings, parse_table
from mindscore.http.client import WireClient
from mindscore.measure.divergence import implausible
from mindscore.scorers.remote.base import Tokens, Usage, complete, detokenize
from mindscore.scorers.remote.batches import Answer, to_scores
from mindscore.scorers.tokenizer import FileTokenizer


class _Total(Struct):
    total_logprob: float


class _Scores(Struct):
    scores: list[_Total]
    usage: Usage | None = None


class ScoreScorer:
    """``POST /score`` with token ids and ranges; ``POST /completions`` for alternates."""

    # What else is in a server's batch changes the last digits.
    noisy = True
    # mindscore serve --train does, under the same name.
    swaps_adapters = True

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._settings = parse_table(table, ServerSettings, "server")
        self._client = WireClient(self._settings)
        self.model = self._settings.model
        file = self._settings.tokenizer
        self._tokenizer = FileTokenizer(Path(file)) if file else None

    async def score(self, prompts: Sequence[WirePrompt]) -> list[list[RangeScore]]:
        """Each prompt's totals; ``server.concurrency`` requests at once, one per prompt."""
        tasks = [asyncio.create_task(self._score_one(prompt)) for prompt in prompts]
        try:
            answers = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return to_scores(answers)

    async def _score_one(self, prompt: WirePrompt) -> Answer:
        if not prompt.ranges:
            return Answer([], 0)
        body = {
            "model": self.model,
            "prompt": prompt.tokens,
            "score_ranges": prompt.ranges,
            "logprobs": 1,
            "priority": self._settings.priority,
            **_images(prompt.images),
        }
        answer = await self._client.post("/score", body, _Scores)
        where = f"{self._client.base_url}/score"
        if len(answer.scores) != len(prompt.ranges):
            raise ScorerError(
                f"{where}: scores: asked for {len(prompt.ranges)}, got {len(answer.scores)}; "
                "the server does not score every range: update it, or use another scorer"
            )
        for number, score in enumerate(answer.scores):
            if wrong := implausible(score.total_logprob):
                raise ScorerError(f"{where}: scores[{number}].total_logprob: {wrong}")
        scores = [RangeScore(score.total_logprob) for score in answer.scores]
        return Answer(scores, answer.usage.computed(unless_said=None) if answer.usage else None)

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Greedy, from token ids; the answer's ids where the server returns them."""
        return await complete(
            self._client,
            "/completions",
            self.model,
            prompt.tokens,
            max_tokens=max_tokens,
            stop=stop,
            more={"priority": self._settings.priority, **_images(prompt.images)},
        )

    async def tokenize(self, text: str) -> list[int]:
        """By ``server.tokenizer``, else by the server, of which the protocol does not ask it.

        Raises:
            ScorerError: neither can; the text says what to do.
        """
        if self._tokenizer is not None:
            return await self._tokenizer.tokenize(text)
        try:
            return (await self._client.post("/tokenize", {"prompt": text}, Tokens)).tokens
        except ScorerError as error:
            raise ScorerError(
                f"the server cannot tokenise ({error}): set server.tokenizer to the model's "
                "tokenizer.json, or give token_ids in the transcript"
            ) from error

    async def detokenize(self, ids: Sequence[int]) -> str:
        """By ``server.tokenizer``, else by the server; special tokens included."""
        if self._tokenizer is not None:
            return await self._tokenizer.detokenize(ids)
        return await detokenize(self._client, ids, {})

    async def aclose(self) -> None:
        """Close the session."""
        await self._client.aclose()


def _images(images: Sequence[Image]) -> dict[str, Any]:
    if not images:
        return {}
    encoded = [f"data:{it.mime};base64,{base64.b64encode(it.data).decode()}" for it in images]
    return {"multi_modal_data": {"image": encoded}}
