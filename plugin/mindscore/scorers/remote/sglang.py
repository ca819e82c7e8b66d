"""The ``sglang`` scorer: a stock SGLang server, its log-probabilities of prompts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Raw, Struct

from mindhooks import Generated, RangeScore, ScorerError, WirePrompt
from mindscore.conversation.template import NoTemplateError
from mindscore.http.answers import MISSING, Quote
from mindscore.scorers.remote.answers import (
    BYTES_BY_NEW_TOKEN,
    Answer,
    expect_entries,
    range_scores,
    refuse_images,
    room_for,
    scored_part,
    wrong_id,
)
from mindscore.scorers.remote.priority import PrioritySender
from mindscore.scorers.remote.rendering import RenderingScorer

PATH = "/generate"
CLIPPED = 0
"""The id that SGLang reports for a vocabulary's last ids, which it takes for image padding."""

GREETING = ({"role": "user", "content": "Hello"},)
"""Messages that differ with and without a generation prompt, where the server takes that word."""

Entries = list[tuple[float | None, int, Any]]

_BETWEEN_ENTRIES = re.compile(rb"\]\s*,(?=\s*\[)")


class _Meta(Struct):
    input_token_logprobs: Raw = MISSING
    prompt_tokens: int | None = None
    cached_tokens: int | None = None


class _Scored(Struct):
    meta_info: _Meta


class _Said(Struct):
    text: str
    output_ids: Raw = MISSING


class SGLangScorer(RenderingScorer):
    """A scorer by ``/generate``, from the token before the first range on.

    Up to there SGLang uses its cache: a prefix that prompts share is computed once.
    """

    reuses_prefixes = True

    def __init__(self, table: Mapping[str, Any]) -> None:
        super().__init__(table)
        # In SGLang a larger priority is served earlier; in the settings it is served later.
        self._sender = PrioritySender(self._client, -self._settings.priority)

    async def _ask(self, prompt: WirePrompt) -> Answer:
        refuse_images(prompt)
        prompt = scored_part(prompt)
        start = min(first for first, _ in prompt.ranges) - 1
        await self._client.pace.yield_to_loop()
        body = {
            "input_ids": prompt.tokens,
            "sampling_params": {"max_new_tokens": 0, "temperature": 0},
            "return_logprob": True,
            "logprob_start_len": start,
        }
        meta = (await self._sender.post(PATH, body, _Scored, room_for(prompt))).meta_info
        where, field = f"{self._client.base_url}{PATH}", "meta_info.input_token_logprobs"
        entries = await self._decoded(
            where,
            field,
            meta.input_token_logprobs,
            Entries,
            _BETWEEN_ENTRIES,
            len(prompt.tokens) - start,
        )
        await self._client.pace.yield_to_loop()
        scores = _scores(f"{where}: {field}", prompt, start, entries, self._client.quote)
        if meta.prompt_tokens is None or meta.cached_tokens is None:
            return Answer(scores, None)
        return Answer(scores, max(0, meta.prompt_tokens - meta.cached_tokens))

    async def _render_by_server(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]],
    ) -> str:
        """Return the text of ``messages`` by the server's template.

        Raises:
            NoTemplateError: it prints all messages up to where the model speaks next, as SGLang
                does that does not know ``add_generation_prompt``: that would change every prompt.
            ScorerError: the template refuses these.
        """
        with_prompt, without = [await self._chat.render(GREETING, it, ()) for it in (True, False)]
        if with_prompt == without:
            raise NoTemplateError(
                "the server does not say what the model's chat template prints before a response; "
                "use SGLang 0.5.23 or later, or set server.tokenizer to the folder of the model's "
                "tokenizer.json and chat_template.jinja or tokenizer_config.json"
            )
        return await super()._render_by_server(messages, add_generation_prompt, tools)

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Continue greedily by ``/generate``."""
        refuse_images(prompt)
        body = {
            "input_ids": prompt.tokens,
            "sampling_params": {
                "max_new_tokens": max_tokens,
                "temperature": 0,
                "stop_token_ids": list(stop),
            },
        }
        room = room_for(prompt) + BYTES_BY_NEW_TOKEN * max_tokens
        said = await self._sender.post(PATH, body, _Said, room)
        where = f"{self._client.base_url}{PATH}"
        return await self._generated(where, "output_ids", said.output_ids, said.text, max_tokens)


def _scores(
    field: str, prompt: WirePrompt, start: int, entries: Entries | None, quote: Quote
) -> list[RangeScore]:
    """Return the scores from the entries of ``prompt.tokens[start:]``."""
    if entries is None:
        raise ScorerError(
            f"{field}: is missing: the server returns no log-probabilities of the prompt; "
            "use a backend of SGLang that does, or another scorer"
        )
    hint = "start SGLang without --allow-auto-truncate, or with a longer context"
    expect_entries(field, len(prompt.tokens) - start, len(entries), hint)
    # The first entry has no value: nothing of the answer precedes it.
    following = list(prompt.tokens[start + 1 :])
    said = [id_ for _, id_, _ in entries[1:]]
    if said != following:
        for index, (token, id_) in enumerate(zip(following, said, strict=True), start=1):
            if id_ not in (token, CLIPPED):
                raise wrong_id(f"{field}[{index}]", token, quote(str(id_)))
    values = [value for value, _, _ in entries[1:]]
    return range_scores(
        lambda index: f"{field}[{index + 1}]", prompt.ranges, values, first=start + 1
    )
