"""The endpoints that score, complete and tokenise."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from aiohttp import web

from mindhooks import (
    Generated,
    RangeScore,
    Scorer,
    ScorerCapabilities,
    ScoreResult,
    WirePrompt,
)
from mindscore.http.bodies import read_request
from mindscore.http.refusals import RefusedError, json_response
from mindscore.http.request_queue import RequestQueue
from mindscore.measure.divergence import implausible
from mindscore.scorers.local.scorer import LocalScorer
from mindscore.serve.requests import (
    CompletionRequest,
    DetokenizeRequest,
    ScoreRequest,
    TokenizeRequest,
    require_short,
)


class Completion:
    """The answer to one completion request, made prompt by prompt, and its usage."""

    def __init__(self, scorer: Scorer, request: CompletionRequest) -> None:
        self._scorer = scorer
        self._request = request
        self._prompt_tokens = 0
        self._said_tokens = 0
        self._cached_tokens: int | None = 0

    @property
    def usage(self) -> dict[str, Any]:
        """The tokens so far, and how many of them were cached if the scorer says so."""
        return usage(self._prompt_tokens, self._said_tokens, self._cached_tokens)

    async def choice(self, index: int, prompt: str | list[int]) -> dict[str, Any]:
        """Return vLLM's ``choice`` object for one prompt."""
        asked = self._request
        text = prompt if isinstance(prompt, str) else None
        ids = tuple(await self._scorer.tokenize(prompt) if isinstance(prompt, str) else prompt)
        if not ids:
            raise RefusedError(400, "the prompt has no tokens", param="prompt")
        require_fit(self._scorer, ids)
        self._prompt_tokens += len(ids)
        # Before anything is generated: what follows finds the prompt in the KV cache.
        wants_echoed = bool(asked.echo and asked.logprobs is not None)
        worth = [None, *await self._prompt_values(ids, wants_echoed)]
        said = await self._continuation(ids)
        spoken = said.token_ids or ()
        self._said_tokens += len(spoken)
        if asked.echo and text is None:
            text = await text_of(self._scorer, ids)
        logprobs = None
        if asked.logprobs is not None:
            ends = await self._values((*ids, *spoken), len(ids)) if spoken else []
            if asked.echo:
                logprobs = await self._logprobs((*ids, *spoken), [*worth, *ends])
            else:
                logprobs = await self._logprobs(spoken, ends)
        per_token = asked.prompt_logprobs is not None or wants_echoed
        return {
            "index": index,
            "text": (text or "") + said.text if asked.echo else said.text,
            "logprobs": logprobs,
            **self._finish(spoken),
            "token_ids": spoken if asked.return_token_ids else None,
            "prompt_token_ids": ids if asked.return_token_ids else None,
            "prompt_logprobs": _by_id(ids, worth) if per_token else None,
        }

    async def _prompt_values(self, ids: tuple[int, ...], wants_echoed: bool) -> list[float]:
        if self._request.prompt_logprobs is None and not wants_echoed:
            self._cached_tokens = None
            return []
        if len(ids) == 1:
            return []
        values, computed = await self._measure(ids, 1)
        cached = cached_tokens(len(ids), computed)
        known = self._cached_tokens is not None and cached is not None
        self._cached_tokens = (self._cached_tokens or 0) + (cached or 0) if known else None
        return values

    async def _continuation(self, ids: tuple[int, ...]) -> Generated:
        most = self._request.most_tokens
        if most == 0:
            return Generated((), "")
        stop = self._request.stop_token_ids or ()
        return await self._scorer.generate(WirePrompt(ids, (), (), ()), max_tokens=most, stop=stop)

    async def _values(self, ids: tuple[int, ...], start: int) -> list[float]:
        return (await self._measure(ids, start))[0]

    async def _measure(self, ids: tuple[int, ...], start: int) -> tuple[list[float], int | None]:
        """Return the logprobs of the tokens from ``start``, and how many tokens were computed."""
        prompt = WirePrompt(ids, (), ((start, len(ids)),), ("all",))
        result = ScoreResult.of(await self._scorer.score([prompt]))
        [[score]] = result.ranges
        values = list(score.values or ())
        if len(values) != len(ids) - start:
            raise RefusedError(500, f"{self._scorer.model}: the scorer gives no values by token")
        require_plausible(self._scorer, [RangeScore(value) for value in values])
        return values, result.computed_tokens

    async def _logprobs(self, ids: Sequence[int], values: Sequence[float | None]) -> dict[str, Any]:
        if self._request.return_tokens_as_token_ids:
            names = {id_: _numbered(id_) for id_ in ids}
        else:
            names = {id_: await text_of(self._scorer, [id_]) for id_ in dict.fromkeys(ids)}
        tokens = [names[id_] for id_ in ids]
        return {
            "tokens": tokens,
            "token_logprobs": values,
            "top_logprobs": None,
            "text_offset": list(accumulate(map(len, tokens[:-1]), initial=0)) if tokens else [],
        }

    def _finish(self, spoken: Sequence[int]) -> dict[str, Any]:
        stop = self._request.stop_token_ids or ()
        if spoken and spoken[-1] in stop:
            return {"finish_reason": "stop", "stop_reason": spoken[-1]}
        is_short = len(spoken) < self._request.most_tokens
        return {"finish_reason": "stop" if is_short else "length", "stop_reason": None}


