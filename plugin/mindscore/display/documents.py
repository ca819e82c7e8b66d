"""Results as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from mindhooks import FinetuneCandidate, MindCommand, ResponseDivergence
from mindscore._util.text import iso_utc
from mindscore.display.comparison import comparison_fields
from mindscore.flows.compare import COMMAND
from mindscore.session.plan import Plan
from mindscore.session.result import Result
from mindscore.store import KnownScore, Reviewed

# The statistics of a run that wrote none.
SPENT = {"calls": 0, "prompt_tokens": 0, "computed_tokens": None, "seconds": 0.0}
UNKNOWN: dict[str, dict[str, None]] = {
    MindCommand.SCORE_FINETUNE: dict.fromkeys(
        ("responses_considered", "above_threshold", "threshold", "max_divergence")
    )
}


def document(result: Result) -> dict[str, Any]:
    """Return the document that ``--json`` prints."""
    head = {
        "command": result.command,
        "model": result.model,
        **with_remarks(result.remarks),
    }
    if result.command == MindCommand.SCORE_FINETUNE:
        found: dict[str, Any] = {"candidates": [_fields(it) for it in result.candidates]}
        for fields, reviewed in zip(found["candidates"], result.reviewed, strict=False):
            fields |= _decision(reviewed)
    elif result.command == MindCommand.SCORE_FULL:
        found = _matrix(result)
    elif result.command == COMMAND:
        found = {"remarks": result.all_remarks, **comparison_fields(result.comparison)}
    elif result.measured is not None:
        known = result.known.values()
        found = {"scores": [{"key": it.key, **_last(it), "count": it.count} for it in known]}
    else:
        found = {"scores": [_memory(result, key) for key in result.keys]}
        if result.command != MindCommand.SCORE:
            found["candidates"] = [_fields(it) for it in result.candidates]
    if result.measured is not None:
        return {**head, **found, "measured": [iso_utc(it) for it in result.measured]}
    return {**head, **found, "stats": _stats(result)}


def with_remarks(remarks: Sequence[str]) -> dict[str, Any]:
    """Return the remarks on a transcript as a field, if there are any."""
    return {"remarks": list(remarks)} if remarks else {}


def plan_document(plan: Plan, remarks: Sequence[str]) -> dict[str, Any]:
    """Return the document that ``mindscore plan --json`` prints."""
    return {
        "command": "plan",
        "flow": plan.command,
        "model": plan.model,
        **with_remarks(remarks),
        "memories": [
            {"key": key, "status": "to-score" if it.status == "scored" else it.status}
            for key, it in plan.outcomes.items()
        ],
        "calls": plan.calls,
        "prompt_tokens": plan.prompt_tokens,
        "computed_tokens": plan.computed_tokens,
        "confirming_calls": plan.confirming_calls,
        "confirming_tokens": plan.confirming_tokens,
        "alternates": plan.alternates,
        "seconds": plan.times.total,
        "loading_seconds": plan.times.loading,
        "scoring_seconds": plan.times.scoring,
        "confirming_seconds": plan.times.confirming,
        "generating_seconds": plan.times.generating,
        "speed": plan.speed,
        **({"is_limit": True} if plan.is_limit else {}),
        "not_planned": list(plan.not_planned),
        "error": plan.error,
    }


def _memory(result: Result, key: str) -> dict[str, Any]:
    outcome, score, known = result.outcome(key), result.scores.get(key), result.known.get(key)
    return {
        "key": key,
        "status": outcome.status,
        "score": score.score if score else None,
        "error": outcome.error,
        "divergences": [_fields(it) for it in score.divergences] if score else [],
        **(_last(known) if known else {}),
    }


def _last(known: KnownScore) -> dict[str, Any]:
    return {"last_score": known.score, "last_scored": iso_utc(known.scored_at)}


def _decision(reviewed: Reviewed) -> dict[str, Any]:
    """Return when a stored candidate was found, what was decided on it, and who took it."""
    review = reviewed.review
    return {
        "found": iso_utc(reviewed.found_at),
        "decision": review and review.decision,
        "answer": review and review.answer,
        "decided": iso_utc(review.decided_at) if review else None,
        "trained_by": list(reviewed.sinks),
    }


def _fields(value: ResponseDivergence | FinetuneCandidate) -> dict[str, Any]:
    """Return a value as JSON, with ``noise`` where it was measured, and without ``tokens``."""
    fields: dict[str, Any] = msgspec.to_builtins(value)
    fields.pop("tokens", None)
    if value.noise is None:
        del fields["noise"]
    return fields


def _matrix(result: Result) -> dict[str, Any]:
    responses = result.transcript.responses()
    scores = [result.scores.get(key) for key in result.keys]
    drop = [score.divergences if score else () for score in scores]
    hold = [(score.hold or ()) if score else () for score in scores]
    found: dict[str, Any] = {
        "memories": list(result.keys),
        "responses": [{"entry_idx": index, "node_id": id_} for index, id_ in responses],
        "matrix": _cells(drop, "divergence", responses),
        "signed": _cells(drop, "signed", responses),
    }
    if any(cell.noise is not None for row in drop for cell in row):
        found["noise"] = _cells(drop, "noise", responses)
    if result.placebo is not None:
        spread = result.placebo.spread
        found["placebo"] = {
            "memories": list(result.placebo.keys),
            "spread": [spread.get(id_) for _, id_ in responses],
        }
    if any(score is not None and score.hold is not None for score in scores):
        found["hold"] = _cells(hold, "divergence", responses)
        found["hold_signed"] = _cells(hold, "signed", responses)
    # The store has these of a matrix, and no holds.
    if result.redundant or "hold" in found:
        found["redundant"] = msgspec.to_builtins(result.redundant)
    if result.interactions or "hold" in found:
        found["interactions"] = msgspec.to_builtins(result.interactions)
    if result.screen is not None or result.estimates:
        found["screen"] = _screen(result)
    return found


def _screen(result: Result) -> dict[str, Any]:
    """Return the receipt's fields, with a memory's estimates by the index of each response.

    Of a matrix from the store, which keeps no receipt, there are the estimates alone.
    """
    receipt, fields = result.screen, dict[str, Any]()
    entries: dict[str, dict[str, float]] = {}
    if receipt is not None:
        fields = msgspec.to_builtins(replace(receipt, estimates=()))
        entries = {key: {} for key in receipt.estimated}
    for it in result.estimates:
        entries.setdefault(it.key, {})[str(it.entry_idx)] = it.nats
    fields["estimates"] = [{"key": key, "entries": its} for key, its in entries.items()]
    return fields


def _cells(
    rows: list[tuple[ResponseDivergence, ...]], value: str, responses: list[tuple[int, str]]
) -> list[list[float | None]]:
    """Return one value per memory and response, ``None`` where it was not measured."""
    by_id = [{cell.node_id: getattr(cell, value) for cell in row} for row in rows]
    return [[cells.get(id_) for _, id_ in responses] for cells in by_id]


def _stats(result: Result) -> dict[str, Any]:
    stats: dict[str, Any] = msgspec.to_builtins(result.stats) if result.stats else {}
    stats.pop("outcomes", None)
    return {**UNKNOWN.get(result.command, {}), **SPENT, **stats, "error": result.error}
