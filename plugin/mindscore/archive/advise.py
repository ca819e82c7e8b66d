"""The advice on the memories of a namespace, and what it does not rest on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from mindscore._util.text import count_of, one_line
from mindscore.archive.evidence import ArchiveEvidence, read_evidence
from mindscore.config.settings import Settings
from mindscore.measure.archive_advice import ArchiveAdvice, changed_drops
from mindscore.measure.divergence import UNMEASURED_NOISE
from mindscore.measure.summaries import MemoryEvidence
from mindscore.measure.timeline import timeline
from mindscore.measure.verdicts import Advice, Verdict, advise
from mindscore.store import Store, Verifications

ORDER = (
    Verdict.HARMFUL,
    Verdict.DROP,
    Verdict.MERGE,
    Verdict.KEEP,
    Verdict.NOT_ENOUGH_EVIDENCE,
)
"""The verdicts as they are shown: what can be acted on comes first."""

TEXT = 200
"""Characters of a memory's text that are shown."""

NOTHING = "Nothing is kept yet in this namespace: mindscore score PATH --full measures it"


async def archive_advice(
    settings: Settings, model: str | None = None, since: float | None = None
) -> tuple[ArchiveAdvice, ArchiveEvidence | None]:
    """Return the advice on each memory of the namespace, with the evidence that it rests on.

    With it comes the receipt of its last verification, if there is one.
    It is by ``model``, or by the one that has measured the most; ``since``: only by responses that
    were given then or later, in seconds since the epoch.

    Raises:
        UsageError: there is no evidence of ``model``.
        StoreError: the store cannot be read.
    """
    evidence = await read_evidence(Store(settings.store), model, since)
    if evidence is None:
        nobody = ArchiveAdvice(
            "", "full", settings.store.namespace, 0, 0, 0, 0.0, 0.0, (), (NOTHING,)
        )
        return nobody, None
    columns, cells = evidence.columns, evidence.cells
    found = advise(columns, settings.advise, cells=cells)
    ranked = sorted(found, key=lambda it: (ORDER.index(it.verdict), -it.evidence.nats, it.key))
    numbers = {(it.key, it.text_hash): at for at, it in enumerate(columns.versions)}
    current = {numbers[it.key, it.evidence.version.text_hash]: it.key for it in ranked}
    period, periods = timeline(cells, evidence.cell_times, current)
    scored = evidence.scored_at
    advice = ArchiveAdvice(
        model=evidence.model,
        mode=evidence.mode,
        namespace=settings.store.namespace,
        conversations=len(cells.conversation_ids),
        responses=len(cells.response_ids),
        cells=len(columns.memory),
        estimated=int(cells.is_estimate.sum()),
        first_scored=float(scored.min(initial=np.inf)) if len(scored) else 0.0,
        last_scored=float(scored.max(initial=0.0)),
        advice=tuple(ranked),
        remarks=tuple(_remarks(evidence, ranked, asked=model)),
        period=period,
        timeline=periods,
        texts={
            it.key: one_line(it.evidence.version.text, TEXT)
            for it in ranked
            if it.evidence.version.text
        },
        places=evidence.places(set(_named(ranked))),
    )
    receipt = await Verifications(settings.store).receipt(advice.model)
    if receipt is not None:
        stale = changed_drops(receipt.drops, advice.drops)
        advice = replace(advice, receipt=receipt, stale=stale)
    return advice, evidence


def _named(advice: Iterable[Advice]) -> Iterator[int]:
    """Yield the numbers of the responses that the evidence names."""
    for it in advice:
        for evidence in (it.evidence, *it.older):
            if evidence.largest is not None:
                yield evidence.largest.response
            yield from (effect.response for effect in evidence.worst)


def _remarks(
    evidence: ArchiveEvidence, advice: Sequence[Advice], asked: str | None
) -> Iterator[str]:
    """Yield lines on what there is in the store that the advice does not rest on, and why."""
    others = [it for it in evidence.kinds if it.model != evidence.model]
    if others and asked is None:
        models = sorted({it.model for it in others})
        cells = count_of(sum(it.cells for it in others), "effect")
        yield (
            f"by {evidence.model}, which has measured the most; {cells} by "
            f"{', '.join(models)} are not used: --model chooses"
        )
    for it in evidence.kinds:
        if it.model == evidence.model and it.mode == "incremental" != evidence.mode:
            yield (
                f"{count_of(it.cells, 'effect')} within windows (score without --full) are not "
                "used: those over whole conversations are"
            )
    if evidence.mode == "incremental":
        yield (
            "no whole conversation was scored (--full), only windows after each memory: the "
            "responses that judge one memory may not judge another"
        )
    if evidence.unnamed:
        yield (
            f"{count_of(evidence.unnamed, 'effect')} of an earlier version name no conversation "
            "and are left out: score those conversations again"
        )
    if evidence.early:
        yield f"{count_of(evidence.early, 'effect')} before --since are left out"
    yield from _unknown(evidence, [it.evidence for it in advice])


def _unknown(evidence: ArchiveEvidence, memories: Sequence[MemoryEvidence]) -> Iterator[str]:
    """Yield lines on what is not known of the evidence that is used."""
    cells = evidence.cells
    estimated, measured = int(cells.is_estimate.sum()), int((~cells.is_estimate).sum())
    if estimated:
        unknown = int(np.isnan(evidence.columns.noise[cells.rows[cells.is_estimate]]).sum())
        but = f"; that of {unknown:,} is not known" if unknown else ""
        yield (
            f"{count_of(estimated, 'effect')} of {estimated + measured:,} "
            f"{'was' if estimated == 1 else 'were'} not measured: a screen's estimate (≈) stands "
            f"for each, with the error that its sample showed as its noise{but}"
        )
    assumed = len(np.unique(cells.response[cells.is_assumed]))
    if assumed:
        yield (
            f"the noise of {count_of(assumed, 'response')} of {len(cells.response_ids):,} is not "
            f"known, and too few memories show it: {UNMEASURED_NOISE:g} nat is assumed"
        )
    untimed = len(np.unique(cells.response[np.isnan(cells.time)]))
    if untimed:
        yield (
            f"{count_of(untimed, 'response')} of {len(cells.response_ids):,} have no time of their "
            "own: over time, and for --since, the time of the score is taken"
        )
    textless = sum(it.version.text is None for it in memories)
    if textless:
        yield (
            f"the text of {count_of(textless, 'memory', 'memories')} is not kept (store.keep_texts,"
            " or an earlier version): like words are not compared"
        )
    lengthless = sum(it.version.tokens is None for it in memories)
    if lengthless:
        yield (
            f"the length of {count_of(lengthless, 'memory', 'memories')} is not known: they are in "
            "no sum of tokens"
        )
    alone = sum(not it.has_hold for it in memories)
    if alone:
        yield (
            f"{count_of(alone, 'memory was', 'memories were')} never scored alone: whether others "
            "hide what they do is not known; score with --full --hold"
        )
