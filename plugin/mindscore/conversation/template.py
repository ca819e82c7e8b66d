"""Chat templates, taken apart message by message; ChatML is one."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from mindhooks import ScorerError
from mindscore._util.text import count_of
from mindscore.conversation.message import Message

Tools = Sequence[Mapping[str, Any]]


class RenderChat(Protocol):
    """Renders messages as a prompt by the model's own template.

    With ``add_generation_prompt``, it goes up to where the model is to speak next.
    """

    def __call__(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Tools = (),
        /,
    ) -> Awaitable[str]: ...


class Pieces(NamedTuple):
    """The text that a message adds to the prompt: its header, its content, and the rest.

    The content of a response is the text that the model produced, its end of turn included; what
    the template itself begins a response with, such as an empty thought, is of the header. Each
    string is tokenised by itself.
    """

    header: tuple[str, ...]
    content: tuple[str, ...]
    tail: tuple[str, ...]

    def text(self) -> str:
        """Return all of it."""
        return "".join((*self.header, *self.content, *self.tail))


class Template(Protocol):
    """A chat template, taken apart message by message."""

    async def begin(self, messages: Sequence[Message], tools: Tools) -> None:
        """Get ready for a conversation, whose model had ``tools``."""

    async def pieces(self, messages: Sequence[Message]) -> list[Pieces]:
        """Return the pieces of each message."""

    async def piece(self, earlier: Sequence[Message], message: Message) -> Pieces:
        """Return the pieces of ``message`` after ``earlier`` ones."""

    async def remarks(self, messages: Sequence[Message]) -> list[str]:
        """Return a line for each thing that is not printed as the messages have it."""


class NoTemplateError(ScorerError):
    """The model has no chat template of its own, or nobody here knows it."""


class LooksBackError(Exception):
    """The template prints a message differently when another one follows, or is left out."""


class ChatML:
    """``<|im_start|>ROLE\\nTEXT<|im_end|>\\n``: each message by itself, under its own role.

    Tool calls are ``<tool_call>`` elements after the text. Reasoning and the definitions of tools
    are not printed.
    """

    def __init__(self) -> None:
        self._tools: Tools = ()

    async def begin(self, messages: Sequence[Message], tools: Tools) -> None:
        """Take note of the definitions of tools, which are not printed."""
        del messages
        self._tools = tools

    async def pieces(self, messages: Sequence[Message]) -> list[Pieces]:
        """Return the pieces of each message."""
        return [await self.piece((), it) for it in messages]

    async def piece(self, earlier: Sequence[Message], message: Message) -> Pieces:
        """Return the pieces of ``message``, which do not depend on earlier ones."""
        del earlier
        texts = [message.text] if message.text or not message.tool_calls else []
        text = "\n".join([*texts, *(call.text() for call in message.tool_calls)])
        return Pieces((f"<|im_start|>{message.role}\n",), (text, "<|im_end|>"), ("\n",))

    async def remarks(self, messages: Sequence[Message]) -> list[str]:
        """Return a line for each thing that the messages have and ChatML does not print."""
        return unprinted(messages, self._tools, "ChatML")


def unprinted(messages: Sequence[Message], tools: Tools, template: str) -> list[str]:
    """Return a line on the reasoning and the tools that ``template`` does not print."""
    found = []
    if thought := sum(bool(it.reasoning) for it in messages):
        reasoning = count_of(thought, "response")
        found.append(f"the reasoning of {reasoning} is left out: {template} does not print it")
    if tools:
        found.append(f"the definitions of the tools are left out: {template} does not print them")
    return found
