"""The tokens that a pass may send, shared by conversations that are scored at once."""

from __future__ import annotations

from mindhooks import Context, MindCommand
from mindscore.measure.memories import find_memories


class TokenBudget:
    """Grants tokens of ``limit``; ``None``: any number."""

    def __init__(self, limit: int | None) -> None:
        self._left = limit

    @property
    def is_limited(self) -> bool:
        """True if there is a limit."""
        return self._left is not None

    def may_fit(self, tokens: int) -> bool:
        """Return whether a conversation of ``tokens``, which are an estimate, may fit."""
        return self._left is None or 0 < self._left >= tokens // 2

    def reserve(self, most: int) -> int | None:
        """Take as many as are left, ``most`` at most; ``None``: there is no limit."""
        if self._left is None:
            return None
        granted = min(most, self._left)
        self._left -= granted
        return granted

    def settle(self, granted: int | None, spent: int) -> None:
        """Give back what was not spent of what was granted."""
        if self._left is not None and granted is not None:
            self._left = max(0, self._left + granted - spent)


def most_tokens(context: Context, command: str, *, hold: bool, repeats: int) -> int:
    """Return the most tokens that ``command`` sends of a conversation, groups left out.

    ``repeats``: how often a baseline is scored again.
    """
    nodes = (*context.system, *context.identity, *context.conversation)
    tokens = sum(len(node.token_ids) for node in nodes)
    if command == MindCommand.SCORE_FINETUNE:
        return tokens * (2 + repeats)
    memories = len(find_memories(context))
    # Of score, each memory may have a window, and so a baseline, of its own.
    baselines = memories if command == MindCommand.SCORE else 1
    return tokens * ((1 + repeats) * baselines + memories) * (1 + hold)
