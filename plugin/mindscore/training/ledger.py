"""Measure a round of the ledger: trained answers with memories and without, and unrelated ones."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from mindhooks import Activity, Scorer, ScorerCapabilities, ScorerError, WirePrompt
from mindscore._util.errors import TrainError
from mindscore._util.text import count_of
from mindscore.config.settings import ServerSettings
from mindscore.measure.cached_scorer import CachedScorer, ScoreCache
from mindscore.measure.internalisation import (
    DEPENDS_NATS,
    LedgerEntry,
    MemoryVersion,
    Round,
    beyond_lift,
    depends,
    drift,
)
from mindscore.measure.retry import Retry
from mindscore.measure.usage import Usage
from mindscore.store import Ledger, MemoryEffect, Reviewed
from mindscore.training.guard import unrelated_answers

FRAMES = (
    "Remind me: {}",
    "I forgot what you told me. {}",
    "{} Please answer in one sentence.",
)
"""Frames in which a question is asked again; ``{}`` is the question, word for word.

Nobody here can reword a question in any language and be sure that it asks for the same: these are
the same questions in other surroundings, which no training has seen.
"""

SAME_NATS = 0.05
"""The most, in nats for one token, by which one model's unrelated answers differ between two
measurements: batches and half precision do less, a training more."""

BASE = "base"
"""The round of the model without any adapter."""

Named = dict[tuple[int, str], Reviewed]


class OtherWeightsError(TrainError):
    """A round that another adapter, or other weights, have measured."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the ledger's round {name!r} was measured with another adapter or other weights: give "
            "this one another name; if the model's weights were replaced, mindscore ledger "
            f"--measure {BASE} --set server.scorer=local begins a new ledger where they are"
        )


@dataclass(slots=True)
class LeftOut:
    """The answers that a round leaves out, by reason."""

    edited: int = 0
    unknown: int = 0
    independent: int = 0
    unread: int = 0
    unasked: int = 0

    def remarks(self) -> Iterator[str]:
        """Yield a line for each reason."""
        score = "mindscore score CONVERSATION --full"
        for count, why in (
            (self.edited, "another answer than the response was chosen in review"),
            (self.unknown, f"it is not known on which memories they depend: {score} measures it"),
            (self.independent, f"no memory alone makes a difference of {DEPENDS_NATS:g} nat"),
            (self.unread, "they end beyond the tokens that the model reads"),
        ):
            if count:
                yield f"the ledger leaves out {count_of(count, 'answer')}: {why}"
        if self.unasked:
            yield (
                f"{count_of(self.unasked, 'answer')} in the ledger without other frames: the "
                "question is not found in the prompt, or the answer does not depend on memories "
                "when it is asked in them"
            )


@dataclass(slots=True)
class Measurer:
    """Measures rounds of one model's ledger with ``scorer``, which has the round's adapter.

    ``left_out`` counts what the last round leaves out.

    Raises:
        OtherWeightsError: another adapter, or other weights, have measured a round of that name.
        ScorerError: the scorer failed.
        StoreError: the store cannot be read or written.
    """

    scorer: Scorer
    ledger: Ledger
    model: str
    activity: Activity
    left_out: LeftOut = field(default_factory=LeftOut)

    async def measure(self, name: str, adapter: str, answers: Iterable[Reviewed]) -> Round:
        """Measure what the round ``name`` lacks of ``answers``, keep it and return the round.

        If it is the model without any adapter, and its weights were replaced, a new ledger begins:
        the earlier rounds are kept as those of another model.
        """
        earlier = await self.ledger.rounds(self.model)
        had = next((it for it in earlier if it.name == name), None)
        scoring = _Scoring(self.scorer)
        unrelated = tuple([it async for it in scoring.unrelated()])
        replaces = None if had is None or _is_same(had, unrelated) else had
        if replaces is not None:
            if name != BASE or adapter or ScorerCapabilities.of(self.scorer).swaps_adapters:
                raise OtherWeightsError(name)
            earlier, had = [], None
        memories = await self._memories(answers, earlier)
        had = had or Round(name, adapter, time.time(), unrelated, ())
        known = {it.response for it in had.entries}
        missing = {key: its for key, its in memories.items() if key not in known}
        entries: list[LedgerEntry] = []
        for number, (response, (it, its)) in enumerate(missing.items(), start=1):
            self.activity.update(f"ledger: {number}/{len(missing)}", number, len(missing))
            frames = next(
                (e.reworded.keys() for r in earlier for e in r.entries if e.response == response),
                None,
            )
            if (found := await self._entry(scoring, it, frames)) is None:
                self.left_out.unread += 1
                continue
            entries += [replace(found, memory=memory) for memory in its]
        await self.ledger.record(
            self.model, replace(had, entries=tuple(entries)), replaces=replaces
        )
        return replace(had, entries=(*had.entries, *entries))

    async def _memories(
        self, answers: Iterable[Reviewed], earlier: Sequence[Round]
    ) -> dict[tuple[int, str], tuple[Reviewed, list[MemoryVersion]]]:
        """Return the answers with the memories that each depends on.

        What an earlier round has found stays: once an answer is internalised, it depends on none.
        """
        self.left_out = LeftOut()
        named: Named = {}
        for it in answers:
            if it.answer_ids == tuple(it.candidate.continuation_ids):
                named[it.name.timestamp_ns, it.name.continuation_hash] = it
            else:
                self.left_out.edited += 1
        known: dict[tuple[int, str], set[MemoryVersion]] = {}
        for round_ in earlier:
            for entry in round_.entries:
                known.setdefault(entry.response, set()).add(entry.memory)
        effects = await self.ledger.effects(self.model, named.keys() - known.keys())
        found = {}
        for name, it in named.items():
            its = known.get(name) or self._depended_on(effects.get(name))
            if its:
                found[name] = it, sorted(its)
        return found

    def _depended_on(self, effects: Sequence[MemoryEffect] | None) -> set[MemoryVersion]:
        found = effects or ()
        holds = beyond_lift([it.hold for it in found])
        its = {
            it.memory
            for it, hold in zip(found, holds, strict=True)
            if depends(it.signed, hold, it.noise)
        }
        if effects is None:
            self.left_out.unknown += 1
        elif not its:
            self.left_out.independent += 1
        return its

    async def _entry(
        self, scoring: _Scoring, answer: Reviewed, frames: Iterable[str] | None
    ) -> LedgerEntry | None:
        """Return an answer as the model makes it, ``None`` where it reads less.

        ``frames``: those of earlier rounds; ``None``: there are none, choose them.
        """
        it, ids = answer.candidate, tuple(answer.candidate.continuation_ids)
        with_ = await scoring.total(it.context_ids, ids)
        without = await scoring.total(it.bare_context_ids, ids)
        if with_ is None or without is None:
            return None
        question, reworded = _question(it.prior_context), {}
        for frame in FRAMES if frames is None else frames:
            bare = await scoring.reworded(it.bare_context_ids, question, frame)
            total = None if bare is None else await scoring.total(bare, ids)
            if total is not None and frames is None:
                full = await scoring.reworded(it.context_ids, question, frame)
                most = None if full is None else await scoring.total(full, ids)
                # It asks for something else if the memories do not help to answer it.
                if most is None or most - total < DEPENDS_NATS:
                    total = None
            if total is not None:
                reworded[frame] = total
        self.left_out.unasked += not reworded
        name = answer.name
        return LedgerEntry(
            memory=MemoryVersion("", ""),
            timestamp_ns=name.timestamp_ns,
            continuation_hash=name.continuation_hash,
            tokens=len(ids),
            with_memories=with_,
            without_memories=without,
            reworded=reworded,
        )


