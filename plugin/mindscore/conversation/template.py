"""Chat templates, taken apart message by message; ChatML is one."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from mindhooks import ScorerError
from mindscore._util.text import count_of
from mindscore.conversation.message import PLACEHOLDER, Message

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

    def behind(self, opening: str) -> Pieces:
        """Return the pieces without ``opening``, with which they begin.

        Raises:
            LooksBackError: they do not.
        """
        header = "".join(self.header)
        if not header.startswith(opening):
            raise LooksBackError("a prompt begins differently without a memory")
        return self._replace(header=(header[len(opening) :],)) if opening else self


class Template(Protocol):
    """A chat template, taken apart message by message."""

    opening: str
    """Text in front of whatever message is the first: with the first pieces, but not of them."""

    async def begin(self, messages: Sequence[Message], tools: Tools, before: int = 0) -> None:
        """Get ready for a conversation, whose model had ``tools``.

        The first ``before`` messages stand in front of every part of it.
        """

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
    are not printed. An image that is left out is a line of its own, before the text.
    """

    opening = ""

    def __init__(self) -> None:
        self._tools: Tools = ()

    async def begin(self, messages: Sequence[Message], tools: Tools, before: int = 0) -> None:
        """Take note of the definitions of tools, which are not printed."""
        del messages, before
        self._tools = tools

    async def pieces(self, messages: Sequence[Message]) -> list[Pieces]:
        """Return the pieces of each message."""
        return [await self.piece((), it) for it in messages]

    async def piece(self, earlier: Sequence[Message], message: Message) -> Pieces:
        """Return the pieces of ``message``, which do not depend on earlier ones."""
        del earlier
        if message.is_image_alone:
            return Pieces((f"<|im_start|>{message.role}\n",), (), ("<|im_end|>", "\n"))
        texts = [message.printed] if message.printed or not message.tool_calls else []
        text = "\n".join([*texts, *(call.text() for call in message.tool_calls)])
        return Pieces((f"<|im_start|>{message.role}\n",), (text, "<|im_end|>"), ("\n",))

    async def remarks(self, messages: Sequence[Message]) -> list[str]:
        """Return a line for each thing that the messages have and ChatML does not print."""
        found = unprinted(messages, self._tools, "ChatML")
        return [*found, *images_left_out(messages, [PLACEHOLDER])]


def unprinted(messages: Sequence[Message], tools: Tools, template: str) -> list[str]:
    """Return a line on the reasoning and the tools that ``template`` does not print."""
    found = []
    if thought := sum(bool(it.reasoning) for it in messages):
        reasoning = count_of(thought, "response")
        found.append(f"the reasoning of {reasoning} is left out: {template} does not print it")
    if tools:
        found.append(f"the definitions of the tools are left out: {template} does not print them")
    return found


def images_left_out(messages: Sequence[Message], placeholders: Sequence[str]) -> list[str]:
    """Return a line on the images that are left out, if any, and on what stands in their place."""
    count, shown = sum(it.placeholders for it in messages), sum(it.shown for it in messages)
    if not count:
        return []
    said = f"{count_of(count, 'image')} {'is' if count == 1 else 'are'} left out"
    of_them = "" if count == 1 else " for each" if shown == count else f" for {shown} of them"
    if shown:
        said += f": the model was given a placeholder{of_them}, {' or '.join(placeholders)}"
    if recorded := sum(it.placeholders for it in messages if it.token_ids is not None):
        whose = "its message" if recorded == 1 else f"the messages of {recorded} of them"
        said += f"; the token ids of {whose} are sent as they are recorded"
    return [said]
