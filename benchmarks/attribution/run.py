"""Measure the cases of a set with each method, and keep what was found after each case."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.attribution.ablations import random_masks
from benchmarks.attribution.cases import Case, with_answer
from benchmarks.attribution.distributions import Distributions
from benchmarks.attribution.feature_ablation import is_installed
from benchmarks.attribution.measuring import Measuring, RecordingScorer, holding, measuring
from benchmarks.attribution.methods import (
    ABLATIONS,
    METHODS,
    ablated_totals,
    prepare,
    removed,
    token_logprobs,
)
from benchmarks.attribution.results import Ablations, Answer, Found, Results
from mindhooks import Scorer, load_scorer
from mindscore.measure.memories import skip_none
from mindscore.scorers.local.scorer import LocalScorer

RANDOM_SEED = 1_000_000
"""The first seed of the ablations that judge: no method's are drawn with such."""

MOST_GENERATED = 48
"""Tokens of a response that the model itself gives."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The methods to run.

    Attributes:
        methods: their names.
        response: whose answers are scored: the set's (gold) or the model's own.
        random: the random ablations that judge the methods' sums; 0: these are not judged.
    """

    methods: Sequence[str]
    response: Literal["gold", "model"] = "gold"
    random: int = 16


def unavailable(scorer: Scorer, names: Sequence[str]) -> str | None:
    """Return why ``scorer`` cannot serve one of the methods, or ``None``."""
    if not isinstance(scorer, LocalScorer) and {"jsd", "captum", "knock-out"} & set(names):
        return "jsd, knock-out and captum need the model: --scorer local, or other --methods"
    if "captum" in names and not is_installed():
        return "captum is not installed: pip install 'mindscore[bench]'"
    return None


async def measure(
    cases: Sequence[Case],
    scorer: Scorer,
    distributions: Distributions | None,
    plan: Plan,
    results: Results,
    file: Path | None,
    say: Callable[[str], None],
) -> None:
    """Add to ``results`` what it lacks of ``cases``, and write ``file`` after each of them.

    ``distributions`` are those of the scorer, which "jsd" needs.

    Raises:
        ScorerError: the scorer failed.
    """
    for case in cases:
        known = results.of(case.set, case.id)
        lacking = [
            name
            for name in plan.methods
            if not known or any(name not in it.methods for it in known.values())
        ]
        is_judged = not plan.random or (known and all(it.random for it in known.values()))
        if is_judged and not lacking:
            continue
        if distributions is not None:
            distributions.begin()
        if plan.response == "model":
            case = await _own_answers(case, scorer)
        recording = RecordingScorer(scorer, distributions)
        say(f"{case.set} {case.id}: {', '.join(lacking) or 'random ablations'}")
        random = 0 if is_judged else plan.random
        found = await _measure(case, recording, lacking, random, known)
        results.answers += [it for it in found if it.node_id not in known]
        if file is not None:
            results.write(file)


async def _measure(
    case: Case,
    scorer: RecordingScorer,
    names: Sequence[str],
    random: int,
    known: Mapping[str, Answer],
) -> list[Answer]:
    keys = case.transcript.keys()
    most = max((ABLATIONS[name] for name in names if name in ABLATIONS), default=0)
    judging = random_masks(random, len(keys), RANDOM_SEED)
    masks = np.concatenate([random_masks(most, len(keys)), judging])
    without = {removed(keys, mask) for mask in masks.tolist()}
    async with measuring(case, scorer, without) as measured:
        if measured.keys != keys:
            raise ValueError(f"{case.set} {case.id}: memories are rendered in another order")
        # First: all else is compared with it.
        await measured.totals(skip_none)
        await prepare(measured, masks)
        answers = dict(known) or await _answers(case, measured)
        for name in names:
            with scorer.charged() as cost:
                values = await METHODS[name](measured)
            for node_id, answer in answers.items():
                part = cost.shared_by(len(answers))
                answer.methods[name] = Found(_rounded(values[node_id]), part)
        if random:
            texts = ["".join("01"[it] for it in mask) for mask in judging.tolist()]
            totals = await ablated_totals(measured, judging)
            for node_id, answer in answers.items():
                answer.random = Ablations(texts, _rounded(totals[node_id]))
    return list(answers.values())


async def _answers(case: Case, measured: Measuring) -> dict[str, Answer]:
    """Return the answers of a case, with no values yet."""
    tokens = await token_logprobs(measured)
    return {
        node_id: Answer(
            set=case.set,
            case=case.id,
            node_id=node_id,
            held_out=case.held_out,
            keys=measured.keys,
            support=sorted(labels.support),
            harmful=sorted(labels.harmful),
            tokens=len(measured.answer(node_id)),
            token_logprobs=tokens[node_id],
        )
        for node_id, labels in case.labels.items()
    }


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(it, 6) for it in values]


async def _own_answers(case: Case, scorer: Scorer) -> Case:
    """Return the case with the model's own answers, each after its own earlier ones."""
    for node_id in case.labels:
        async with measuring(case, RecordingScorer(scorer), ()) as measured:
            whole = holding(node_id, await measured.prompts(skip_none))
        start = whole.ranges[whole.node_ids.index(node_id)][0]
        prompt = replace(whole, tokens=whole.tokens[:start], ranges=(), node_ids=())
        generated = await scorer.generate(prompt, max_tokens=MOST_GENERATED, stop=())
        case = with_answer(case, node_id, generated.text.strip() or "?")
    return case


async def run(
    cases: Sequence[Case],
    table: Mapping[str, str],
    plan: Plan,
    results: Results,
    file: Path | None,
    say: Callable[[str], None],
) -> None:
    """Measure ``cases`` with the scorer of the ``[server]`` table, and close it.

    Raises:
        ScorerError: the scorer failed.
        ValueError: it cannot serve one of the methods.
    """
    async with aclosing(await load_scorer(table)) as scorer:
        if reason := unavailable(scorer, plan.methods):
            raise ValueError(reason)
        distributions = None
        if isinstance(scorer, LocalScorer) and "jsd" in plan.methods:
            distributions = Distributions()
            await distributions.watch(scorer)
        await measure(cases, scorer, distributions, plan, results, file, say)
