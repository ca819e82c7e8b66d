"""Prompts of a conversation whose template looks back: each response in the one it was given."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from mindhooks import MindhooksError, Node, Role, ScorerError, WirePrompt
from mindscore.conversation.additive import without_memories
from mindscore.conversation.message import Message
from mindscore.conversation.own_template import OwnTemplate
from mindscore.conversation.rendering import (
    KeySets,
    Renderings,
    Tokenize,
    node_of,
    shorter,
    skippable,
)


class TurnPrompts:
    """Renders the prompts of windows of a conversation, one for the responses that share it.

    A response's prompt is what was sent when it was generated: the messages before it, up to where
    the model speaks. Where it goes on as a later response's prompt does, they are one prompt.
    ``without``: as ``Renderer`` has it.
    """

    def __init__(
        self,
        tokenize: Tokenize,
        template: OwnTemplate,
        before: Sequence[Message],
        conversation: Sequence[Message],
        without: KeySets | None = None,
    ) -> None:
        self._tokenize = tokenize
        self._template = template
        self._before = before
        self._conversation = conversation
        self._left_out = without
        self._openings: dict[str, str] = {}
        self._bodies: dict[str, tuple[int, ...]] = {}
        self.fingerprint = b""
        """A hash of all that is printed: the nodes have no headers, calls or definitions of tools.

        It is known once there are nodes.
        """

    async def nodes(self) -> list[Node]:
        """Return a node for each message: the ids of its own text, and the body of a response.

        Raises:
            ScorerError: a response cannot be told from its prompt; the text says which.
        """
        messages = [*self._before, *self._conversation]
        nodes = []
        for at, message in enumerate(messages):
            if message.token_ids is not None:
                raise ScorerError(
                    "the model's chat template prints messages differently as the conversation "
                    "goes on, so that token_ids of some messages do not fit: give those of all"
                )
            # The template prints a memory without text, too.
            ids = tuple(await self._tokenize(message.text or message.role))
            body = (0, 0)
            if message.role == Role.ASSISTANT:
                ids = await self._body(messages[:at], message)
                body = (0, len(ids))
            nodes.append(node_of(message, ids, body, await self._without(message)))
        self.fingerprint = await self._hash_of(messages)
        return nodes

    async def _hash_of(self, messages: Sequence[Message]) -> bytes:
        last = max((at for at, it in enumerate(messages) if it.id in self._bodies), default=0)
        whole = await self._template.text(messages, False)
        asked = await self._template.text(messages[:last], True) if last else ""
        printed = repr((whole, asked, list(self._openings.items())))
        return hashlib.sha256(printed.encode("utf-8", "surrogatepass")).digest()

    async def _without(self, message: Message) -> Renderings | None:
        """Return the ids of the text without memories that stand in it."""
        keys = frozenset(part.memory_key for part in message.parts if part.memory_key is not None)
        ready = {
            shorter(skipped, keys): array("q", await self._tokenize(message.text_without(skipped)))
            for skipped in skippable(keys, self._left_out)
        }
        return Renderings(message.id, keys, ready) if keys else None

    async def _body(self, earlier: Sequence[Message], message: Message) -> tuple[int, ...]:
        opening, produced = await self._template.response(earlier, message)
        self._openings[message.id] = opening
        self._bodies[message.id] = tuple(await self._tokenize(produced))
        return self._bodies[message.id]

    async def __call__(
        self, window: range, skip: Callable[[str], bool], asked: Collection[str] | None = None
    ) -> tuple[WirePrompt, ...]:
        """Return the prompts of system, identity and ``window`` that hold the responses ``asked``.

        Raises:
            MindhooksError: the template refuses a prompt without the memories skipped.
        """
        shown = self._shown(window)
        skipped = frozenset(key for it in shown for key in it.memory_keys() if skip(key))
        kept = [
            it for it in (without_memories(message, skipped) for message in shown) if it is not None
        ]
        found: list[WirePrompt] = []
        for at in range(len(kept) - 1, -1, -1):
            message = kept[at]
            wanted = asked is None or message.id in asked
            if message.role == Role.ASSISTANT and self._bodies.get(message.id) and wanted:
                await self._add(found, kept[: at + 1])
        return tuple(reversed(found))

    def _shown(self, window: range) -> list[Message]:
        if window and not 0 <= window[0] <= window[-1] < len(self._conversation):
            raise MindhooksError(
                f"{window} is not within a conversation of {len(self._conversation)} nodes"
            )
        return [*self._before, *(self._conversation[index] for index in window)]

    async def _add(self, found: list[WirePrompt], messages: Sequence[Message]) -> None:
        """Add the last of ``messages``, to a prompt that goes on from it or as one of its own."""
        message = messages[-1]
        text = await self._template.text(messages[:-1], True) + self._openings[message.id]
        tokens = tuple(await self._tokenize(text))
        start = len(tokens)
        tokens += self._bodies[message.id]
        span = (start, len(tokens))
        if start == 0:
            raise MindhooksError(f"response {message.id!r} has nothing before it")
        for at, prompt in enumerate(found):
            if prompt.tokens[: len(tokens)] == tokens:
                found[at] = replace(
                    prompt,
                    ranges=(span, *prompt.ranges),
                    node_ids=(message.id, *prompt.node_ids),
                )
                return
        images = tuple(image for it in messages for image in it.images)
        found.append(WirePrompt(tokens, images, (span,), (message.id,)))
