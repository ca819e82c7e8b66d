"""The ``sglang`` scorer: a stock SGLang server, its log-probabilities of prompts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from msgspec import Raw, Struct

from mindhooks import Generated, RangeScore, ScorerError, WirePrompt
from mindscore.http.answers import Quote
from mindscore.scorers.remote.base import MISSING, RemoteScorer
from mindscore.scorers.remote.batches import Answer
from mindscore.scorers.remote.prompt_logprobs import (
    expect_entries,
    range_scores,
    refuse_images,
    wrong_id,
)

PATH = "/generate"
CLIPPED = 0
"""What SGLang reports for the last ids of a vocabulary, which it takes for image padding."""

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
    output_ids: tuple[int, ...] | None = None


class SGLangScorer(RemoteScorer):
    """By ``/generate``, from the token before the first range on.

    Up to there SGLang takes what it can from its cache: what prompts begin with in common is
    computed once.
    """

    reuses_prefixes = True

    async def _ask(self, prompts: Sequence[WirePrompt]) -> Sequence[Answer]:
        starts = [min(start for start, _ in prompt.ranges) - 1 for prompt in prompts]
        body = {
            "input_ids": [prompt.tokens for prompt in prompts],
            "sampling_params": {"max_new_tokens": 0, "temperature": 0},
            "return_logprob": True,
            "logprob_start_len": starts,
            "priority": self._priority,
        }
        return await self._client.ask(
            PATH, body, list[_Scored], lambda found: self._read(prompts, starts, found)
        )

    async def _read(
        self, prompts: Sequence[WirePrompt], starts: Sequence[int], found: Sequence[_Scored]
    ) -> list[Answer]:
        where = f"{self._client.base_url}{PATH}"
        if len(found) != len(prompts):
            raise ScorerError(
                f"{where}: asked for {len(prompts)} prompts, got {len(found)}; "
                "does server.scorer fit this server?"
            )
        quote = self._client.quote
        answers = []
        for number, (prompt, start, scored) in enumerate(zip(prompts, starts, found, strict=True)):
            meta = scored.meta_info
            field = f"[{number}].meta_info.input_token_logprobs"
            entries = await self._decoded(
                where, field, meta.input_token_logprobs, Entries, _BETWEEN_ENTRIES
            )
            await self._client.pace.yield_to_loop()
            scores = _scores(f"{where}: {field}", prompt, start, entries, quote)
            is_known = meta.prompt_tokens is not None and meta.cached_tokens is not None
            computed = (meta.prompt_tokens or 0) - (meta.cached_tokens or 0)
            answers.append(Answer(scores, max(0, computed) if is_known else None))
        return answers

    @property
    def _priority(self) -> int:
        # To SGLang larger is earlier; in the settings it is later.
        return -self._settings.priority

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Greedy, by ``/generate``."""
        refuse_images(prompt)
        body = {
            "input_ids": prompt.tokens,
            "sampling_params": {
                "max_new_tokens": max_tokens,
                "temperature": 0,
                "stop_token_ids": list(stop),
            },
            "priority": self._priority,
        }
        said = await self._client.post(PATH, body, _Said)
        return Generated(said.output_ids, said.text)


def _scores(
    field: str, prompt: WirePrompt, start: int, entries: Entries | None, quote: Quote
) -> list[RangeScore]:
    """The totals from the entries of ``prompt.tokens[start:]``."""
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
