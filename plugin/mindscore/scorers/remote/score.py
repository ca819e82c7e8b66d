"""The ``score`` scorer: the original protocol, totals of ranges by one POST per prompt."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any

from msgspec import Raw, Struct

from mindhooks import (
    Generated,
    Image,
    RangeScore,
    ScorerError,
    WirePrompt,
)
from mindscore.config.settings import ServerSettings
from mindscore.conversation.template import RenderChat
from mindscore.http.client import WireClient
from mindscore.measure.divergence import implausible
from mindscore.scorers.remote.answers import (
    Answer,
    TokenUsage,
    room_for,
)
from mindscore.scorers.remote.base import RemoteScorer


class _Total(Struct):
    total_logprob: float


_BETWEEN_TOTALS = re.compile(rb"\}\s*,(?=\s*\{)")


class _Scores(Struct):
    scores: Raw
    usage: TokenUsage | None = None
    fingerprint: str | None = None


class ScoreScorer(RemoteScorer):
    """``POST /score`` with token ids and ranges; ``POST /completions`` for alternates."""

    # As in the original, its server is asked for the flows' scores and nothing else.
    self_tested = False
    # mindscore serve --train does, under the same name.
    swaps_adapters = True
    takes_images = True

    _answered: _Scores | None = None

    @property
    def render_chat(self) -> RenderChat | None:  # type: ignore[override]
        """``None``: the original's messages are ChatML."""
        return None

    async def fingerprint(self) -> str | None:
        """Return a hash of the server's address and its model's fingerprint, as last answered."""
        if self._answered is None:
            served = await self._served()
            said = served.fingerprint if served is not None else None
        else:
            said = self._answered.fingerprint
        return said and f"{self._settings.base_url} {self.model} {said}"

    def _models_path(self) -> str:
        return "/models"

    def _make_client(self, settings: ServerSettings) -> WireClient:
        return WireClient(settings)

    async def _ask(self, prompt: WirePrompt) -> Answer:
        body = {
            "model": self.model,
            "prompt": prompt.tokens,
            "score_ranges": prompt.ranges,
            "logprobs": 1,
            "priority": self._settings.priority,
            **_images(prompt.images),
        }
        answer = await self._client.post("/score", body, _Scores, max_bytes=room_for(prompt))
        where = f"{self._client.base_url}/score"
        totals = await self._decoded(
            where, "scores", answer.scores, list[_Total], _BETWEEN_TOTALS, len(prompt.ranges)
        )
        if totals is None:
            raise ScorerError(f"{where}: scores: is null; does server.scorer fit this server?")
        if len(totals) != len(prompt.ranges):
            raise ScorerError(
                f"{where}: scores: asked for {len(prompt.ranges)}, got {len(totals)}; "
                "the server does not score every range: update it, or use another scorer"
            )
        for number, score in enumerate(totals):
            if wrong := implausible(score.total_logprob):
                raise ScorerError(f"{where}: scores[{number}].total_logprob: {wrong}")
        self._answered = answer
        scores = [RangeScore(score.total_logprob) for score in totals]
        return Answer(scores, answer.usage.computed(default_cached=None) if answer.usage else None)

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Continue greedily by ``/completions``; ids are there where the server returns them."""
        more = {"priority": self._settings.priority, **_images(prompt.images)}
        return await self._complete("/completions", prompt, max_tokens, stop, more)


def _images(images: Sequence[Image]) -> dict[str, Any]:
    if not images:
        return {}
    encoded = [f"data:{it.mime};base64,{base64.b64encode(it.data).decode()}" for it in images]
    return {"multi_modal_data": {"image": encoded}}
