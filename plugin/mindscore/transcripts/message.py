"""One message of a transcript, before it is tokenised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mindhooks import Image, Part, Role
from mindscore.chat.template import Line
from mindscore.chat.tool_call import ToolCall


@dataclass(frozen=True, slots=True)
class Message:
    """What a file says of one message; ``token_ids`` and ``body`` where it gives them."""

    id: str
    role: Role
    text: str
    key: str | None
    parts: tuple[Part, ...]
    timestamp_ns: int | None
    images: tuple[Image, ...]
    token_ids: tuple[int, ...] | None
    body: tuple[int, int] | None
    tool_calls: tuple[ToolCall, ...] = ()
    without: Callable[[frozenset[str]], str] | None = None
    """How its host prints it without some of its memories, where not just without their parts."""

    def memory_keys(self) -> list[str]:
        """The memory keys it bears, its own first."""
        keys = [self.key, *(part.memory_key for part in self.parts)]
        return [key for key in keys if key is not None]

    def line(self, text: str | None = None) -> Line:
        """The message as a chat template takes it; with ``text`` in the place of its own."""
        return Line(self.role, self.text if text is None else text, self.tool_calls)

    def text_without(self, skipped: frozenset[str]) -> str:
        """What it would say without some of its memories."""
        if self.without is not None:
            return self.without(skipped)
        return "".join(part.text for part in self.parts if part.memory_key not in skipped)
