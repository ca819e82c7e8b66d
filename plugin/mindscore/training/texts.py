"""The texts of samples, for sinks that want them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from mindhooks import Registry, ScorerCapabilities, TrainingSample
from mindhooks.testing import StubMind
from mindscore._util.errors import ConfigError
from mindscore.config.settings import parse_settings
from mindscore.measure.retry import Retry
from mindscore.scorers.tokenizer import tokenizer_of


class _Tokenizer(NamedTuple):
    detokenize: Callable[[Sequence[int]], Awaitable[str]]
    tokenize: Callable[[str], Awaitable[list[int]]]


class Texts:
    """Makes texts of token ids, with ``server.tokenizer`` if it is set, else with the scorer.

    ``inexact`` counts the samples whose text, prompt and answer together, tokenises to other ids: a
    trainer that gets the text learns those. Nothing is loaded, and no server asked, before the
    first text.
    """

    def __init__(self, tables: Mapping[str, Any]) -> None:
        self._tables = tables
        self._registry: Registry | None = None
        self._tokenizer: _Tokenizer | None = None
        self.inexact = 0

    async def added(self, samples: Sequence[TrainingSample]) -> list[TrainingSample]:
        """Return ``samples`` with their texts.

        Raises:
            ConfigError: there is nothing to make texts with; the message says what to do.
            ScorerError: the tokenizer failed.
        """
        return [await self._with_text(sample) for sample in samples]

    async def _with_text(self, sample: TrainingSample) -> TrainingSample:
        if sample.context_text is not None:
            return sample
        by = self._tokenizer = self._tokenizer or await self._find()
        context = await by.detokenize(sample.context_ids)
        answer = await by.detokenize(sample.continuation_ids)
        rejected = sample.rejected_ids
        again = await by.tokenize(context + answer)
        self.inexact += again != [*sample.context_ids, *sample.continuation_ids]
        return replace(
            sample,
            context_text=context,
            continuation_text=answer,
            rejected_text=None if rejected is None else await by.detokenize(rejected),
        )

    async def _find(self) -> _Tokenizer:
        server = parse_settings(self._tables).server
        if file := tokenizer_of(server.tokenizer):
            return _Tokenizer(file.detokenize, file.tokenize)
        self._registry = Registry(StubMind(), self._tables)
        scorer = await self._registry.scorer()
        detokenize = ScorerCapabilities.of(scorer).detokenize
        if detokenize is None:
            raise ConfigError(
                f"the {server.scorer} scorer makes no text of token ids: set server.tokenizer to "
                "the model's tokenizer.json, or use the format input_ids, which needs no text"
            )
        retry = Retry(server)
        return _Tokenizer(retry.wrap(detokenize), retry.wrap(scorer.tokenize))

    async def aclose(self) -> None:
        """Close the scorer, if one was asked."""
        if self._registry is not None:
            await self._registry.aclose()
