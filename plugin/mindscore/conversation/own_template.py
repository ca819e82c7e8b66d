"""The chat template that came with the model, taken apart by rendering parts of a conversation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from mindhooks import Role, ScorerError, ScorerUnavailable
from mindscore._util.aio import gather_ordered
from mindscore._util.text import count_of
from mindscore.conversation.additive import AT_ONCE, check_without_memories, find_opening
from mindscore.conversation.message import PLACEHOLDER, Message
from mindscore.conversation.placement import PLACES, Placement
from mindscore.conversation.template import (
    LooksBackError,
    Pieces,
    RenderChat,
    Tools,
    images_left_out,
    unprinted,
)

_UNKNOWN = "qxz"
"""A role that no template knows, and a text that is nowhere else."""


_DATES = ("%d %b %Y", "%Y-%m-%d", "%B %d, %Y")
"""Forms in which templates print the date."""

EXACT = 24
"""Responses whose whole prompt is compared with the pieces; in a longer conversation, of each kind
of place the first, and the last ones."""

_THOUGHT_OPENED = re.compile(r"<think>\s*\Z")
_NO_THOUGHT = re.compile(r"\s*(?:<think>)?\s*</think>\s*")
_CLOSED = "\n</think>\n\n"


@dataclass(slots=True)
class OwnTemplate:
    """The template that came with the model, as ``render`` prints messages by it."""

    render: RenderChat
    tools: Tools = ()
    place: Placement = field(default_factory=lambda: Placement("memory"))
    markers: dict[Role, str] = field(default_factory=dict)
    """Text that it prints for an image that is left out, by the message's role."""
    opening: str = ""
    """Text in front of whatever message is the first, of which no part may be left out."""
    _before: int = 0
    """Messages that stand in front of every part of the conversation."""
    _header: str = ""
    """What is printed to ask for the first response."""
    _end: str | None = None
    """What is printed behind the text of a response; ``None``: not known yet."""

    async def text(self, messages: Sequence[Message], asks: bool) -> str:
        """Return the prompt of ``messages``; with ``asks``, up to where the model speaks next.

        Raises:
            ScorerError: the template refuses them.
        """
        if not messages and not asks:
            return ""
        return await self._rendered(self.place, messages, asks)

    async def _rendered(self, place: Placement, messages: Sequence[Message], asks: bool) -> str:
        given = place.messages(messages)
        try:
            # Scorers of others know two arguments.
            more = (self.tools,) if self.tools else ()
            return await self.render(given, asks, *more)
        except ScorerError:
            raise
        # Templates raise what they like.
        except Exception as error:
            raise ScorerError(f"the chat template: {error}") from error

    async def begin(self, messages: Sequence[Message], tools: Tools, before: int = 0) -> None:
        """Find where memories that are messages of their own are printed, and how a turn ends.

        The first ``before`` messages stand in front of every part of the conversation.

        Raises:
            ScorerError: nowhere, or it refuses the messages; the text says why.
        """
        self.tools, self._before = tools, before
        self.opening = self._header = ""
        await self._settle(messages)
        await self._mark_images(messages)
        at = next((at for at, it in enumerate(messages) if it.role == Role.ASSISTANT), None)
        if at is not None:
            said = replace(messages[at], text=_UNKNOWN, tool_calls=(), reasoning="")
            earlier = await self.text(messages[:at], False)
            if earlier:
                asked = await self.text(messages[:at], True)
                self._header = asked.removeprefix(earlier) if asked.startswith(earlier) else ""
            printed = await self.text([*messages[:at], said], False)
            _, found, end = printed.rpartition(_UNKNOWN)
            self._end = end if found else None

    async def _settle(self, messages: Sequence[Message]) -> None:
        memories = [it for it in messages if it.role == Role.MEMORY]
        why: ScorerError | None = None
        for role in PLACES if memories else PLACES[:1]:
            place = Placement(role)
            try:
                printed = await self._rendered(place, messages, False)
                if role == "memory" and memories:
                    other = await self._rendered(Placement(_UNKNOWN), messages, False)
                    # A role that is printed as it is, and not one that is taken for another.
                    if other == printed or other.replace(_UNKNOWN, role) != printed:
                        continue
            except ScorerUnavailable:
                raise
            except ScorerError as error:
                why = why or error
                continue
            kept = [it for it in messages if it.role in (Role.SYSTEM, Role.MEMORY)]
            if not memories or all(it.text.strip() in printed for it in kept):
                self.place = place
                return
        raise why or ScorerError("the chat template prints memories nowhere")

    async def _mark_images(self, messages: Sequence[Message]) -> None:
        """Find the markers that the template itself prints for images that are left out."""
        for at, message in enumerate(messages):
            role = message.role
            if not message.shown or role == Role.MEMORY or role in self.markers:
                continue
            said = replace(message, text=_UNKNOWN, placeholders=1)
            self.markers[role] = PLACEHOLDER
            place = Placement(self.place.role, self.place.marked | {role})
            try:
                without = await self.text([*messages[:at], replace(said, placeholders=0)], False)
                printed = await self._rendered(place, [*messages[:at], said], False)
                # Some refuse images in some conversations.
                await self._rendered(place, messages, False)
            except ScorerError:
                continue
            if marker := _inserted(printed, without):
                self.place, self.markers[role] = place, marker

    async def pieces(self, messages: Sequence[Message]) -> list[Pieces]:
        """Return the pieces of each message, if each only adds to the prompt.

        Each is rendered behind the exchange before it; together they are the whole prompt, and
        the prompts of responses in many places begin as they say.

        Raises:
            LooksBackError: a message changes what is printed before it, or stands in another.
            ScorerError: the template refuses a whole prompt.
        """
        if self.place.role == "user" and any(it.role == Role.MEMORY for it in messages):
            raise LooksBackError("memories are printed within other messages")
        try:
            found = await gather_ordered(
                lambda at: self.piece(messages[:at], messages[at]), range(len(messages)), AT_ONCE
            )
        except ScorerUnavailable:
            raise
        except ScorerError as error:
            # The whole conversation is printed: only a part of it is refused.
            raise LooksBackError(str(error)) from error
        texts = [it.text() for it in found]
        if await self.text(messages, False) != "".join(texts):
            raise LooksBackError("a message is printed differently in a longer conversation")
        for at in _checked(messages):
            before = "".join((*texts[:at], *found[at].header))
            asked = await self.text(messages[:at], True)
            if not before.startswith(asked) or _NO_THOUGHT.sub("", before[len(asked) :]):
                raise LooksBackError("a prompt ends differently in a longer conversation")
        self.opening = await find_opening(self, messages, texts, self._before)
        await check_without_memories(self, messages, texts, self.opening)
        return found

    async def piece(self, earlier: Sequence[Message], message: Message) -> Pieces:
        """Return the pieces of ``message`` after ``earlier`` ones.

        Raises:
            LooksBackError: it changes what is printed before it.
            ScorerError: the template refuses the messages.
        """
        frame = _frame(earlier)
        before, whole = await self.text(frame, False), await self.text([*frame, message], False)
        if not whole.startswith(before):
            raise LooksBackError("a message changes what is printed before it")
        if message.role != Role.ASSISTANT:
            return Pieces((whole[len(before) :],), (), ())
        asked = await self.text(frame, True)
        if not asked.startswith(before):
            raise LooksBackError("the prompt for a response changes what is printed before it")
        header, content = self._split(asked, whole, message)
        if not whole.startswith(header + content):
            raise LooksBackError("a response is printed differently once it is given")
        tail = whole[len(header) + len(content) :]
        return Pieces((header[len(before) :],), (content,), (tail,) if tail else ())

    async def response(self, earlier: Sequence[Message], message: Message) -> tuple[str, str]:
        """Return what the template begins the response with, and what the model produced of it.

        Raises:
            ScorerError: the response cannot be told from its prompt.
        """
        frame = _frame(earlier)
        asked = await self.text(frame, True)
        whole = await self.text([*frame, message], False)
        header, content = self._split(asked, whole, message)
        return header[len(asked) :], content

    def _split(self, asked: str, whole: str, message: Message) -> tuple[str, str]:
        """Return the prompt of a response, and the text that the model produced behind it.

        ``asked`` is the prompt up to where the model speaks, ``whole`` the same with ``message``.
        What the template puts before the text by itself, an empty thought, is of the prompt. The
        text is empty if it is of calls that the template does not print.

        Raises:
            ScorerError: the response is not printed behind what asks for it.
        """
        header, content = self._parted(asked, whole, message)
        return header, "" if _is_unsaid(message, content) else content

    def _parted(self, asked: str, whole: str, message: Message) -> tuple[str, str]:
        if whole.startswith(asked):
            printed = whole[len(asked) :]
            if self._header and not message.text.startswith(self._header):
                # The model went on behind a tool's result: no header was sent.
                printed = printed.removeprefix(self._header)
            empty = _NO_THOUGHT.match(printed)
            if empty and not _thinks(message):
                return asked + empty[0], self._to_end(printed[empty.end() :])
            if (
                empty
                and _THOUGHT_OPENED.search(asked)
                and printed.startswith("<think>", empty.end())
            ):
                # The thought is printed after an empty one, as if it were part of the text.
                printed = printed[empty.end() :].removeprefix("<think>").lstrip("\n")
            return asked, self._to_end(printed)
        opened = _THOUGHT_OPENED.search(asked)
        if opened is None or not whole.startswith(asked[: opened.start()]):
            raise ScorerError(
                "the model's chat template does not print a response behind the prompt that asks "
                "for it, so that what the model produced is not known: use token_ids, or "
                'server.chat_template = "chatml"'
            )
        # The prompt opens a thought, which the template prints differently once it is over, or not.
        printed = whole[opened.start() :]
        empty = _NO_THOUGHT.match(printed)
        if not _thinks(message):
            said = printed[empty.end() :] if empty else printed
            closed = empty[0].partition("<think>")[2] or empty[0] if empty else _CLOSED
            return asked + closed, self._to_end(said)
        if printed.startswith("<think>"):
            return asked, self._to_end(printed.removeprefix("<think>").lstrip("\n"))
        thought = _reasoning(message).strip("\n") + _CLOSED.rstrip()
        gap = "" if printed[:1].isspace() else _CLOSED[len(_CLOSED.rstrip()) :]
        return asked, thought + gap + self._to_end(printed)

    def _to_end(self, printed: str) -> str:
        """Return what the model produced of ``printed``: up to its end of turn.

        Behind that, some templates print white space, and some end the whole prompt.
        """
        if self._end == "":
            return printed
        if self._end is not None and printed.endswith(self._end):
            turn = re.match(r"\s*\S*", self._end)
            return printed.removesuffix(self._end) + (turn[0] if turn else "")
        return printed.rstrip()

    async def remarks(self, messages: Sequence[Message]) -> list[str]:
        """Return a line for each thing that is not printed as the messages have it."""
        printed = await self.text(messages, False)
        thoughts, uncalled = [], 0
        for at, it in enumerate(messages):
            if it.reasoning or it.tool_calls:
                _, said = await self.response(messages[:at], it)
                thoughts += [it] if it.reasoning.strip() not in said else []
                uncalled += any(call.name not in said for call in it.tool_calls)
        names = [str(it.get("function", it).get("name")) for it in self.tools]
        unused = self.tools if any(name not in printed for name in names) else ()
        found = unprinted(thoughts, unused, "the model's chat template")
        if self.place.role != "memory" and any(it.role == Role.MEMORY for it in messages):
            where = {"system": "as system messages", "user": "within the user's next message"}
            found.append(
                f"memories that are messages of their own are printed {where[self.place.role]}: "
                "the model's chat template has no role for them"
            )
        if uncalled:
            calls = count_of(uncalled, "response")
            found.append(f"tool calls of {calls} are left out: the chat template prints none")
        today = datetime.now()
        dates = [today.strftime(form) for form in _DATES]
        if any(it in printed and not any(it in said.text for said in messages) for it in dates):
            found.append("the chat template prints today's date, not the conversation's")
        results = [replace(it, text=_UNKNOWN) if it.role == Role.TOOL else it for it in messages]
        silent = sum(it.role == Role.TOOL for it in messages)
        if silent and (await self.text(results, False)).count(_UNKNOWN) < silent:
            left = count_of(silent, "tool's result")
            found.append(f"not all of {left} are printed: the chat template leaves some out")
        placeholders = {self.markers.get(it.role, PLACEHOLDER): None for it in messages if it.shown}
        return [*found, *images_left_out(messages, list(placeholders))]


