"""Threads of LangGraph: a state, an array of them, or a checkpoint, as JSON. As of 1.2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.integrations.langchain.reader import ROLES
from mindscore.readers import Reading, Source, first_text, kind_of

EARLIER = "earlier states of the same thread"


class LangGraphReader:
    """Reads threads whose state holds ``messages``; of each, the state with most of them."""

    def detects(self, source: Source) -> bool:
        """Return true if it begins with a thread, its state or its checkpoint."""
        first = source.sample
        return isinstance(first, dict) and _messages(first) is not None

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the threads, named by their ids."""
        threads: dict[str, list[tuple[str, list[Any]]]] = {}
        for number, (where, record) in enumerate(source.objects(), start=1):
            if (messages := _messages(record)) is None:
                messages = []
            threads.setdefault(_thread_id(record) or f"state {number}", []).append(
                (where, messages)
            )
        records = [(states[0][0], (name, states)) for name, states in threads.items()]

        def read(number: str, where: str, thread: tuple[str, list[Any]]) -> Conversation:
            del number, where
            return _conversation(source, *thread)

        return source.read_each(records, read, lambda thread: thread[0])


def _messages(record: Mapping[str, Any]) -> list[Any] | None:
    """Return the messages of a state; ``None`` if it is none."""
    holders = [record.get("values"), record.get("channel_values")]
    checkpoint = record.get("checkpoint")
    if isinstance(checkpoint, dict):
        holders.append(checkpoint.get("channel_values"))
    for holder in holders:
        messages = holder.get("messages") if isinstance(holder, dict) else None
        if isinstance(messages, list) and messages:
            return messages
    return None


def _thread_id(record: Mapping[str, Any]) -> str:
    found = [record.get("thread_id")]
    for name in ("checkpoint", "metadata"):
        inner = record.get(name)
        found.append(inner.get("thread_id") if isinstance(inner, dict) else None)
    config = record.get("config")
    configurable = config.get("configurable") if isinstance(config, dict) else None
    found.append(configurable.get("thread_id") if isinstance(configurable, dict) else None)
    return first_text(*found)


def _conversation(source: Source, name: str, states: list[tuple[str, list[Any]]]) -> Conversation:
    where, messages = max(states, key=lambda it: len(it[1]))
    reading = Reading(source)
    for _ in states[1:]:
        reading.leave_out(EARLIER)
    for place, message in source.items(where, "messages", messages, "message"):
        with source.leaving_out(), source.placed(place):
            reading.add(place, _fields(message))
    return reading.conversation(name, id_="" if name.startswith("state ") else name)


def _fields(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message as it is dumped, alone, or as its constructor's arguments."""
    for inner in ("kwargs", "data"):
        if isinstance(message.get(inner), dict):
            path = message.get("id")
            kind = path[-1] if isinstance(path, list) and path else message.get("type")
            return _fields({**message[inner], "type": kind})
    kind = message.get("type", message.get("role"))
    if not isinstance(kind, str):
        raise ValueError(f"the message's type: expected text, got {kind_of(kind)}")
    short = kind.removesuffix("Chunk").removesuffix("Message").lower()
    return {**message, "role": ROLES.get(short, message.get("role", kind))}
