"""The toy scorer: exact, analytic, instant, without a model; for tests, docs and plugin authors.

A token is likely where it has been seen before: with ``n`` tokens before it, ``c`` of them equal to
it, its probability is ``(c + PRIOR / VOCABULARY) / (n + PRIOR)`` (additive smoothing of a unigram
model: Lidstone, with ``lambda = PRIOR / VOCABULARY``). So a memory that holds the words of a
response makes it likelier, and one that does not makes it a little less likely.

``server.options.prior`` takes the place of ``PRIOR``: the larger, the less the context counts.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mindhooks import BaseScorer, Generated, RangeScore, ScorerError, ScoreResult, WirePrompt

VOCABULARY = 2**20
PRIOR = 16.0

_WORD = re.compile(r"<\|\w+\|>|\w+|[^\w\s]")


class ToyScorer(BaseScorer):
    """A scorer whose tokens are words: an id is the CRC-32 of one, modulo the vocabulary.

    Raises:
        ScorerError: ``server.options.prior`` is no number above 0.
    """

    model = "toy"
    reuses_prefixes = False
    takes_images = False

    def __init__(self, table: Mapping[str, Any] | None = None) -> None:
        self._words: dict[int, str] = {}
        prior = ((table or {}).get("options") or {}).get("prior", PRIOR)
        is_number = isinstance(prior, int | float) and not isinstance(prior, bool)
        if not is_number or not 0 < prior < math.inf:
            raise ScorerError("server.options.prior: the toy takes a number above 0")
        self._prior = float(prior)
        if prior != PRIOR:
            self.model = f"toy, prior {prior:g}"

    async def score(self, prompts: Sequence[WirePrompt]) -> ScoreResult:
        """Return totals and values; every token of a prompt counts as computed."""
        computed = sum(len(prompt.tokens) for prompt in prompts)
        return ScoreResult([_score(prompt, self._prior) for prompt in prompts], computed)

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Continue with the likeliest token each time: the most frequent, then the smallest."""
        counts, said = Counter(prompt.tokens), list[int]()
        while len(said) < max_tokens and counts:
            token = min(counts, key=lambda it: (-counts[it], it))
            counts[token] += 1
            said.append(token)
            if token in stop:
                break
        spoken = (self._words.get(token, f"<{token}>") for token in said if token not in stop)
        return Generated(tuple(said), " ".join(spoken))

    async def tokenize(self, text: str) -> list[int]:
        """Return one id per word, punctuation mark or ``<|special|>``; white space is dropped."""
        words = _WORD.findall(text)
        ids = [zlib.crc32(word.encode()) % VOCABULARY for word in words]
        self._words.update(zip(ids, words, strict=True))
        return ids

    async def token_texts(self, ids: Sequence[int]) -> list[str]:
        """Return the word of each id, or its number where it was never tokenised."""
        return [self._words.get(token, f"<{token}>") for token in ids]


def _score(prompt: WirePrompt, prior: float) -> list[RangeScore]:
    wanted = {index for start, end in prompt.ranges for index in range(start, end)}
    counts: Counter[int] = Counter()
    logprobs = {}
    for index, token in enumerate(prompt.tokens):
        if index in wanted:
            logprobs[index] = math.log((counts[token] + prior / VOCABULARY) / (index + prior))
        counts[token] += 1
    answers = []
    for start, end in prompt.ranges:
        values = tuple(logprobs[index] for index in range(start, end))
        answers.append(RangeScore(math.fsum(values), values))
    return answers
