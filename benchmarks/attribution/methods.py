"""The methods: each says what every memory of a case did to every answer."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence

from benchmarks.attribution.ablations import Masks, lasso, logit, random_masks
from benchmarks.attribution.feature_ablation import feature_ablation
from benchmarks.attribution.measuring import Measuring
from mindhooks import MindCommand, Registry, ScorerCapabilities, ScorerError
from mindhooks.testing import RecordingListener, StubMind
from mindscore.flows.memory import MemoryScoring
from mindscore.measure.memories import Skip, skip_all, skip_all_except, skip_none, skip_only
from mindscore.measure.screening.receipt import ScreenReceipt
from mindscore.measure.screening.words import common_words
from mindscore.measure.support import candidates, support

Values = dict[str, list[float]]
"""What each memory did, in the order of the case's keys, by the answer's node id."""

Method = Callable[[Measuring], Awaitable[Values]]

CANDIDATES = 8
"""Memories of which ``support-8`` measures what an answer loses."""

FEW, MANY = 64, 256
"""Ablations of ContextCite: its default, and those of ARC-JSD's table."""


async def drop(case: Measuring) -> Values:
    """Return the nats that each answer loses without a memory (leave-one-out)."""
    compared = case.compared()
    rows = [await compared.drop(case.window, skip_only(key)) for key in case.keys]
    return _columns(case, [{it.node_id: it.signed for it in row} for row in rows])


async def hold(case: Measuring) -> Values:
    """Return the nats that each answer gains by a memory alone, against none."""
    compared = case.compared()
    rows = [await compared.hold(case.window, key) for key in case.keys]
    return _columns(case, [{it.node_id: it.signed for it in row} for row in rows])


async def drop_with_hold(case: Measuring) -> Values:
    """Return the sum of both, as SelfCite has it (2025): necessary, and sufficient."""
    compared = case.compared()
    dropped = [await compared.drop(case.window, skip_only(key)) for key in case.keys]
    held = [await compared.hold(case.window, key) for key in case.keys]
    sums = [
        {one.node_id: one.signed + other.signed for one, other in zip(*rows, strict=True)}
        for rows in zip(dropped, held, strict=True)
    ]
    return _columns(case, sums)


async def knock_out(case: Measuring) -> Values:
    """Return the nats that each answer loses if its tokens do not see a memory's.

    All other tokens keep what they know of it. So it costs one prompt and the answers.

    Raises:
        ScorerError: no tokens can be hidden from the model.
    """
    hide = ScorerCapabilities.of(case.scorer).knock_out
    if hide is None:
        raise ScorerError(f"{case.scorer.model}: no tokens can be hidden from it")
    full = dict(zip(case.node_ids, await case.totals(skip_none), strict=True))
    spans, found = await case.spans(), Values()
    for index, prompt in enumerate(spans.prompts):
        rows = (await hide(prompt, [spans.spans[key][index] for key in case.keys])).ranges
        for at, id_ in enumerate(prompt.node_ids):
            found[id_] = [full[id_] - row[at].total for row in rows]
    return found


async def screened(case: Measuring) -> Values:
    """Return what ``score --full --screen`` says: exact values where they matter, else estimates.

    An estimate comes after every memory that was measured and helped.

    Raises:
        ScorerError: the run failed.
    """
    mind, heard = StubMind(case.context), RecordingListener()
    async with Registry(mind, {}, scorer=case.scorer) as registry:
        registry.register(MemoryScoring({"screen": True}), name="memory-scoring")
        registry.register(heard)
        registry.dispatch(MindCommand.SCORE_FULL)
        await registry.wait_idle()
        receipt: ScreenReceipt | None = registry.stash.get(ScreenReceipt)
    stats = mind.state.memory_last_run
    if stats is None or stats.error is not None:
        raise ScorerError(f"the screened matrix failed: {stats and stats.error}")
    rows = {it.key: {cell.node_id: cell.signed for cell in it.divergences} for it in heard.scores}
    guesses: dict[str, list[tuple[float, str]]] = {}
    for it in () if receipt is None else receipt.estimates:
        guesses.setdefault(it.node_id, []).append((it.nats, it.key))
    for id_, its in guesses.items():
        most = min((row[id_] for row in rows.values() if row.get(id_, 0.0) > 0), default=math.inf)
        for nats, key in sorted(its, reverse=True):
            most = min(nats, math.nextafter(most, -math.inf))
            rows.setdefault(key, {})[id_] = most
    return _columns(case, [rows.get(key, {}) for key in case.keys])


