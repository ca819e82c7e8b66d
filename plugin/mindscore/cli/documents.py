"""Results as JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from mindhooks import MemoryScore, MindCommand
from mindscore.cli.result import Result

# What a run that wrote no statistics has spent, and what is not known of it.
SPENT = {"calls": 0, "prompt_tokens": 0, "computed_tokens": None, "seconds": 0.0}
UNKNOWN = {
    MindCommand.SCORE_FINETUNE: dict.fromkeys(
        ("responses_considered", "above_threshold", "threshold", "max_divergence")
    )
}


def document(result: Result) -> dict[str, Any]:
    """The document that ``--json`` prints."""
    head = {"command": result.command, "model": result.model}
    if result.command == MindCommand.SCORE_FINETUNE:
        found: dict[str, Any] = {"candidates": msgspec.to_builtins(result.candidates)}
    elif result.command == MindCommand.SCORE_FULL:
        found = _matrix(result)
    else:
        found = {"scores": [_memory(result, key) for key in result.keys]}
    return {**head, **found, "stats": _stats(result)}


def _memory(result: Result, key: str) -> dict[str, Any]:
    outcome, score = result.outcome(key), result.scores.get(key)
    return {
        "key": key,
        "status": outcome.status,
        "score": score.score if score else None,
        "error": outcome.error,
        "divergences": msgspec.to_builtins(score.divergences) if score else [],
    }


def _matrix(result: Result) -> dict[str, Any]:
    responses = result.transcript.responses()
    rows = [result.scores.get(key) for key in result.keys]
    return {
        "memories": list(result.keys),
        "responses": [{"entry_idx": index, "node_id": id_} for index, id_ in responses],
        "matrix": [_row(row, "divergence", responses) for row in rows],
        "signed": [_row(row, "signed", responses) for row in rows],
    }


def _row(
    row: MemoryScore | None, value: str, responses: list[tuple[int, str]]
) -> list[float | None]:
    """One value per response; ``None`` where nothing was measured."""
    cells = {cell.node_id: getattr(cell, value) for cell in row.divergences} if row else {}
    return [cells.get(id_) for _, id_ in responses]


def _stats(result: Result) -> dict[str, Any]:
    stats: dict[str, Any] = msgspec.to_builtins(result.stats) if result.stats else {}
    stats.pop("outcomes", None)
    return {**UNKNOWN.get(MindCommand(result.command), {}), **SPENT, **stats, "error": result.error}
