"""The ``/score`` call of the original protocol, which mindscore's plugin for vLLM answers too."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from msgspec import Raw, Struct

from mindhooks import Image, RangeScore, ScorerError, WirePrompt
from mindscore.http.answers import MISSING, decode_in_pieces
from mindscore.http.client import UnavailableError, WireClient
from mindscore.measure.divergence import implausible
from mindscore.scorers.remote.answers import TokenUsage, room_for


class _Score(Struct):
    total_logprob: float
    token_logprobs: list[float] | None = None


_BETWEEN_SCORES = re.compile(rb"\}\s*,(?=\s*\{)")


class _Scores(Struct):
    scores: Raw
    usage: TokenUsage | None = None
    fingerprint: str | None = None


class _Plugin(Struct):
    server: str
    version: str
    vllm: str


class ScoreReply(NamedTuple):
    """The scores of a prompt, what the server says of its tokens, and its model's fingerprint."""

    scores: list[RangeScore]
    usage: TokenUsage | None
    fingerprint: str | None


class ScoreEndpoint:
    """Asks ``path`` for totals of ranges, one prompt a call; it may give each token's value too."""

    def __init__(self, client: WireClient, model: str, priority: int, path: str) -> None:
        self._client = client
        self._model = model
        self._priority = priority
        self._path = path

    async def plugin(self) -> str | None:
        """Return the versions of mindscore's plugin for vLLM, or ``None`` where it is not there.

        Raises:
            UnavailableError: the server cannot be reached, or fails for now.
        """
        try:
            said = await self._client.get(self._path, _Plugin)
        except UnavailableError:
            raise
        # vLLM has a path of that name of its own, for models that compare texts.
        except ScorerError:
            return None
        if said.server != "mindscore":
            return None
        quote = self._client.quote
        return f"mindscore {quote(said.version)} in vLLM {quote(said.vllm)}"

    async def ask(self, prompt: WirePrompt) -> ScoreReply:
        """Return the answer for one prompt, which has ranges.

        Raises:
            ScorerError: the server failed, or its answer does not fit.
        """
        client = self._client
        body = {
            "model": self._model,
            "prompt": prompt.tokens,
            "score_ranges": prompt.ranges,
            "logprobs": 1,
            "priority": self._priority,
            **multi_modal_data(prompt.images),
        }
        answer = await client.post(self._path, body, _Scores, max_bytes=room_for(prompt))
        where = f"{client.base_url}{self._path}"
        if answer.scores == MISSING:
            raise ScorerError(f"{where}: scores: is null; does server.scorer fit this server?")
        await client.pace.yield_to_loop()
        scores = await decode_in_pieces(
            where,
            answer.scores,
            list[_Score],
            _BETWEEN_SCORES,
            client.quote,
            "$.scores",
            client.pace,
            len(prompt.ranges),
        )
        if len(scores) != len(prompt.ranges):
            raise ScorerError(
                f"{where}: scores: asked for {len(prompt.ranges)}, got {len(scores)}; "
                "the server does not score every range: update it, or use another scorer"
            )
        found = [
            _range_score(f"{where}: scores[{number}]", score, span)
            for number, (score, span) in enumerate(zip(scores, prompt.ranges, strict=True))
        ]
        return ScoreReply(found, answer.usage, answer.fingerprint)


def _range_score(field: str, score: _Score, span: tuple[int, int]) -> RangeScore:
    """Return a range's total, and its values where the server gives them.

    Raises:
        ScorerError: one is no log-probability, or there is not one value for each token.
    """
    if wrong := implausible(score.total_logprob):
        raise ScorerError(f"{field}.total_logprob: {wrong}")
    if score.token_logprobs is None:
        return RangeScore(score.total_logprob)
    start, end = span
    if len(score.token_logprobs) != end - start:
        raise ScorerError(
            f"{field}.token_logprobs: expected {end - start} entries, got "
            f"{len(score.token_logprobs)}; update the server, or use another scorer"
        )
    for number, value in enumerate(score.token_logprobs):
        if wrong := implausible(value):
            raise ScorerError(f"{field}.token_logprobs[{number}]: {wrong}")
    return RangeScore(score.total_logprob, tuple(score.token_logprobs))


def multi_modal_data(images: Sequence[Image]) -> dict[str, Any]:
    """Return the field of a request's body that has ``images``; none if there are none."""
    if not images:
        return {}
    encoded = [f"data:{it.mime};base64,{base64.b64encode(it.data).decode()}" for it in images]
    return {"multi_modal_data": {"image": encoded}}