def cached_tokens(end: int, computed: int | None) -> int | None:
    """Return how many tokens before ``end`` the model did not compute again, ``None``: unknown.

    The last is only looked up, in what the model says before it.
    """
    return None if computed is None else max(0, end - 1 - computed)


def usage(prompt_tokens: int, said_tokens: int, cached_tokens: int | None) -> dict[str, Any]:
    """Return vLLM's ``usage`` object."""
    details = None if cached_tokens is None else {"cached_tokens": cached_tokens}
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + said_tokens,
        "completion_tokens": said_tokens,
        "prompt_tokens_details": details,
    }


def require_plausible(scorer: Scorer, scores: Sequence[RangeScore]) -> None:
    """Refuse to answer with values that are not log-probabilities; JSON has no NaN either."""
    for score in scores:
        if wrong := implausible(score.total):
            raise RefusedError(500, f"{scorer.model}: {wrong}")


def context_length(scorer: Scorer) -> int | None:
    """Return the number of tokens that the model reads, or ``None`` where there is no bound."""
    length = ScorerCapabilities.of(scorer).context_length
    return None if length is None or math.isinf(length) else int(length)


def require_fit(scorer: Scorer, ids: Sequence[int]) -> None:
    """Refuse a prompt that is longer than the model reads."""
    longest = context_length(scorer)
    if longest is not None and len(ids) > longest:
        raise RefusedError(
            400,
            f"the prompt has {len(ids)} tokens, the model reads at most {longest}",
            param="prompt",
        )


async def text_of(scorer: Scorer, ids: Sequence[int]) -> str:
    """Return the text of ``ids``, or their numbers if the scorer cannot detokenise."""
    detokenize = ScorerCapabilities.of(scorer).detokenize
    return " ".join(map(_numbered, ids)) if detokenize is None else await detokenize(ids)


def _numbered(id_: int) -> str:
    return f"token_id:{id_}"


def _by_id(ids: Sequence[int], values: Sequence[float | None]) -> list[dict[str, Any] | None]:
    """Return vLLM's ``prompt_logprobs``, which has nothing for the first token."""
    return [
        None if value is None else {str(id_): _entry(value)}
        for id_, value in zip(ids, values, strict=True)
    ]


def _entry(value: float) -> dict[str, Any]:
    return {"logprob": value, "rank": None, "decoded_token": None}


