"""Chat templates: ChatML and the model's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from mindhooks import Role, Scorer, ScorerCapabilities, ScorerError
from mindscore.config.settings import parse_settings
from mindscore.conversation.message import Message

RenderChat = Callable[[Sequence[Mapping[str, Any]], bool], Awaitable[str]]
"""Renders messages as a prompt; with true, up to where the model is to speak next."""


class Pieces(NamedTuple):
    """The text that a message adds to the prompt: its header, its content, and the rest.

    The content of a response is the text that the model produced, its end of turn included. Each
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

    async def pieces(self, messages: Sequence[Message]) -> list[Pieces]:
        """Return the pieces of each message."""

    async def piece(self, earlier: Sequence[Message], before: str, message: Message) -> Pieces:
        """Return the pieces of ``message`` after ``earlier`` ones, whose text is ``before``."""


class ChatML:
    """``<|im_start|>ROLE\\nTEXT<|im_end|>\\n``: each message by itself, under its own role.

    Tool calls are ``<tool_call>`` elements after the text.
    """

    async def pieces(self, messages: Sequence[Message]) -> list[Pieces]:
        """Return the pieces of each message."""
        return [await self.piece((), "", it) for it in messages]

    async def piece(self, earlier: Sequence[Message], before: str, message: Message) -> Pieces:
        """Return the pieces of ``message``, which do not depend on earlier ones."""
        del earlier, before
        texts = [message.text] if message.text or not message.tool_calls else []
        text = "\n".join([*texts, *(call.text() for call in message.tool_calls)])
        return Pieces((f"<|im_start|>{message.role}\n",), (text, "<|im_end|>"), ("\n",))


class OwnTemplate:
    """The template that came with the model, if each message only adds to the prompt.

    A template that changes earlier text, as some do that merge or drop messages, has no exact
    prompt without a message: it is refused.
    """

    def __init__(self, render: RenderChat) -> None:
        self._render = render

    async def pieces(self, messages: Sequence[Message]) -> list[Pieces]:
        """Return the pieces of each message.

        Raises:
            ScorerError: the template cannot be taken apart exactly.
        """
        found, before = [], ""
        for at, message in enumerate(messages):
            piece = await self.piece(messages[:at], before, message)
            found.append(piece)
            before += piece.text()
        others = [at for at, message in enumerate(messages) if message.role != Role.MEMORY]
        if len(others) < len(messages):
            without = await self._whole([messages[at] for at in others])
            if without != "".join(found[at].text() for at in others):
                raise self._inexact("without the memories, it prints other messages differently")
        return found

    async def piece(self, earlier: Sequence[Message], before: str, message: Message) -> Pieces:
        """Return the pieces of ``message`` after ``earlier`` ones, whose text is ``before``.

        Raises:
            ScorerError: the template cannot be taken apart exactly.
        """
        number = len(earlier) + 1
        whole = await self._whole([*earlier, message])
        if not whole.startswith(before):
            raise self._inexact(f"message {number} changes what is printed before it")
        for call in message.tool_calls:
            if call.name not in whole[len(before) :]:
                raise self._inexact(f"it does not print the tool call of message {number}")
        if message.role != Role.ASSISTANT:
            return Pieces((whole[len(before) :],), (), ())
        opened = await self._rendered(earlier, True)
        if not opened.startswith(before) or not whole.startswith(opened):
            raise self._inexact(
                f"response {number} does not begin as the prompt that asks for it ends"
            )
        header = opened[len(before) :]
        return Pieces((header,), *_content_and_tail(whole[len(opened) :], message.text))

    async def _whole(self, messages: Sequence[Message]) -> str:
        return await self._rendered(messages, False) if messages else ""

    async def _rendered(self, messages: Sequence[Message], opens_response: bool) -> str:
        try:
            return await self._render([_as_dict(it) for it in messages], opens_response)
        except ScorerError:
            raise
        # Templates raise what they like.
        except Exception as error:
            raise self._inexact(f"it refuses {len(messages)} messages: {error}") from error

    @staticmethod
    def _inexact(reason: str) -> ScorerError:
        return ScorerError(
            f"the model's chat template cannot be taken apart exactly ({reason}): "
            'use server.chat_template = "chatml", or token_ids'
        )


def _as_dict(message: Message) -> dict[str, Any]:
    """Return the shape that templates are written for; a memory is a system message to them."""
    role = Role.SYSTEM if message.role == Role.MEMORY else message.role
    line: dict[str, Any] = {"role": str(role), "content": message.text}
    if message.tool_calls:
        line["tool_calls"] = [
            {"type": "function", "function": {"name": it.name, "arguments": it.arguments}}
            for it in message.tool_calls
        ]
    return line


def _content_and_tail(printed: str, text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split a printed response after its end of turn: white space may follow that."""
    content = printed.rstrip()
    if content == text.rstrip():
        # No end of turn is printed: all of it is the response.
        return (printed,), ()
    return (content,), (printed[len(content) :],) if len(content) < len(printed) else ()


def template_of(scorer: Scorer, tables: Mapping[str, Any]) -> Template:
    """Return ChatML or, with ``server.chat_template = "auto"``, the model's own template.

    Raises:
        ScorerError: the scorer cannot render the model's template.
    """
    if parse_settings(tables).server.chat_template == "chatml":
        return ChatML()
    render = ScorerCapabilities.of(scorer).render_chat
    if render is None:
        raise ScorerError(
            'server.chat_template = "auto" needs the model\'s own template, which this scorer does '
            'not have: use the local scorer, "chatml", or token_ids in the transcript'
        )
    return OwnTemplate(render)
