"""Messages as ChatML: ``<|im_start|>ROLE\\nTEXT<|im_end|>\\n``, as token ids."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

Tokenize = Callable[[str], Awaitable[list[int]]]


class ChatML:
    """Renders messages with one tokenizer.

    Header, text with end-of-turn, and the newline after it are tokenised one by one, as a server
    sees them: the header is given to it, the text and the end-of-turn are the model's own.
    """

    def __init__(self, tokenize: Tokenize) -> None:
        self._tokenize = tokenize
        self._fixed: dict[str, Sequence[int]] = {}

    async def render(self, role: str, text: str) -> tuple[tuple[int, ...], tuple[int, int]]:
        """The message's ids, and the span in them of text and end-of-turn."""
        header = await self._once(f"<|im_start|>{role}\n")
        body = [*await self._tokenize(text), *await self._once("<|im_end|>")]
        ids = (*header, *body, *await self._once("\n"))
        return ids, (len(header), len(header) + len(body))

    async def _once(self, text: str) -> Sequence[int]:
        if text not in self._fixed:
            self._fixed[text] = await self._tokenize(text)
        return self._fixed[text]
