"""Fragments in a message of llm's: how llm prints them, and what it prints without some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mindscore.chat.message import ChatMessage
from mindscore.recognisers import Block, Entry

Kind = Literal["prompt", "system"]
KINDS: dict[str, Kind] = {"user": "prompt", "system": "system"}
"""The roles whose messages print fragments."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """A stored fragment; ``key`` is its alias, else its source, else the start of its hash."""

    key: str
    content: str


def marked(message: ChatMessage, fragments: Sequence[Fragment], kind: Kind) -> ChatMessage | None:
    """The message with its fragments marked; ``None`` where it does not print them.

    llm joins them by line breaks before the prompt (``Prompt.prompt``), or stripped, by empty
    lines, before the system prompt (``_combine_system``). A message that is one fragment and
    nothing else is not sent without it.
    """
    printed, joiner = list(fragments), "\n"
    if kind == "system":
        printed = [Fragment(it.key, it.content.strip()) for it in fragments]
        printed, joiner = [it for it in printed if it.content], "\n\n"
    joined = joiner.join(it.content for it in printed)
    alone = message.text == joined
    if not joined or not (alone or message.text.startswith(joined + joiner)):
        return None
    keys = {it.key for it in printed}
    if alone and len(keys) == 1 and not message.images:
        return replace(message, memory_key=keys.pop())
    after = "" if alone else joiner
    entries = dict.fromkeys(Entry(it.key, it.content) for it in printed if it.content)

    def render(skipped: frozenset[str]) -> str:
        left = [it.content for it in printed if it.key not in skipped]
        return joiner.join(left) + after if left else ""

    return replace(message, blocks=(Block(0, len(joined + after), tuple(entries), render),))


def prompt_text(fragments: Sequence[Fragment], prompt: str | None) -> str:
    """A user message as llm puts it together."""
    return "\n".join([it.content for it in fragments] + ([prompt] if prompt else []))


def system_text(fragments: Sequence[Fragment], system: str | None) -> str:
    """A system prompt as llm puts it together."""
    bits = [*(it.content for it in fragments), system or ""]
    return "\n\n".join(bit.strip() for bit in bits if bit.strip())