def _inserted(longer: str, text: str) -> str:
    """Return what ``longer`` has beside the unknown text that ``text`` has not, if that is all.

    There may be other white space before it.
    """
    before, _, after = text.rpartition(_UNKNOWN)
    longer_before, found, longer_after = longer.rpartition(_UNKNOWN)
    if found and longer_after == after and longer_before.startswith(before.rstrip()):
        return longer_before.removeprefix(before.rstrip()).strip()
    if found and longer_before == before and longer_after.endswith(after):
        return longer_after.removesuffix(after).strip()
    return ""


def _frame(earlier: Sequence[Message]) -> list[Message]:
    """Return the beginning of a conversation, and its last exchange: enough for the next message.

    A template may want the user and the model to alternate.
    """
    spoken = (Role.USER, Role.ASSISTANT)
    start = next((at for at, it in enumerate(earlier) if it.role in spoken), len(earlier))
    backwards = range(len(earlier) - 1, start, -1)
    asked = next((at for at in backwards if earlier[at].role == Role.USER), start)
    return [*earlier[:start], *earlier[asked:]]


def _checked(messages: Sequence[Message]) -> list[int]:
    """Return the indexes of responses in every kind of place: roles around, calls, reasoning."""
    spoken = [at for at, it in enumerate(messages) if it.role == Role.ASSISTANT]
    if len(spoken) <= EXACT:
        return spoken
    kinds: dict[tuple[object, ...], int] = {}
    for at in spoken:
        around = messages[max(0, at - 3) : at + 2]
        kind = tuple((it.role, bool(it.tool_calls), bool(it.reasoning)) for it in around)
        kinds.setdefault(kind, at)
    return sorted({*kinds.values(), *spoken[-2:]})


def _is_unsaid(message: Message, content: str) -> bool:
    """Say whether the template prints nothing of what the response is: only calls, or images."""
    calls = message.tool_calls
    if message.is_image_alone:
        return True
    return bool(calls) and not message.text.strip() and not any(it.name in content for it in calls)


def _thinks(message: Message) -> bool:
    return bool(_reasoning(message).strip())


def _reasoning(message: Message) -> str:
    if message.reasoning:
        return message.reasoning
    return message.text.rpartition("</think>")[0].rpartition("<think>")[2]