async def jensen_shannon(case: Measuring) -> Values:
    """Return how far the answers' distributions move without a memory, as ARC-JSD (2025) has it.

    It is the sum over an answer's tokens, of the whole vocabulary. It has no sign.
    """
    await case.totals(skip_none)
    shifts = [await case.shifts(key) for key in case.keys]
    return _columns(case, [{id_: math.fsum(it) for id_, it in each.items()} for each in shifts])


def context_cite(count: int) -> Method:
    """Return ContextCite's method, in our own words: a sparse fit to ``count`` random ablations."""

    async def fitted(case: Measuring) -> Values:
        masks = random_masks(count, len(case.keys))
        totals = await ablated_totals(case, masks)
        return {
            id_: lasso(masks, logit(totals[id_]), len(case.answer(id_))).tolist()
            for id_ in case.node_ids
        }

    return fitted


async def words(case: Measuring) -> Values:
    """Return the words that a memory has in common with question and answer (BM25)."""
    spans = await case.spans()
    found = common_words(case.context, case.window, {key: spans.ids(key) for key in case.keys})
    return {id_: [found[key].get(id_, 0.0) for key in case.keys] for id_ in case.node_ids}


async def supported(case: Measuring) -> Values:
    """Return mindscore's ``support``: what an answer loses without a memory, and common words."""
    dropped, common = await drop(case), await words(case)
    return {id_: support(dropped[id_], common[id_]) for id_ in case.node_ids}


async def supported_by_few(case: Measuring) -> Values:
    """Return ``support``, with leave-one-out of the memories alone that have most common words."""
    compared, common = case.compared(), await words(case)
    found = {}
    for id_ in case.node_ids:
        dropped: list[float | None] = [None] * len(case.keys)
        for at in candidates(common[id_], CANDIDATES):
            row = await compared.drop(case.window, skip_only(case.keys[at]))
            dropped[at] = next(it.signed for it in row if it.node_id == id_)
        found[id_] = support(dropped, common[id_])
    return found


ABLATIONS = {f"contextcite-{count}": count for count in (FEW, MANY)}
"""How many random ablations a method needs."""

METHODS: Mapping[str, Method] = {
    "drop": drop,
    "hold": hold,
    "drop+hold": drop_with_hold,
    "knock-out": knock_out,
    "screened": screened,
    "jsd": jensen_shannon,
    **{name: context_cite(count) for name, count in ABLATIONS.items()},
    "bm25": words,
    "support": supported,
    f"support-{CANDIDATES}": supported_by_few,
    "captum": feature_ablation,
}

USUAL = [name for name in METHODS if name != "captum"]
"""All but what only repeats another's values."""


# -- what several of them need -----------------------------------------------------------------


def keeping(keys: Sequence[str], mask: Sequence[bool]) -> Skip:
    """Skip the memories that ``mask`` does not keep."""
    return removed(keys, mask).__contains__


def removed(keys: Sequence[str], mask: Sequence[bool]) -> frozenset[str]:
    """Return the memories that ``mask`` does not keep."""
    return frozenset(key for key, is_kept in zip(keys, mask, strict=True) if not is_kept)


async def ablated_totals(case: Measuring, masks: Masks) -> dict[str, list[float]]:
    """Return the answers' log-probabilities under each mask, in nats, by node id."""
    rows = [await case.totals(keeping(case.keys, mask)) for mask in masks.tolist()]
    return {id_: [row[at] for row in rows] for at, id_ in enumerate(case.node_ids)}


async def prepare(case: Measuring, masks: Masks) -> None:
    """Score the ablations in the order in which they share the longest prefixes."""
    skips = [keeping(case.keys, mask) for mask in masks.tolist()]
    begins = [[it.tokens for it in await case.prompts(skip)] for skip in skips]
    for at in sorted(range(len(skips)), key=begins.__getitem__):
        await case.totals(skips[at])


async def token_logprobs(case: Measuring) -> dict[str, dict[str, object]]:
    """Return the token log-probabilities behind ``drop`` and ``hold``, by node id."""
    full, bare = await case.token_logprobs(skip_none), await case.token_logprobs(skip_all)
    without = [await case.token_logprobs(skip_only(key)) for key in case.keys]
    alone = [await case.token_logprobs(skip_all_except(key)) for key in case.keys]
    return {
        id_: {
            "full": _rounded(full[id_]),
            "none": _rounded(bare[id_]),
            "without": [_rounded(it[id_]) for it in without],
            "alone": [_rounded(it[id_]) for it in alone],
        }
        for id_ in case.node_ids
    }


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(it, 5) for it in values]


def _columns(case: Measuring, rows: Sequence[Mapping[str, float]]) -> Values:
    return {id_: [row[id_] for row in rows] for id_ in case.node_ids}
