"""Advice as JSON, and as the rows of a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from mindscore._util.text import iso_utc
from mindscore.measure.archive_advice import (
    ArchiveAdvice,
    JointEffect,
    JointRemoval,
    Receipt,
    ResponsePlace,
)
from mindscore.measure.summaries import Effect, Interval, MemoryEvidence
from mindscore.measure.verdicts import Advice

COLUMNS = (
    "key",
    "verdict",
    "reason",
    "merge_with",
    "conversations",
    "responses",
    "helped",
    "harmed",
    "nats",
    "nats_low",
    "nats_high",
    "nats_per_1000_tokens",
    "tokens",
    "tokens_a_turn",
    "last_helped",
    "largest",
    "duplicates",
    "more_conversations",
    "more_responses",
    "text_hash",
    "text",
    "estimated",
)
"""The columns of ``--csv``, a row for each memory."""


def advice_document(advice: ArchiveAdvice) -> dict[str, Any]:
    """Return the document that ``mindscore advise --json`` prints."""
    return {
        "command": "advise",
        "model": advice.model,
        "mode": advice.mode,
        "namespace": advice.namespace,
        "conversations": advice.conversations,
        "responses": advice.responses,
        "cells": advice.cells,
        "estimated": advice.estimated,
        "scored": [iso_utc(it) for it in (advice.first_scored, advice.last_scored)],
        "remarks": list(advice.remarks),
        "period": advice.period,
        "memories": [_memory(advice, it) for it in advice.advice],
        "receipt": None if advice.receipt is None else _receipt(advice, advice.receipt),
    }


def advice_rows(advice: ArchiveAdvice) -> Iterable[tuple[Any, ...]]:
    """Yield a row of ``COLUMNS`` for each memory; ``None`` where a value is not known."""
    for it in advice.advice:
        fields = _memory(advice, it)
        low, high = fields["nats_interval"] or (None, None)
        largest = fields["largest"]
        flat = {
            "nats_low": low,
            "nats_high": high,
            "largest": None if largest is None else largest["nats"],
            "duplicates": " ".join(each.key for each in it.duplicates),
        }
        yield tuple({**fields, **flat}[name] for name in COLUMNS)


def _memory(advice: ArchiveAdvice, it: Advice) -> dict[str, Any]:
    return {
        "key": it.key,
        "verdict": it.verdict,
        "reason": it.reason,
        "merge_with": it.merge_with,
        **_evidence(advice, it.evidence),
        "tokens_a_turn": advice.tokens_a_turn(it),
        "duplicates": [asdict(each) for each in it.duplicates],
        "more_conversations": it.more_conversations,
        "more_responses": it.more_responses,
        "older": [_evidence(advice, older) for older in it.older],
        "timeline": [
            {**asdict(each), "begins": iso_utc(each.begins)}
            for each in advice.timeline.get(it.key, ())
        ],
    }


def _evidence(advice: ArchiveAdvice, it: MemoryEvidence) -> dict[str, Any]:
    last = it.last_helped
    return {
        "text": it.version.text,
        "text_hash": it.version.text_hash,
        "tokens": it.version.tokens,
        "conversations": it.conversations,
        "responses": it.responses,
        "helped": it.helped,
        "harmed": it.harmed,
        "by_chance": it.by_chance,
        "nats": it.nats,
        "nats_interval": _interval(it.nats_interval),
        "mean": it.mean,
        "mean_interval": _interval(it.interval),
        "nats_per_1000_tokens": it.nats_per_1000_tokens,
        "last_helped": None if last is None else iso_utc(last),
        "largest": None if it.largest is None else _effect(advice, it.largest),
        "worst": [_effect(advice, each) for each in it.worst],
        "alone": it.has_hold,
        "estimated": it.estimated,
    }


def _interval(it: Interval | None) -> list[float] | None:
    return None if it is None else [it.low, it.high]


def _effect(advice: ArchiveAdvice, it: Effect) -> dict[str, Any]:
    mark = {"estimated": True} if it.is_estimate else {}
    return {"nats": it.signed, **mark, **_place(advice.places[it.response])}


def _place(it: ResponsePlace) -> dict[str, Any]:
    when, fields = it.responded_at, asdict(it)
    # Of use to name the response in few words only.
    del fields["shares_file"]
    return {**fields, "responded_at": None if when is None else iso_utc(when)}


def _receipt(advice: ArchiveAdvice, it: Receipt) -> dict[str, Any]:
    return {
        "verified_at": iso_utc(it.verified_at),
        "stale": advice.stale or None,
        "proposed": list(it.proposed),
        "keep": [{"key": key, **_joint_effect(it.kept_for[key])} for key in it.kept],
        "rounds": [_removal(each) for each in it.rounds],
        "conversations": it.conversations,
        "calls": it.calls,
        "prompt_tokens": it.prompt_tokens,
        "computed_tokens": it.computed_tokens,
        "unmeasured": list(it.unmeasured),
        "complete": it.is_complete,
    }


def _removal(it: JointRemoval) -> dict[str, Any]:
    effects = {
        name: [_joint_effect(each) for each in getattr(it, name)] for name in ("worst", "best")
    }
    return {**asdict(it), **effects, "net": it.net, "tokens_a_turn": it.tokens_a_turn}


def _joint_effect(it: JointEffect) -> dict[str, Any]:
    return {"nats": it.signed, "limit": it.limit, **_place(it.place)}
