"""Messages as a vLLM server prints them, by the chat template that it has of its model."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from mindhooks import ScorerError, ScorerUnavailable
from mindscore.conversation.template import NoTemplateError

CACHED_CHARACTERS = 2**24
"""Characters of rendered texts that are kept: a conversation that goes on asks for them again."""

ByServer = Callable[[Mapping[str, Any], int], Awaitable[list[int]]]
"""Posts a body, of so many bytes, to ``/tokenize`` and returns the ids."""


class ServerTemplate:
    """Renders messages by ``/tokenize``, which returns ids, and by a tokenizer, as their text.

    A rendering takes three requests, or one where ``encode`` and ``decode`` are a local
    tokenizer's; the same messages are asked for once.
    """

    def __init__(
        self,
        tokenize: ByServer,
        encode: Callable[[str], Awaitable[list[int]]],
        decode: Callable[[Sequence[int]], Awaitable[str]],
    ) -> None:
        self._tokenize = tokenize
        self._encode = encode
        self._decode = decode
        self._texts: OrderedDict[bytes, str] = OrderedDict()
        self._characters = 0

    async def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]],
    ) -> str:
        """Return the text of ``messages``.

        Raises:
            NoTemplateError: the server renders no messages.
            ScorerError: it refuses these, or the text of their ids has other ids.
        """
        body = {
            "messages": [_as_sent(it) for it in messages],
            "add_generation_prompt": add_generation_prompt,
            # The template prints them.
            "add_special_tokens": False,
            **({"tools": tools} if tools else {}),
        }
        written = msgspec.json.encode(body)
        key = hashlib.sha256(written).digest()
        if key not in self._texts:
            self._keep(key, await self._rendered(body, len(written)))
        self._texts.move_to_end(key)
        return self._texts[key]

    async def _rendered(self, body: Mapping[str, Any], length: int) -> str:
        try:
            ids = await self._tokenize(body, length)
        except ScorerError as error:
            # What has rendered messages before refuses these, or is down for a moment.
            down = isinstance(error, ScorerUnavailable) and getattr(error, "status", None) != 500
            if self._texts or down:
                raise
            raise NoTemplateError(
                f"the server does not render messages by the model's chat template ({error}); set "
                "server.tokenizer to the folder of its tokenizer.json and chat_template.jinja or "
                "tokenizer_config.json"
            ) from error
        text = await self._decode(ids)
        if await self._encode(text) != ids:
            raise ScorerError(
                "the server's tokens of these messages are not those of their text: set "
                "server.tokenizer to the folder of the model's tokenizer.json and chat template"
            )
        return text

    def _keep(self, key: bytes, text: str) -> None:
        self._texts[key] = text
        self._characters += len(text)
        while self._characters > CACHED_CHARACTERS and len(self._texts) > 1:
            _, oldest = self._texts.popitem(last=False)
            self._characters -= len(oldest)


def _as_sent(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``message`` with arguments of calls as JSON: vLLM parses them for the template."""
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        given = call["function"]["arguments"]
        text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        calls.append({**call, "function": {**call["function"], "arguments": text}})
    return {**message, "tool_calls": calls}
