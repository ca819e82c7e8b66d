"""A tokenizer that is asked for each text once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

Tokenize = Callable[[str], Awaitable[list[int]]]


class OnceTokenizer:
    """Remembers what it tokenised: a response keeps its ids as its conversation goes on.

    ``forget_others`` drops what was not asked for since it was last called: the texts that the
    conversation no longer has.
    """

    def __init__(self, tokenize: Tokenize) -> None:
        self._tokenize = tokenize
        self._known: dict[str, list[int]] = {}
        self._used: set[str] = set()

    async def __call__(self, text: str) -> list[int]:
        """The ids of ``text``."""
        self._used.add(text)
        if text not in self._known:
            self._known[text] = await self._tokenize(text)
        return self._known[text]

    def forget_others(self) -> None:
        """Keep only what was asked for since the last time."""
        self._known = {text: ids for text, ids in self._known.items() if text in self._used}
        self._used = set()
