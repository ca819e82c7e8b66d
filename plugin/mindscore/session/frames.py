"""A result as a DataFrame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mindhooks import MindCommand
from mindscore._util.errors import UsageError
from mindscore.flows.compare import COMMAND
from mindscore.measure.comparison import ComparedResponse
from mindscore.session.result import Result

WITH, WITHOUT = ("with", "with_other"), ("without", "without_other")
"""Columns of both models' log-probabilities, with all memories and with none."""


def frame(result: Result) -> Any:
    """Return the DataFrame that ``Result.to_pandas`` describes.

    Raises:
        UsageError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise UsageError(
            f"to_pandas needs pandas ({error}); install it with: pip install pandas"
        ) from error
    numbers = {"divergence": float, "noise": float}
    if result.command == COMMAND:
        numbers = dict.fromkeys((*WITH, *WITHOUT, "difference", "noise"), float)
        names = ["conversation", "entry_idx", "node_id", *numbers, "text", "other_text"]
        compared = result.comparison.responses if result.comparison is not None else ()
        rows = [_compared(it) for it in compared]
    elif result.command == MindCommand.SCORE_FINETUNE:
        names = ["entry_idx", "node_id", *numbers]
        names += ["response_text", "alternate_text", "prior_context"]
        rows = [{name: getattr(it, name) for name in names} for it in result.candidates]
    else:
        numbers |= {"signed": float, "hold": float}
        names = ["key", "entry_idx", "node_id", "divergence", "signed", "noise", "hold"]
        rows = list(_rows(result))
    return pandas.DataFrame(rows, columns=names).astype({"entry_idx": int, **numbers})


def _compared(it: ComparedResponse) -> dict[str, Any]:
    return {
        "conversation": it.conversation,
        "entry_idx": it.entry_idx,
        "node_id": it.node_id,
        **dict(zip(WITH, it.with_, strict=True)),
        **dict(zip(WITHOUT, it.without, strict=True)),
        "difference": it.difference,
        "noise": it.limit,
        "text": it.text,
        "other_text": it.other_text,
    }


def _rows(result: Result) -> Iterator[dict[str, Any]]:
    for score_ in result.scores.values():
        holds = {it.node_id: it.divergence for it in score_.hold or ()}
        for cell in score_.divergences:
            yield {
                "key": score_.key,
                "entry_idx": cell.entry_idx,
                "node_id": cell.node_id,
                "divergence": cell.divergence,
                "signed": cell.signed,
                "noise": cell.noise,
                "hold": holds.get(cell.node_id),
            }
