"""Which answers to a candidate's prompt may be trained on, and what an edited one is made of."""

from __future__ import annotations

from collections.abc import Sequence

from mindhooks import FinetuneCandidate, MindhooksError, Scorer
from mindscore.errors import reason
from mindscore.store import Reviewed

LONGEST_ENDING = 4
"""Tokens: what is longer than that says more than that the turn ends."""

INSTEAD = "choose another answer, or reject it"


class AnswerError(MindhooksError):
    """An answer cannot be trained on; the text says why, and what can be done."""


def unusable_alternate(candidate: FinetuneCandidate) -> str | None:
    """Why what the model says without memories is no answer to train on; ``None`` where it is."""
    if candidate.alternate_text is None:
        return "what the model would have said was not asked for (finetune.generate_alternates)"
    if candidate.alternate_ids is None:
        return "the model server gave its text, and not its tokens"
    if candidate.alternate_ids[-1:] != candidate.continuation_ids[-1:]:
        return (
            "it does not end as the response does: it was cut off at "
            "finetune.max_alternate_tokens, or ended otherwise"
        )
    if len(candidate.alternate_ids) == 1:
        return "it is empty"
    return None


async def edited_ids(text: str, item: Reviewed, scorer: Scorer) -> tuple[int, ...]:
    """The ids of ``text`` as the answer to a candidate: its own, then the response's end of turn.

    Raises:
        AnswerError: it cannot be tokenised as the response was, or says nothing, or more than one
            turn.
    """
    if not text.strip():
        raise AnswerError("an edited answer cannot be empty")
    if scorer.model != item.model:
        raise AnswerError(
            f"it cannot be edited: it was found with the model {item.model!r}, and server.model is "
            f"now {scorer.model!r}, which may have other tokens; {INSTEAD}"
        )
    try:
        said = await scorer.tokenize(item.candidate.response_text)
        ids = await scorer.tokenize(text)
    except MindhooksError as error:
        raise AnswerError(f"it cannot be tokenised: {reason(error)}; {INSTEAD}") from error
    ending = _ending(item.candidate.continuation_ids, said)
    if set(ending) & set(ids):
        raise AnswerError("the text itself holds the end of a turn: take that out")
    return (*ids, *ending)


def _ending(continuation_ids: Sequence[int], said: Sequence[int]) -> tuple[int, ...]:
    """What follows in a response after the ids of its text."""
    ending = tuple(continuation_ids[len(said) :])
    if list(continuation_ids[: len(said)]) != list(said):
        raise AnswerError(
            "it cannot be edited: the response's own tokens are not those that the model's "
            f"tokenizer makes of its text; {INSTEAD}"
        )
    if not ending:
        raise AnswerError(f"it cannot be edited: the response has no end of turn; {INSTEAD}")
    if len(ending) > LONGEST_ENDING:
        raise AnswerError(
            "it cannot be edited: the response goes on after its text, as with a call of a tool; "
            f"{INSTEAD}"
        )
    return ending