class Endpoints:
    """The endpoints of one scorer, which computes one request at a time.

    ``scoring`` is the queue for the model; tokenising has its own.
    """

    def __init__(self, scorer: Scorer, *, queue_limit: int, body_timeout_s: float) -> None:
        self._scorer = scorer
        self._body_timeout_s = body_timeout_s
        self.scoring = RequestQueue(queue_limit)
        self._texts = RequestQueue(queue_limit)
        self._started = int(time.time())

    def routes(self) -> list[web.RouteDef]:
        """Return the method, path and handler of each endpoint."""
        return [
            web.get("/health", self.health),
            web.get("/v1/models", self.models),
            web.post("/v1/score", self.score),
            web.post("/v1/completions", self.complete),
            web.post("/tokenize", self.tokenize),
            web.post("/v1/tokenize", self.tokenize),
            web.post("/detokenize", self.detokenize),
            web.post("/v1/detokenize", self.detokenize),
        ]

    async def health(self, _: web.Request) -> web.Response:
        """Say that the server is up, and how many requests wait."""
        state = {"status": "ok", "queued": self.scoring.queued, "busy": self.scoring.busy}
        return json_response(state | self._adapter())

    async def models(self, _: web.Request) -> web.Response:
        """List the one model."""
        model = {
            "id": self._scorer.model,
            "object": "model",
            "created": self._started,
            "owned_by": "mindscore",
            "root": self._scorer.model,
            "parent": None,
            "max_model_len": context_length(self._scorer),
        }
        return json_response(
            {"object": "list", "data": [model | self._adapter() | await self._weights()]}
        )

    async def score(self, request: web.Request) -> web.Response:
        """Score ranges of a prompt: one total each."""
        asked = await read_request(request, ScoreRequest, self._body_timeout_s)
        self._require_model(asked.model)
        asked.check()
        require_fit(self._scorer, asked.prompt)
        if not asked.score_ranges:
            return json_response({"scores": [], "usage": usage(len(asked.prompt), 0, None)})
        names = tuple(str(number) for number in range(len(asked.score_ranges)))
        prompt = WirePrompt(tuple(asked.prompt), (), tuple(asked.score_ranges), names)
        async with self.scoring.turn(asked.priority or 0):
            result = ScoreResult.of(await self._scorer.score([prompt]))
            weights = await self._weights()
        [scores] = result.ranges
        require_plausible(self._scorer, scores)
        # What comes after the last range is not needed, and not cached either.
        needed = max(end for _, end in asked.score_ranges)
        cached = cached_tokens(needed, result.computed_tokens)
        return json_response(
            {
                "scores": [{"total_logprob": score.total} for score in scores],
                "usage": usage(len(prompt.tokens), 0, cached),
                **weights,
            }
        )

    async def complete(self, request: web.Request) -> web.Response:
        """Complete prompts, and return the log-probabilities of their tokens."""
        asked = await read_request(request, CompletionRequest, self._body_timeout_s)
        self._require_model(asked.model)
        asked.check()
        prompts = asked.prompts()
        require_short(*(it for it in prompts if isinstance(it, str)))
        for prompt in prompts:
            if not isinstance(prompt, str):
                require_fit(self._scorer, prompt)
        completion = Completion(self._scorer, asked)
        async with self.scoring.turn(asked.priority or 0):
            choices = [await completion.choice(*it) for it in enumerate(prompts)]
        return json_response(
            {
                "id": f"cmpl-{uuid.uuid4().hex}",
                "object": "text_completion",
                "created": int(time.time()),
                "model": self._scorer.model,
                "choices": choices,
                "usage": completion.usage,
            }
        )

    async def tokenize(self, request: web.Request) -> web.Response:
        """Tokenise a text; special tokens that it names become those tokens, and none is added."""
        asked = await read_request(request, TokenizeRequest, self._body_timeout_s)
        self._require_model(asked.model)
        require_short(asked.prompt)
        async with self._texts.turn():
            tokens = await self._scorer.tokenize(asked.prompt)
        length = context_length(self._scorer)
        return json_response({"count": len(tokens), "max_model_len": length, "tokens": tokens})

    async def detokenize(self, request: web.Request) -> web.Response:
        """Return the text of token ids."""
        asked = await read_request(request, DetokenizeRequest, self._body_timeout_s)
        self._require_model(asked.model)
        asked.check()
        if ScorerCapabilities.of(self._scorer).detokenize is None:
            raise RefusedError(501, f"{self._scorer.model} cannot turn token ids into text")
        async with self._texts.turn():
            text = await text_of(self._scorer, asked.tokens)
        return json_response({"prompt": text})

    def _require_model(self, name: str | None) -> None:
        served = self._scorer.model
        if name not in (None, "", served):
            raise RefusedError(
                404, f"The model `{name}` does not exist. This server has: {served}.", param="model"
            )

    async def _weights(self) -> dict[str, str]:
        """Return the scorer's fingerprint, by which rows of other weights are told apart."""
        fingerprint = ScorerCapabilities.of(self._scorer).fingerprint
        found = None if fingerprint is None else await fingerprint()
        return {} if found is None else {"fingerprint": found}

    def _adapter(self) -> dict[str, Any]:
        """Return the end of the active adapter's path, as ``/health`` is open to everyone."""
        if not isinstance(self._scorer, LocalScorer):
            return {}
        folder = self._scorer.adapter_folder
        return {"adapter": folder and "/".join(folder.parts[-2:])}
