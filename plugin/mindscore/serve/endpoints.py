"""The endpoints: read a request, wait for a turn, ask the scorer, answer."""

from __future__ import annotations

import math
import time
import uuid
from pathlib import Path
from typing import Any

from aiohttp import web

from mindhooks import Scorer, WirePrompt
from mindscore.serve.answers import RefusedError, json_answer
from mindscore.serve.completion import Completion, cached_tokens, require_plausible, text_of, usage
from mindscore.serve.requests import (
    CompletionRequest,
    DetokenizeRequest,
    ScoreRequest,
    TokenizeRequest,
    read_request,
)
from mindscore.serve.turnstile import Turnstile


class Endpoints:
    """One scorer's, which is asked one thing at a time; texts have a queue of their own.

    ``scoring`` is the queue of what the model computes.
    """

    def __init__(self, scorer: Scorer, *, queue_limit: int, body_timeout_s: float) -> None:
        self._scorer = scorer
        self._body_timeout_s = body_timeout_s
        self.scoring = Turnstile(queue_limit)
        self._texts = Turnstile(queue_limit)
        self._started = int(time.time())

    def routes(self) -> list[web.RouteDef]:
        """Method, path and handler of each."""
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
        """That the server is there, and how many requests wait."""
        state = {"status": "ok", "queued": self.scoring.queued, "busy": self.scoring.busy}
        return json_answer(state | self._adapter())

    async def models(self, _: web.Request) -> web.Response:
        """The one model."""
        model = {
            "id": self._scorer.model,
            "object": "model",
            "created": self._started,
            "owned_by": "mindscore",
            "root": self._scorer.model,
            "parent": None,
            "max_model_len": self._context_length(),
        }
        return json_answer({"object": "list", "data": [model | self._adapter()]})

    async def score(self, request: web.Request) -> web.Response:
        """Totals of ranges."""
        asked = await read_request(request, ScoreRequest, self._body_timeout_s)
        self._require_model(asked.model)
        asked.check()
        if not asked.score_ranges:
            return json_answer({"scores": [], "usage": usage(len(asked.prompt), 0, None)})
        names = tuple(str(number) for number in range(len(asked.score_ranges)))
        prompt = WirePrompt(tuple(asked.prompt), (), tuple(asked.score_ranges), names)
        async with self.scoring.turn(asked.priority or 0):
            answers = await self._scorer.score([prompt])
        [scores] = answers
        require_plausible(self._scorer, scores)
        # What comes after the last range is not needed, and not cached either.
        needed = max(end for _, end in asked.score_ranges)
        cached = cached_tokens(needed, getattr(answers, "computed_tokens", None))
        return json_answer(
            {
                "scores": [{"total_logprob": score.total} for score in scores],
                "usage": usage(len(prompt.tokens), 0, cached),
            }
        )

    async def complete(self, request: web.Request) -> web.Response:
        """Continuations, and the log-probabilities of prompts."""
        asked = await read_request(request, CompletionRequest, self._body_timeout_s)
        self._require_model(asked.model)
        asked.check()
        prompts = asked.prompts()
        completion = Completion(self._scorer, asked)
        async with self.scoring.turn(asked.priority or 0):
            choices = [await completion.choice(*it) for it in enumerate(prompts)]
        return json_answer(
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
        """The ids of a text; names of special tokens in it become those tokens, none is added."""
        asked = await read_request(request, TokenizeRequest, self._body_timeout_s)
        self._require_model(asked.model)
        async with self._texts.turn():
            tokens = await self._scorer.tokenize(asked.prompt)
        length = self._context_length()
        return json_answer({"count": len(tokens), "max_model_len": length, "tokens": tokens})

    async def detokenize(self, request: web.Request) -> web.Response:
        """The text of ids."""
        asked = await read_request(request, DetokenizeRequest, self._body_timeout_s)
        self._require_model(asked.model)
        if not hasattr(self._scorer, "detokenize"):
            raise RefusedError(501, f"{self._scorer.model} cannot turn token ids into text")
        async with self._texts.turn():
            text = await text_of(self._scorer, asked.tokens)
        return json_answer({"prompt": text})

    def _require_model(self, name: str | None) -> None:
        served = self._scorer.model
        if name not in (None, "", served):
            raise RefusedError(
                404, f"The model `{name}` does not exist. This server has: {served}.", param="model"
            )

    def _adapter(self) -> dict[str, Any]:
        """Which adapter a model has that can have one, by its folder's end: ``/health`` is open."""
        if not hasattr(self._scorer, "adapter"):
            return {}
        folder: Path | None = self._scorer.adapter
        return {"adapter": folder and "/".join(folder.parts[-2:])}

    def _context_length(self) -> int | None:
        length: float | None = getattr(self._scorer, "context_length", None)
        return None if length is None or math.isinf(length) else int(length)