class _Scoring:
    """Scores single answers behind prompts of token ids."""

    def __init__(self, scorer: Scorer) -> None:
        self._retry = retry = Retry(ServerSettings())
        self._scorer = scorer
        self._capabilities = ScorerCapabilities.of(scorer)
        self._cached = CachedScorer(scorer, Usage(), ScoreCache(), retry)
        self._tokenize = retry.wrap(scorer.tokenize)
        self._exact: dict[tuple[int, ...], str | None] = {}

    async def total(self, context: Sequence[int], answer: Sequence[int]) -> float | None:
        """Return the answer's log-probability, in nats; ``None``: the model reads less."""
        tokens = (*context, *answer)
        prompt = WirePrompt(tokens, (), ((len(context), len(tokens)),), ("answer",))
        return (await self._cached.score(prompt)).get("answer")

    async def reworded(
        self, context: Sequence[int], question: str, frame: str
    ) -> tuple[int, ...] | None:
        """Return the prompt with the question in ``frame``; ``None``: it cannot be made exactly."""
        text = await self._text(tuple(context))
        head, found, tail = text.rpartition(question) if text and question else ("", "", "")
        if not found:
            return None
        return tuple(await self._tokenize(head + frame.replace("{}", question) + tail))

    async def _text(self, context: tuple[int, ...]) -> str | None:
        if context not in self._exact:
            self._exact[context] = None
            # A server need not have it: there are no other frames then.
            with suppress(ScorerError):
                text = await self._detokenize(context)
                if tuple(await self._tokenize(text)) == context:
                    self._exact[context] = text
        return self._exact[context]

    async def _detokenize(self, context: Sequence[int]) -> str:
        detokenize = self._capabilities.detokenize
        if detokenize is None:
            raise ScorerError(f"{self._scorer.model} makes no text of token ids")
        return await self._retry.wrap(detokenize)(context)

    async def unrelated(self) -> AsyncIterator[tuple[float, int]]:
        """Yield the log-probability and the number of tokens of each unrelated answer."""
        for it in unrelated_answers():
            prompt, answer = await it.texts(self._capabilities.render_chat)
            context, ids = await self._tokenize(prompt), await self._tokenize(answer)
            total = await self.total(context, ids)
            if total is not None:
                yield total, len(ids)


def _is_same(had: Round, unrelated: tuple[tuple[float, int], ...]) -> bool:
    """Return whether the model that gives ``unrelated`` is the round's own."""
    lengths = [[tokens for _, tokens in it] for it in (had.unrelated, unrelated)]
    is_alike = lengths[0] == lengths[1]
    return is_alike and drift(had, replace(had, unrelated=unrelated)) <= SAME_NATS


def _question(prior_context: str) -> str:
    """Return the last message of the user in a candidate's prior context, or nothing."""
    return prior_context.rpartition("[user]\n")[2].partition("\n\n[assistant]\n")[0].strip()
