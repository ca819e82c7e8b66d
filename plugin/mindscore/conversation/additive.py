"""Checks that a chat template only adds to a prompt, whatever is left out before a message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from mindhooks import Role, ScorerError, ScorerUnavailable
from mindscore._util.aio import gather_ordered
from mindscore.conversation.message import Message
from mindscore.conversation.template import LooksBackError, Pieces

AT_ONCE = 8
"""Messages that are rendered at once; a scorer of a server bounds its requests further."""


class Printer(Protocol):
    """Prints messages by a chat template."""

    async def text(self, messages: Sequence[Message], asks: bool) -> str:
        """Return the prompt of ``messages``; with ``asks``, up to where the model speaks next."""

    async def piece(self, earlier: Sequence[Message], message: Message) -> Pieces:
        """Return the pieces of ``message`` after ``earlier`` ones."""


async def find_opening(
    printer: Printer, messages: Sequence[Message], texts: Sequence[str], before: int
) -> str:
    """Return what the template prints in front of whatever message is the first.

    That is a first token, or a system prompt of its own. It is empty if the first message stands
    in every prompt. ``texts`` are printed for ``messages``, of which ``before`` stand in front of
    every part of the conversation; a prompt may go on with any message behind them.

    Raises:
        LooksBackError: a message is printed differently there.
    """
    beginning = range(before)
    bare = [at for at in beginning if not _is_memory(messages[at])]

    async def prefix(shown: Sequence[int]) -> str | None:
        """Return what is printed before the texts of the messages ``shown``."""
        try:
            printed = await printer.text([messages[at] for at in shown], False)
        except ScorerUnavailable:
            raise
        # No server makes this prompt: the messages are printed as in the conversation.
        except ScorerError:
            return None
        expected = "".join(texts[at] for at in shown)
        if not printed.endswith(expected):
            raise LooksBackError("a message is printed differently at the beginning")
        return printed.removesuffix(expected)

    starts = range(max(before, 1), len(messages))
    if not starts:
        return ""
    whole = [[*beginning, at] for at in starts if len(bare) < before]
    behind_all = await gather_ordered(prefix, whole, AT_ONCE)
    begun = [[*bare, *_beginning_at(messages, at)] for at in starts]
    found = set(await gather_ordered(prefix, begun, AT_ONCE)) - {None}
    if not found and 0 not in bare:
        raise LooksBackError("what prompts begin with is not known without the first message")
    opening = found.pop() or "" if found else ""
    if found or any(behind_all) or not texts[0].startswith(opening) or (opening and 0 in bare):
        raise LooksBackError("prompts begin differently in a longer conversation")
    return opening


async def check_without_memories(
    printer: Printer, messages: Sequence[Message], texts: Sequence[str], opening: str
) -> None:
    """Check that messages are printed as before once memories are left out: each, or all of them.

    A template may print a message, or a part of it, within another one.

    Raises:
        LooksBackError: they are not.
    """
    keys = {key: None for it in messages for key in it.memory_keys()}
    # Without a part of it, a message still stands between the others.
    whole = {key: None for it in messages if _may_vanish(it) for key in it.memory_keys()}
    sets = {frozenset(keys): None}
    sets |= {frozenset({key}): None for key in whole}
    sets |= {frozenset(keys.keys() - {key}): None for key in whole}

    async def is_additive(skipped: frozenset[str]) -> bool:
        kept: list[Message] = []
        printed: list[str] = []
        for at, message in enumerate(messages):
            without = without_memories(message, skipped)
            if without is None:
                continue
            is_whole = without is message
            text = texts[at] if is_whole else (await printer.piece(messages[:at], without)).text()
            printed.append(opening + text if at and not kept else text)
            kept.append(without)
        return await printer.text(kept, False) == "".join(printed)

    try:
        found = await gather_ordered(is_additive, [it for it in sets if it], AT_ONCE)
    except ScorerUnavailable:
        raise
    # Without one memory alone it may be that the template refuses the rest.
    except ScorerError as error:
        raise LooksBackError(str(error)) from error
    if not all(found):
        raise LooksBackError("without the memories, other messages are printed differently")


def without_memories(message: Message, skipped: frozenset[str]) -> Message | None:
    """Return the message without the memories ``skipped``; ``None``: nothing is left to say."""
    if message.memory_key is not None and message.memory_key in skipped:
        return None
    keys = skipped.intersection(message.memory_keys())
    if not keys:
        return message
    text = message.text_without(keys)
    # An agent that has nothing left to say there sends no message.
    is_gone = message.blocks and not text and not message.shown
    return None if is_gone else replace(message, text=text)


def _beginning_at(messages: Sequence[Message], at: int) -> range:
    """Return the index of a message that begins a part, with the next if that may print it."""
    is_held = messages[at].role in (Role.SYSTEM, Role.MEMORY)
    return range(at, min(at + 1 + is_held, len(messages)))


def _is_memory(message: Message) -> bool:
    return message.memory_key is not None or message.role == Role.MEMORY


def _may_vanish(message: Message) -> bool:
    return _is_memory(message) or bool(message.blocks)
