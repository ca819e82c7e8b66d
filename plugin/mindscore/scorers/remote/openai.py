"""The ``openai`` scorer: any server with ``/completions`` that echoes a prompt's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from mindhooks import Generated, RangeScore, ScorerError, WirePrompt
from mindscore.http.answers import Quote
from mindscore.scorers.remote.answers import (
    Answer,
    Choice,
    TokenUsage,
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


class _Logprobs(Struct):
    token_logprobs: list[float | None] | None = None
    tokens: list[str] | None = None
    token_ids: list[int] | None = None


class _Choice(Choice):
    logprobs: _Logprobs | None = None
    prompt_token_ids: list[int] | None = None


class _Completion(Struct):
    choices: list[_Choice]
    usage: TokenUsage | None = None


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
        scores = _scores(f"{where}: choices[0]", prompt, choice, self._client.quote)
        return Answer(scores, usage.computed(default_cached=None) if usage else None)

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Continue greedily by ``/completions``."""
        refuse_images(prompt)
        return await self._complete(self._path, prompt, max_tokens, stop, {})


def _scores(field: str, prompt: WirePrompt, choice: _Choice, quote: Quote) -> list[RangeScore]:
    logprobs, tokens = choice.logprobs, prompt.tokens
    if logprobs is None or logprobs.token_logprobs is None:
        missing = "logprobs" if logprobs is None else "logprobs.token_logprobs"
        raise ScorerError(f"{field}.{missing}: is missing: {NO_LOGPROBS}")
    field = f"{field}.logprobs.token_logprobs"
    values = logprobs.token_logprobs
    if not any(value is not None for value in values[1 : len(tokens)]):
        raise ScorerError(f"{field}: has no value for the prompt: {NO_LOGPROBS}")
    # The last may be of the token that was generated.
    got = len(tokens) if len(values) == len(tokens) + 1 else len(values)
    expect_entries(field, len(tokens), got, "does the server echo the prompt?")
    for index, (token, said) in enumerate(zip(tokens, _ids(choice, logprobs), strict=False)):
        if token != said:
            raise wrong_id(f"{field}[{index}]", token, quote(str(said)))
    return range_scores(lambda index: f"{field}[{index}]", prompt.ranges, values)


def _ids(choice: _Choice, logprobs: _Logprobs) -> Sequence[int | str]:
    """Return the ids that the answer gives for its values, if any."""
    if choice.prompt_token_ids is not None:
        return choice.prompt_token_ids
    if logprobs.token_ids is not None:
        return logprobs.token_ids
    tokens = logprobs.tokens or ()
    if not all(token.startswith(TOKEN_ID) for token in tokens):
        return ()
    ids = [token.removeprefix(TOKEN_ID) for token in tokens]
    # Python makes no number of thousands of digits.
    return [int(it) if it.isascii() and it.isdigit() and len(it) < 20 else it for it in ids]
