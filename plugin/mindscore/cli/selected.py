"""The candidates to train on, as the commands choose them, and what is said of the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mindscore.cli.models import one_model
from mindscore.config_file import Configuration
from mindscore.sinks.selection import Selection, select
from mindscore.store import Reviews

NO_CANDIDATES = "no candidates are kept: mindscore score CONVERSATION --finetune finds some"

PROMPTS = {"bare": "without memories", "full": "with memories"}
"""What is said of the prompts, by ``train.context``."""


class Selected(NamedTuple):
    """Of which model, and what; the model is ``None`` where there are no candidates."""

    model: str | None
    selection: Selection


async def selected(
    configuration: Configuration, model: str | None, *, unreviewed: bool
) -> Selected:
    """The candidates of ``model``, the only or the configured one, that are to be trained on.

    Raises:
        UsageError: no candidates of that model are kept, or it has to be said which.
    """
    queue = await Reviews(configuration.settings.store).queue()
    models = {it.model for it in queue}
    chosen = await one_model(models, model, configuration, "candidates")
    mine = [it for it in queue if it.model == chosen]
    return Selected(chosen, select(mine, configuration.settings, unreviewed=unreviewed))


def counted(responses: int, tokens: int) -> str:
    """So many responses, and their tokens with those of their prompts."""
    return f"{responses:,} responses ({tokens:,} tokens)"


def unselected(selection: Selection) -> Iterator[str]:
    """How many candidates are not selected, and why; what there is none of is not said."""
    if selection.waiting:
        yield f"{selection.waiting} wait for review: mindscore review, or --unreviewed"
    if selection.rejected:
        yield f"{selection.rejected} rejected in review"


def without_other(count: int) -> Iterator[str]:
    """How many have no answer but the chosen one, if any."""
    if count:
        yield f"{count} without another answer that the chosen one is preferred to"


def remarks(inexact: int) -> Iterator[str]:
    """What is to be known of texts, if anything."""
    if inexact:
        yield (
            f"{inexact} of the texts, tokenised, are other tokens than were measured: "
            "only the format input_ids is exact there"
        )
