"""The ``openai`` scorer: any server with ``/completions`` that echoes a prompt's tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Raw, Struct

from mindhooks import Generated, RangeScore, ScorerError, WirePrompt
from mindscore.http.answers import MISSING
from mindscore.scorers.remote.answers import (
    BETWEEN_IDS,
    Answer,
    Choice,
    Usage,
    expect_entries,
    only_choice,
    range_scores,
    refuse_images,
    room_for,
    scored_part,
    wrong_id,
)
from mindscore.scorers.remote.base import RemoteScorer, address

TOKEN_ID = "token_id:"  # noqa: S105 - the prefix that vLLM uses
"""Prefix of an id where a server is told to write ids in place of tokens' texts."""

NO_LOGPROBS = (
    "this server does not return log-probabilities of the prompt, as llama-server, Ollama and the "
    "OpenAI API do not: use one that does, such as vLLM or SGLang, or the local scorer"
)


_BETWEEN_VALUES = re.compile(rb"[\dl]\s*,(?=\s*[-\dn])")
_BETWEEN_TEXTS = re.compile(rb"\"\s*,(?=\s*\")")


class _Logprobs(Struct):
    token_logprobs: Raw = MISSING
    tokens: Raw = MISSING
    token_ids: Raw = MISSING


class _Choice(Choice):
    logprobs: _Logprobs | None = None
    prompt_token_ids: Raw = MISSING


class _Completion(Struct):
    choices: list[_Choice]
    usage: Usage | None = None


class OpenAIScorer(RemoteScorer):
    """A scorer by ``/completions`` with ``echo`` and ``logprobs``.

    The priority is not sent: there is no such field in this protocol, and servers that have one
    differ on which end of it is later.
    """

    # vLLM's name, and llama-server's.
    _text_fields = ("prompt", "content")

    def __init__(self, table: Mapping[str, Any]) -> None:
        super().__init__(table)
        self._path = address(self._settings.base_url).api + "/completions"

    async def _ask(self, prompt: WirePrompt) -> Answer:
        refuse_images(prompt)
        prompt = scored_part(prompt)
        await self._client.pace.yield_to_loop()
        body = {
            "model": self.model,
            "prompt": prompt.tokens,
            # 0 is refused by some servers, and taken for no limit by others.
            "max_tokens": 1,
            "temperature": 0,
            "echo": True,
            "logprobs": 1,
        }
        answer = await self._client.post(self._path, body, _Completion, max_bytes=room_for(prompt))
        where = f"{self._client.base_url}{self._path}"
        choice, usage, sent = only_choice(where, answer.choices), answer.usage, len(prompt.tokens)
        read = usage.prompt_tokens if usage else None
        if read not in (None, sent):
            raise ScorerError(
                f"{where}: usage.prompt_tokens: {read} for {sent} tokens: the server cuts prompts "
                "or adds to them, so that values are out of step: have it take token ids as sent"
            )
        await self._client.pace.yield_to_loop()
        scores = await self._scores(where, prompt, choice)
        return Answer(scores, usage.computed(default_cached=None) if usage else None)

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Continue greedily by ``/completions``."""
        refuse_images(prompt)
        return await self._complete(self._path, prompt, max_tokens, stop, {})

    async def _scores(self, where: str, prompt: WirePrompt, choice: _Choice) -> list[RangeScore]:
        # One more may be there: the token that was generated.
        logprobs, tokens, most = choice.logprobs, prompt.tokens, len(prompt.tokens) + 1
        path, values = "choices[0].logprobs", None
        if logprobs is not None:
            path += ".token_logprobs"
            values = await self._decoded(
                where, path, logprobs.token_logprobs, list[float | None], _BETWEEN_VALUES, most
            )
        field = f"{where}: {path}"
        if logprobs is None or values is None:
            raise ScorerError(f"{field}: is missing: {NO_LOGPROBS}")
        if not any(value is not None for value in values[1 : len(tokens)]):
            raise ScorerError(f"{field}: has no value for the prompt: {NO_LOGPROBS}")
        got = len(tokens) if len(values) == most else len(values)
        expect_entries(field, len(tokens), got, "does the server echo the prompt?")
        ids = await self._ids(where, choice, logprobs, most)
        for index, (token, said) in enumerate(zip(tokens, ids, strict=False)):
            if token != said:
                raise wrong_id(f"{field}[{index}]", token, self._client.quote(str(said)))
        return range_scores(lambda index: f"{field}[{index}]", prompt.ranges, values)

    async def _ids(
        self, where: str, choice: _Choice, logprobs: _Logprobs, most: int
    ) -> Sequence[int | str]:
        """Return the ids that the answer gives for its values, if any."""
        for name, raw in (
            ("prompt_token_ids", choice.prompt_token_ids),
            ("logprobs.token_ids", logprobs.token_ids),
        ):
            field = f"choices[0].{name}"
            ids = await self._decoded(where, field, raw, list[int], BETWEEN_IDS, most)
            if ids is not None:
                return ids
        field = "choices[0].logprobs.tokens"
        tokens = await self._decoded(where, field, logprobs.tokens, list[str], _BETWEEN_TEXTS, most)
        if not all(token.startswith(TOKEN_ID) for token in tokens or ()):
            return ()
        written = [token.removeprefix(TOKEN_ID) for token in tokens or ()]
        # Python makes no number of thousands of digits.
        return [int(it) if it.isascii() and it.isdigit() and len(it) < 20 else it for it in written]
