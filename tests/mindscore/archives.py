"""Advice on archives of any size, as pages show it."""

import random

from mindscore.measure.archive_advice import (
    ArchiveAdvice,
    JointEffect,
    JointRemoval,
    Period,
    Receipt,
    ResponsePlace,
)
from mindscore.measure.duplicates import Basis, Duplicate
from mindscore.measure.evidence import MemoryVersion
from mindscore.measure.summaries import Effect, Interval, MemoryEvidence
from mindscore.measure.verdicts import Advice, Verdict

WEEK_S = 7 * 86400.0
BEGUN = 1_790_000_000.0
KINDS = {
    Verdict.HARMFUL: (-30.0, 6.0),
    Verdict.DROP: (0.5, 2.0),
    Verdict.MERGE: (0.4, 1.5),
    Verdict.KEEP: (90.0, 25.0),
    Verdict.NOT_ENOUGH_EVIDENCE: (4.0, 9.0),
}
"""A value of the memories of each verdict, in nats, and half of its interval."""

RESPONSES = 400


def made_archive(memories=40, weeks=20, text="Nora drinks rooibos tea", receipt=True, **fields):
    """Advice on so many memories, in which all that can say anything says ``text``."""
    numbers = random.Random(memories)
    place = ResponsePlace(f"{text} talk", f"{text} title", f"{text}.jsonl", f"{text} id", 7, BEGUN)
    advice, timeline = [], {}
    for at in range(memories):
        verdict = list(KINDS)[at % len(KINDS)]
        key = f"{text} {at}"
        advice.append(_advice(key, verdict, numbers, f"{text} {max(0, at - 1)}", text))
        if at % 11:
            timeline[key] = tuple(
                Period(BEGUN + it * WEEK_S, 3, 1, 0, numbers.gauss(*KINDS[verdict]) / weeks)
                for it in range(weeks)
                if numbers.random() < 0.8
            )
    given = {
        "model": f"{text} model",
        "mode": "full",
        "namespace": f"{text} space",
        "conversations": 80,
        "responses": RESPONSES,
        "cells": RESPONSES * memories,
        "first_scored": BEGUN,
        "last_scored": BEGUN + weeks * WEEK_S,
        "advice": tuple(advice),
        "remarks": (f"{text} remark",),
        "receipt": made_receipt(advice, place, text) if receipt and advice else None,
        "timeline": timeline,
        "texts": {it.key: text for it in advice},
        "places": {1: place},
    }
    return ArchiveAdvice(**{**given, **fields})


def _advice(key, verdict, numbers, other, text):
    nats, half = KINDS[verdict]
    nats += numbers.gauss(0, half)
    helped = max(0, round(nats / 5))
    harmed = 12 if verdict is Verdict.HARMFUL else 0
    evidence = MemoryEvidence(
        version=MemoryVersion(key, "hash", 40, RESPONSES // 2, BEGUN, f"{text}. " * 3),
        conversations=60,
        responses=RESPONSES // 2,
        helped=helped,
        harmed=harmed,
        by_chance=1.0,
        nats=nats,
        mean=nats / (RESPONSES // 2),
        error=0.01,
        interval=Interval((nats - half) / (RESPONSES // 2), (nats + half) / (RESPONSES // 2)),
        cost_of_dropping=0.01,
        largest=Effect(1, 1, 8.0) if helped else None,
        worst=(Effect(1, 1, -3.0), Effect(2, 1, -2.0)) if harmed else (),
        last_helped=BEGUN if helped else None,
        p_help=0.5,
        p_harm=0.5,
        p_largest=0.5,
        p_idle=0.5,
        has_hold=True,
    )
    is_merge = verdict is Verdict.MERGE
    return Advice(
        key=key,
        verdict=verdict,
        reason=f"{text} reason",
        evidence=evidence,
        duplicates=(Duplicate(other, Basis.HOLD, 9, 10),) if is_merge else (),
        merge_with=other if is_merge else None,
        more_conversations=12 if verdict is Verdict.NOT_ENOUGH_EVIDENCE else None,
        more_responses=60 if verdict is Verdict.NOT_ENOUGH_EVIDENCE else None,
    )


def made_receipt(advice, place, text):
    """The receipt of dropping all that is proposed: the first is to be kept."""
    proposed = tuple(it.key for it in advice if it.verdict in (Verdict.DROP, Verdict.MERGE))
    effect = JointEffect(place, 4.5, 0.5)
    counts = {"responses": RESPONSES, "rest": 0.2, "worst": (effect,), "best": (effect,)}
    return Receipt(
        proposed=proposed,
        kept=proposed[:1],
        kept_for=dict.fromkeys(proposed[:1], effect),
        rounds=(
            JointRemoval(proposed, lost=9.0, missed=3, tokens=9000, **counts),
            JointRemoval(proposed[1:], lost=0.4, missed=1, tokens=8000, **counts),
        ),
        conversations=80,
        calls=160,
        prompt_tokens=123_456,
        computed_tokens=None,
        unmeasured=(f"{text} unmeasured",),
    )
