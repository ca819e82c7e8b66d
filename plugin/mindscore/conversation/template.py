"""Chat templates: ChatML and the model's own."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from mindhooks import Scorer, ScorerCapabilities, ScorerError
from mindscore.config.settings import parse_settings


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What a response asked of a tool; ``arguments`` are JSON text."""

    name: str
    arguments: str

    def text(self) -> str:
        """As Hermes-style ChatML templates print it."""
        return f'<tool_call>\n{{"name": {json.dumps(self.name)}, "arguments": {self.arguments}}}\n</tool_call>'  # noqa: E501


RenderChat = Callable[[Sequence[Mapping[str, Any]], bool], Awaitable[str]]
"""The prompt of messages; with true, up to where the model is to speak next."""


class Line(NamedTuple):
    """A message as a template takes it."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The shape that templates are written for; a memory is a system message to them."""
        role = "system" if self.role == "memory" else self.role
        line: dict[str, Any] = {"role": role, "content": self.content}
        if self.tool_calls:
            line["tool_calls"] = [
                {"type": "function", "function": {"name": it.name, "arguments": it.arguments}}
                for it in self.tool_calls
            ]
        return line


class Pieces(NamedTuple):
    """What a message adds to the prompt: its header, what is said, and what follows that.

    Of a response, ``said`` is what the model produced, its end of turn included. Each text is
    tokenised by itself.
    """

    header: tuple[str, ...]
    said: tuple[str, ...]
    tail: tuple[str, ...]

    def text(self) -> str:
        """All of it."""
        return "".join((*self.header, *self.said, *self.tail))


class Template(Protocol):
    """How messages become a prompt."""

    async def pieces(self, lines: Sequence[Line]) -> list[Pieces]:
        """What each message adds."""

    async def variant(self, lines: Sequence[Line], at: int, line: Line) -> Pieces:
        """What ``line`` would add in the place of the message at ``at``."""


class ChatML:
    """``<|im_start|>ROLE\\nTEXT<|im_end|>\\n``, each message by itself, its own role named."""

    async def pieces(self, lines: Sequence[Line]) -> list[Pieces]:
        """What each message adds; tool calls as ``<tool_call>`` elements behind the text."""
        return [await self.variant(lines, at, line) for at, line in enumerate(lines)]

    async def variant(self, lines: Sequence[Line], at: int, line: Line) -> Pieces:
        """What ``line`` would add in the place of the message at ``at``."""
        del lines, at
        said = [line.content] if line.content or not line.tool_calls else []
        text = "\n".join([*said, *(call.text() for call in line.tool_calls)])
        return Pieces((f"<|im_start|>{line.role}\n",), (text, "<|im_end|>"), ("\n",))


class OwnTemplate:
    """The template that came with the model, where each message adds to the prompt and no more.

    A template that changes what is before, as some do that merge or drop messages, has no exact
    prompt without a message: it is refused.
    """

    def __init__(self, render: RenderChat) -> None:
        self._render = render

    async def pieces(self, lines: Sequence[Line]) -> list[Pieces]:
        """What each message adds.

        Raises:
            ScorerError: the template cannot be taken apart exactly.
        """
        found, before = [], ""
        for at, line in enumerate(lines):
            piece = await self._piece(lines[:at], line, before)
            found.append(piece)
            before += piece.text()
        spoken = [at for at, line in enumerate(lines) if line.role != "memory"]
        if len(spoken) < len(lines):
            without = await self._whole([lines[at] for at in spoken])
            if without != "".join(found[at].text() for at in spoken):
                raise self._inexact("without the memories, it prints other messages differently")
        return found

    async def variant(self, lines: Sequence[Line], at: int, line: Line) -> Pieces:
        """What ``line`` would add in the place of the message at ``at``.

        Raises:
            ScorerError: the template cannot be taken apart exactly.
        """
        return await self._piece(lines[:at], line, await self._whole(lines[:at]))

    async def _piece(self, earlier: Sequence[Line], line: Line, before: str) -> Pieces:
        number = len(earlier) + 1
        whole = await self._whole([*earlier, line])
        if not whole.startswith(before):
            raise self._inexact(f"message {number} changes what is printed before it")
        for call in line.tool_calls:
            if call.name not in whole[len(before) :]:
                raise self._inexact(f"it does not print the tool call of message {number}")
        if line.role != "assistant":
            return Pieces((whole[len(before) :],), (), ())
        opened = await self._opened(earlier)
        if not opened.startswith(before) or not whole.startswith(opened):
            raise self._inexact(f"it prints response {number} otherwise than it asks for it")
        return Pieces((opened[len(before) :],), *_said(whole[len(opened) :], line.content))

    async def _whole(self, lines: Sequence[Line]) -> str:
        return await self._rendered(lines, False) if lines else ""

    async def _opened(self, lines: Sequence[Line]) -> str:
        return await self._rendered(lines, True)

    async def _rendered(self, lines: Sequence[Line], asks: bool) -> str:
        try:
            return await self._render([line.as_dict() for line in lines], asks)
        except ScorerError:
            raise
        # Templates raise what they like.
        except Exception as error:
            raise self._inexact(f"it refuses {len(lines)} messages: {error}") from error

    @staticmethod
    def _inexact(why: str) -> ScorerError:
        return ScorerError(
            f"the model's chat template cannot be taken apart exactly ({why}): "
            'use server.chat_template = "chatml", or token_ids'
        )


def _said(rest: str, content: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A response up to its end of turn, and the white space behind that."""
    said = rest.rstrip()
    if said == content.rstrip():
        # No end of turn is printed: what there is, is the response.
        return (rest,), ()
    return (said,), (rest[len(said) :],) if len(said) < len(rest) else ()


def template_of(scorer: Scorer, tables: Mapping[str, Any]) -> Template:
    """ChatML, or with ``"auto"`` the model's own template.

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
