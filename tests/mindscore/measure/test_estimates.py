"""Advice on evidence of which a screen has estimated most, and measured what stood out."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from mindscore.config.settings import AdviseSettings
from mindscore.measure.evidence import MemoryVersion, judged_cells
from mindscore.measure.summaries import summaries
from mindscore.measure.verdicts import Verdict, advise

from .planted import archive, columns

SETTINGS = AdviseSettings()
CONFIRM, SAMPLE = 2.0, 2
"""Estimates from which on rows are measured, and how many of the others of each conversation."""

ERROR, SHRUNK = 0.3, 0.9
"""The error of an estimate in nats, and the share of an effect that it shows."""


def screened(exact, seed):
    """``exact`` as a screen leaves it: rows that stand out or were drawn, and estimates."""
    random = np.random.default_rng(seed)
    estimate = SHRUNK * exact.signed + ERROR * random.standard_normal(len(exact.signed))
    pairs = exact.conversation * len(exact.versions) + exact.memory
    numbers, row = np.unique(pairs, return_inverse=True)
    largest = np.zeros(len(numbers))
    np.maximum.at(largest, row, np.abs(estimate))
    is_measured = largest >= CONFIRM
    for conversation in np.unique(exact.conversation):
        rest = np.flatnonzero(~is_measured & (numbers // len(exact.versions) == conversation))
        is_measured[random.permutation(rest)[:SAMPLE]] = True
    guessed = ~is_measured[row]
    error = float(np.quantile(np.abs(estimate - exact.signed), 0.95))
    return replace(
        exact,
        signed=np.where(guessed, estimate, exact.signed),
        noise=np.where(guessed, error, exact.noise),
        hold=np.where(guessed, np.nan, exact.hold),
        estimated=guessed,
    )


def only(evidence, rows):
    """The evidence without other rows."""
    names = ("memory", "conversation", "response", "signed", "hold", "noise", "time")
    return replace(
        evidence, **{name: getattr(evidence, name)[rows] for name in names}, estimated=None
    )


def verdicts(evidence):
    return {it.key: it.verdict for it in advise(evidence, SETTINGS)}


def kind(key):
    return key.split("-")[0]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_verdicts_on_estimates_are_those_on_what_they_stand_for(seed):
    exact = archive(120, seed, hold=False)
    evidence = screened(exact, seed)
    assert evidence.estimated.mean() > 0.7
    whole, found = verdicts(exact), verdicts(evidence)
    for key, verdict in found.items():
        if kind(key) in ("steady", "rare", "misleading"):
            assert verdict == whole[key], key
        elif verdict is Verdict.KEEP and kind(key) == "idle":
            assert whole[key] is Verdict.KEEP, key
    assert sum(verdict != whole[key] for key, verdict in found.items()) <= 4
    dropped = {key for key, verdict in found.items() if verdict is Verdict.DROP}
    for it in advise(evidence, SETTINGS):
        if it.key in dropped and it.evidence.estimated:
            assert "estimates (≈), not measured" in it.reason or "by estimates alone" in it.reason
    assert sum(kind(key) == "idle" for key in dropped) >= 20
    assert not {kind(key) for key in dropped} & {"steady", "rare", "misleading"}


def test_without_estimates_nothing_could_be_dropped():
    evidence = screened(archive(120, 1, hold=False), 1)
    found = verdicts(only(evidence, np.flatnonzero(~evidence.estimated)))
    assert Counter(found.values())[Verdict.DROP] == 0


def test_an_estimate_of_nothing_is_a_judgement_and_no_measured_nothing_is():
    versions = [MemoryVersion("a"), MemoryVersion("b")]
    rows = [(0, 0, 0, 0.0), (1, 0, 0, 0.0)]
    evidence = replace(columns(versions, rows), estimated=np.array([True, False]))
    cells = judged_cells(evidence)
    assert cells.memory.tolist() == [0]
    assert cells.is_estimate.tolist() == [True]
    one, other = summaries(versions, cells, SETTINGS)
    assert (one.responses, one.estimated, other.responses, other.estimated) == (1, 1, 0, 0)


def test_the_error_of_the_estimates_is_their_noise():
    versions = [MemoryVersion("a")]
    rows = [(0, 0, it, nats, np.nan, 0.8) for it, nats in enumerate((0.5, 1.5, -0.5, -1.5))]
    evidence = replace(columns(versions, rows), estimated=np.array([True, True, True, False]))
    [found] = summaries(versions, judged_cells(evidence), SETTINGS)
    assert (found.helped, found.helped_estimated) == (1, 1)
    assert (found.harmed, found.harmed_estimated) == (1, 0)
    assert found.largest.is_estimate
    assert [it.is_estimate for it in found.worst] == [False]


@pytest.mark.parametrize(
    ("sign", "verdict"), [(1.0, Verdict.KEEP), (-1.0, Verdict.HARMFUL)], ids=["keep", "harmful"]
)
@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (0, "; by estimates alone (≈), nothing was measured: score without --screen to be sure"),
        (7, "; 13 of these 20 are estimates (≈), not measured"),
        (20, "by 6.0 nats"),
    ],
)
def test_a_verdict_by_estimates_says_so(sign, verdict, measured, words):
    versions = [MemoryVersion("strong"), *(MemoryVersion(f"idle-{it}") for it in range(6))]
    rows = [
        (memory, talk, talk, sign * 6.0 if memory == 0 else 0.05 * (-1) ** (memory + talk))
        for talk in range(20)
        for memory in range(len(versions))
    ]
    guessed = np.array([memory == 0 and talk >= measured for memory, talk, *_ in rows])
    found = advise(replace(columns(versions, rows), estimated=guessed), SETTINGS)
    [strong] = [it for it in found if it.key == "strong"]
    assert strong.verdict is verdict
    assert strong.reason.endswith(words)


def test_columns_of_another_length_are_refused():
    evidence = columns([MemoryVersion("a")], [(0, 0, 0, 1.0)])
    with pytest.raises(ValueError, match="differ in length"):
        replace(evidence, estimated=np.array([True, False]))
