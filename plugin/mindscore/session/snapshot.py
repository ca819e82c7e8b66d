"""The messages and memories that an agent holds at the end of a turn, read once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mindhooks import MindhooksError
from mindscore._util.errors import TranscriptError
from mindscore.conversation.chat import FIELDS, LeftOut, read_messages
from mindscore.conversation.message import Message

Messages = Callable[[], Iterable[Mapping[str, Any] | Message]]
Memories = Mapping[str, str] | Callable[[], Mapping[str, str]] | None


class _Given:
    """One message as the host had it at the end of a turn, whatever becomes of it later."""

    __slots__ = ("_messages", "given", "left_out", "source")

    def __init__(self, source: object, given: Any) -> None:
        self.source = source
        self.given = given if isinstance(given, Message) else _copied(given)
        self.left_out = LeftOut()
        self._messages: list[Message] | None = None

    @classmethod
    def fields(cls, source: Any) -> Any:
        """Return the part of a host's message that is scored, not copied."""
        if isinstance(source, Message):
            return source
        if not isinstance(source, Mapping):
            dump = getattr(source, "model_dump", None)
            if not callable(dump):
                raise TranscriptError(f"expected a chat message, got {type(source).__name__}")
            source = dump()
        return {name: source[name] for name in FIELDS if name in source}

    def messages(self) -> list[Message]:
        """Return what it says, read on first use; ``left_out`` counts what is not understood.

        Raises:
            TranscriptError: it is not valid.
        """
        if self._messages is None:
            given = self.given
            if isinstance(given, Message):
                self._messages = [given]
            else:
                self._messages = read_messages(given, self.left_out.add)
        return self._messages


def _copied(value: Any) -> Any:
    """Copy containers; the text in them, which may be an image's, is shared."""
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list | tuple) else value


class Snapshot:
    """A conversation and its memories as they were; ``remarks`` name memories left out."""

    def __init__(
        self, given: tuple[_Given, ...], memories: dict[str, str], remarks: tuple[str, ...]
    ) -> None:
        self._given = given
        self.memories = memories
        self._remarks = remarks

    @property
    def remarks(self) -> tuple[str, ...]:
        """Lines on what is left out, as far as the messages have been read."""
        left_out = LeftOut()
        for it in self._given:
            left_out.update(it.left_out)
        return (*self._remarks, *left_out.remarks())

    def messages(self) -> tuple[Message, ...]:
        """Return the messages; those that an earlier snapshot had were read then.

        Raises:
            TranscriptError: one is not valid.
        """
        return tuple([message for it in self._given for message in it.messages()])


class Host:
    """Asks the agent for its conversation, on the thread that says that a turn has ended.

    It has no lock: the agent may hold one of its own, here and where it ends a turn.
    """

    def __init__(self, messages: Messages, memories: Memories) -> None:
        self._messages = messages
        self._memories = memories
        self._known: dict[int, _Given] = {}
        self._thread = threading.local()

    @property
    def asking(self) -> bool:
        """True if this thread is within the agent's own function."""
        return getattr(self._thread, "asking", False)

    def snapshot(self) -> Snapshot:
        """Return the conversation as it is now; only what is new is copied.

        Raises:
            MindhooksError: it is not what ``attach`` expects, or asks for itself.
        """
        if self.asking:
            raise MindhooksError("messages() and memories() cannot ask for their own scores")
        self._thread.asking = True
        try:
            messages = self._messages()
            if not isinstance(messages, Iterable) or isinstance(messages, str | bytes | Mapping):
                got = type(messages).__name__
                raise MindhooksError(f"messages(): expected chat messages, got {got}")
            # Not only equal by name: the host may have changed a message that it gave before.
            known = self._known
            given = []
            for source in messages:
                fields, before = _Given.fields(source), known.get(id(source))
                is_known = before is not None and (before.given is fields or before.given == fields)
                given.append(before if before and is_known else _Given(source, fields))
            memories = self._memories() if callable(self._memories) else self._memories
        finally:
            self._thread.asking = False
        # The source is kept with it: its id is nobody else's meanwhile.
        self._known = {id(it.source): it for it in given}
        return Snapshot(tuple(given), *_texts(memories))


def _texts(memories: Any) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the memories by their keys as text, and a line for each that has no text."""
    if memories is None:
        return {}, ()
    if not isinstance(memories, Mapping):
        got = type(memories).__name__
        raise MindhooksError(f"memories: expected {{key: text}}, got {got}")
    texts, remarks = dict[str, str](), []
    for key, text in memories.items():
        name = str(key)
        if not isinstance(text, str):
            got = type(text).__name__
            remarks.append(f"memory {name!r} is left out: expected text, got {got}")
        elif texts.get(name, text) != text:
            remarks.append(f"memory {key!r} is left out: another one's key is {name!r}, too")
        else:
            texts[name] = text
    return texts, tuple(remarks)
