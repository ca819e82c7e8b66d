"""Conversations as their sources keep them, and transcripts with their memories marked."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mindhooks import Context, MindhooksError, Role
from mindscore.conversation.message import Message, with_ids
from mindscore.conversation.own_template import OwnTemplate
from mindscore.conversation.rendering import KeySets, Renderer, Tokenize
from mindscore.conversation.template import ChatML, LooksBackError, Template
from mindscore.conversation.turns import TurnPrompts
from mindscore.recognisers import Found, MemoryFinder

Section = Literal["system", "identity", "conversation"]


def section_of(role: Role, spoken: bool) -> Section:
    """Return the section of a message; ``spoken``: the user or the model has spoken by then."""
    if spoken or role not in (Role.SYSTEM, Role.MEMORY):
        return "conversation"
    return "system" if role == Role.SYSTEM else "identity"


@dataclass(frozen=True, slots=True)
class Transcript:
    """A conversation with its memories marked, not tokenised yet; every message has an id."""

    file: Path
    system: tuple[Message, ...]
    identity: tuple[Message, ...]
    conversation: tuple[Message, ...]
    remarks: tuple[str, ...] = ()
    """Facts that its source does not record, and text that was not understood, a line each."""
    id: str = ""
    """``Context.id``: the source's own name of the conversation, else one of its beginning."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """The definitions of the tools that the model had, in OpenAI's form."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages, in prompt order."""
        return (*self.system, *self.identity, *self.conversation)

    def without_images(self) -> Transcript:
        """Return the transcript with placeholders in place of images."""
        system, identity, conversation = (
            tuple(it.without_images() for it in section)
            for section in (self.system, self.identity, self.conversation)
        )
        return replace(self, system=system, identity=identity, conversation=conversation)

    def without_ids(self) -> Transcript:
        """Return the transcript without recorded token ids: they are one model's.

        Raises:
            MindhooksError: a message has token ids and no text.
        """
        silent = [it.id for it in self.messages if it.token_ids and not (it.text or it.tool_calls)]
        if silent:
            raise MindhooksError(
                f"{self.file}: message {silent[0]!r} is recorded as token ids alone: they are of "
                "one model's tokenizer, and it has no text for another's"
            )
        system, identity, conversation = (
            tuple(replace(it, token_ids=None, body=None) for it in section)
            for section in (self.system, self.identity, self.conversation)
        )
        return replace(self, system=system, identity=identity, conversation=conversation)

    def keys(self) -> list[str]:
        """Return every distinct memory key, in prompt order."""
        return list(dict.fromkeys(key for it in self.messages for key in it.memory_keys()))

    def responses(self) -> list[tuple[int, str]]:
        """Return index and node id of every assistant message of the conversation."""
        return [(i, m.id) for i, m in enumerate(self.conversation) if m.role == Role.ASSISTANT]

    async def context(
        self,
        tokenize: Tokenize,
        template: Template | None = None,
        without: KeySets | None = None,
    ) -> Context:
        """Render the snapshot with the model's tokenizer, as ChatML or by its own ``template``.

        ``without``: the sets of memories that its prompts can leave out of messages that print
        several; ``None``: those that flows leave out.

        Raises:
            ScorerError: the tokenizer failed, or the template cannot be taken apart.
        """
        template = template or ChatML()
        before = len(self.system) + len(self.identity)
        if any(message.token_ids is None for message in self.messages):
            await template.begin(self.messages, self.tools, before)
        turns: TurnPrompts | None = None
        try:
            nodes = await Renderer(tokenize, template, without).nodes(self.messages, before)
        except LooksBackError:
            assert isinstance(template, OwnTemplate)  # noqa: S101 - ChatML does not look back
            said = (*self.system, *self.identity)
            turns = TurnPrompts(tokenize, template, said, self.conversation, without)
            nodes = await turns.nodes()
        # The template may print a text of its own in front of all messages: a node of the system's.
        first = len(self.system) + len(nodes) - len(self.messages)
        last = first + len(self.identity)
        system, identity, conversation = nodes[:first], nodes[first:last], nodes[last:]
        context = Context(tuple(system), tuple(identity), tuple(conversation), self.id)
        return context if turns is None else context.with_prompts(turns)

    def going_on_from(self, before: Transcript) -> Transcript:
        """Return this with an id: that of ``before`` if it has the last response of that.

        A host may have left out the beginning since then, by which a conversation is named else.
        But many end alike ("You are welcome."), so what it answers before that must be the same,
        calls of tools aside, which hosts leave out as well.
        """
        said, known = (
            [None, *(it.text for it in talk.conversation if it.role == Role.ASSISTANT and it.text)]
            for talk in (self, before)
        )
        found = itertools.pairwise(said)
        goes_on = len(known) > 1 and any(
            last == known[-1] and earlier in (None, known[-2]) for earlier, last in found
        )
        return replace(self, id=before.id if goes_on else id_by_beginning(self.messages))


BEGINS = "begins-"
"""Before an id that is no source's own."""


def id_by_beginning(messages: Iterable[Message]) -> str:
    """Return a name that stays while the conversation grows: a hash of its first exchange.

    It is of what was said up to the first response, and when: not of the system prompt and the
    memories, which a host may print differently next time. Empty if nobody has spoken.
    """
    digest = hashlib.sha256()
    spoken = False
    for message in messages:
        if message.role in (Role.SYSTEM, Role.MEMORY):
            continue
        spoken = True
        text = message.text
        if message.parts:
            text = message.text_without(frozenset(message.memory_keys()))
        digest.update(repr((str(message.role), text, message.timestamp_ns)).encode())
        if message.role == Role.ASSISTANT:
            break
    return f"{BEGINS}{digest.hexdigest()[:24]}" if spoken else ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation of a file, or a host's, as it is recorded.

    ``name`` tells it from the file's others, ``title`` is for people. ``memories`` are those that
    the source itself names, ``remarks`` say what it does not record.
    """

    name: str
    messages: tuple[Message, ...]
    title: str = ""
    memories: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    id: str = ""
    """The source's own id of the conversation; empty if it records none."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """The definitions of the tools that the model had, in OpenAI's form."""

    def transcript(self, file: Path, finder: MemoryFinder) -> Transcript:
        """Mark the memories that ``finder`` recognises; its refusals are among the remarks.

        Those that the source itself names are looked for in what the user typed, too, if they are
        in none of the places where hosts print memories.
        """
        remarks = dict.fromkeys((*self.remarks, *finder.remarks))
        sections: dict[Section, list[Message]] = {"system": [], "identity": [], "conversation": []}
        spoken = False
        messages = with_ids(self.messages)
        marked = _found(messages, finder)
        if absent := self.memories.keys() - finder.anywhere - _keys(marked):
            finder.anywhere |= absent
            marked = _found(messages, finder)
        for message, found in zip(messages, marked, strict=True):
            remarks.update(dict.fromkeys(found.remarks))
            if found.blocks:
                message = message.with_blocks(found.blocks)
            spoken = spoken or message.role in (Role.USER, Role.ASSISTANT)
            sections[section_of(message.role, spoken)].append(message)
        system, identity, conversation = map(tuple, sections.values())
        return Transcript(file, system, identity, conversation, tuple(remarks), self.id, self.tools)


def _found(messages: Iterable[Message], finder: MemoryFinder) -> list[Found]:
    return [Found(it.blocks, ()) if it.blocks else finder.find(it.role, it.text) for it in messages]


def _keys(marked: Iterable[Found]) -> set[str]:
    return {entry.key for it in marked for block in it.blocks for entry in block.entries}
