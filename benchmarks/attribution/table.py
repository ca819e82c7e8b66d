"""Print what each method found of a set's answers, and what it took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from benchmarks.attribution.measures import (
    additive_fit,
    auroc,
    interval,
    reciprocal_rank,
    top_one,
)
from benchmarks.attribution.results import Answer, Results

PUBLISHED = """\
Published top-1 in %, 1,000 questions each, whole contexts (ARC-JSD, arXiv 2505.16415):
                                   HotpotQA  MuSiQue
ContextCite-256   Qwen2-1.5B           54.9     54.5
ARC-JSD           Qwen2-1.5B           71.1     60.6
ContextCite-256   Gemma2-2B            54.8     51.8
ARC-JSD           Gemma2-2B            67.0     65.3"""


def lines(results: Results, names: Sequence[str], *, held_out: bool) -> Iterator[str]:
    """Yield the lines of a table for each set that ``results`` has answers of."""
    chosen = [it for it in results.answers if it.held_out == held_out]
    half = "kept back" if held_out else "development"
    for set_ in dict.fromkeys(it.set for it in chosen):
        mine = [it for it in chosen if it.set == set_]
        units = fmean(len(it.keys) for it in mine)
        yield f"{set_}, {half}: {len(mine)} answers, {units:.1f} memories each on average"
        yield (
            f"{'method':16} {'n':>4} {'top-1':>20} {'MRR':>20} {'useful':>6} {'harmful':>7} "
            f"{'LDS':>6} {'sent':>9} {'computed':>9} {'s':>7}"
        )
        yield from (_line(name, mine) for name in names if any(name in it.methods for it in mine))
        yield ""


def _line(name: str, answers: Sequence[Answer]) -> str:
    mine = [it for it in answers if name in it.methods]
    first = [top_one(it.methods[name].values, _in(it, it.support)) for it in mine]
    ranks = [reciprocal_rank(it.methods[name].values, _in(it, it.support)) for it in mine]
    useful = [auroc(it.methods[name].values, _in(it, it.support)) for it in mine]
    harmful = [
        auroc([-value for value in it.methods[name].values], _in(it, it.harmful)) for it in mine
    ]
    fits = [
        additive_fit(it.methods[name].values, it.random.masks, it.random.totals)
        for it in mine
        if it.random
    ]
    costs = [it.methods[name].cost for it in mine]
    return (
        f"{name:16} {len(mine):4} {_percent(first):>20} {_percent(ranks):>20} "
        f"{_mean(useful):>6} {_mean(harmful):>7} {_mean(fits):>6} "
        f"{fmean(it.sent for it in costs):9,.0f} {fmean(it.computed for it in costs):9,.0f} "
        f"{fmean(it.seconds for it in costs):7.1f}"
    )


def _in(answer: Answer, labelled: Sequence[str]) -> list[bool]:
    return [key in labelled for key in answer.keys]


def _percent(values: Sequence[float]) -> str:
    low, high = interval(values)
    return f"{fmean(values):6.1%} ({low:.0%} to {high:.0%})"


def _mean(values: Sequence[float | None]) -> str:
    known = [it for it in values if it is not None]
    return f"{fmean(known):.2f}" if known else "-"
