"""A base class for the scorers of servers that render messages themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mindscore.scorers.remote.base import RemoteScorer
from mindscore.scorers.remote.chat import ServerTemplate


class RenderingScorer(RemoteScorer):
    """A scorer whose server prints messages by the chat template that it has of its model."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        super().__init__(table)
        self._chat = ServerTemplate(self._token_ids, self.tokenize, self.detokenize)
        self._bos: tuple[int, ...] | None = None

    @property
    def bos(self) -> tuple[int, ...]:  # type: ignore[override]
        """The ids that ``server.tokenizer``, or else the server, puts before every text.

        The server's are known once it has rendered messages.
        """
        return super().bos if self._tokenizer is not None else self._bos or ()

    async def _render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Return the text of ``messages`` by the template beside ``server.tokenizer``.

        Where there is none, it is the server's.

        Raises:
            NoTemplateError: the server renders no messages.
            ScorerError: the template refuses these.
        """
        if self._tokenizer is not None and self._tokenizer.template is not None:
            return await super()._render_chat(messages, add_generation_prompt, tools)
        text = await self._render_by_server(messages, add_generation_prompt, tools)
        if self._bos is None:
            self._bos = tuple((await self._tokenize("", add_special_tokens=True))[:1])
        return text

    async def _render_by_server(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]],
    ) -> str:
        """Return the text of ``messages`` by the server's template."""
        return await self._chat.render(messages, add_generation_prompt, tools)
