"""The places of memories in a transcript, and the named memories that stand nowhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mindhooks import Role
from mindscore._util.text import shortened
from mindscore.conversation.conversation import Transcript
from mindscore.conversation.message import Message
from mindscore.recognisers import standing_in

KEY_CHARACTERS = 100
"""Longest key that a remark shows."""
LISTED_KEYS = 20
"""Most keys that one remark names."""


@dataclass(frozen=True, slots=True)
class Place:
    """A message in which a memory stands, by its number from 1, its role and its node's id."""

    message: int
    role: Role
    node_id: str
    times: int


def find_places(transcript: Transcript) -> dict[str, list[Place]]:
    """Return the places of each memory by its key, in prompt order."""
    found: dict[str, list[Place]] = {}
    for number, message in enumerate(transcript.messages, start=1):
        for key, times in _times(message).items():
            found.setdefault(key, []).append(Place(number, message.role, message.id, times))
    return found


def _times(message: Message) -> dict[str, int]:
    """Return how often each memory stands in the message."""
    keys = message.memory_keys()
    if message.blocks:
        keys = [message.memory_key] if message.memory_key is not None else []
    times = {key: keys.count(key) for key in keys}
    for block in message.blocks:
        for entry in block.entries:
            times[entry.key] = times.get(entry.key, 0) + entry.times
    return times


def typed_remarks(transcript: Transcript, known: Mapping[str, str], option: str) -> list[str]:
    """Return a line on memories of ``known`` that stand only in what the user typed, or none.

    ``option`` is what has them looked for there, too.
    """
    typed = _standing_in(Role.USER, transcript, _absent(transcript, known))
    what = f"memories that stand only in what the user typed ({option} looks there too)"
    return [f"{what}: {_listed(typed)}"] if typed else []


def absence_remarks(transcript: Transcript, known: Mapping[str, str], option: str) -> list[str]:
    """Return a line for each reason why memories of ``known`` are not found.

    ``option`` is as in ``typed_remarks``.
    """
    absent = _absent(transcript, known)
    typed = _standing_in(Role.USER, transcript, absent)
    rest = {key: text for key, text in absent.items() if key not in typed}
    said = _standing_in(Role.ASSISTANT, transcript, rest)
    nowhere = [key for key in rest if key not in said]
    remarks = []
    if nowhere:
        remarks.append(f"memories that stand nowhere in the conversation: {_listed(nowhere)}")
    remarks += typed_remarks(transcript, absent, option)
    if said:
        what = "memories that stand only in responses, where none are looked for"
        remarks.append(f"{what}: {_listed(said)}")
    return remarks


def _absent(transcript: Transcript, known: Mapping[str, str]) -> dict[str, str]:
    found = set(transcript.keys())
    return {key: text for key, text in known.items() if key not in found}


def _standing_in(role: Role, transcript: Transcript, known: Mapping[str, str]) -> list[str]:
    texts = [it.text for it in transcript.messages if it.role == role]
    return standing_in(texts, known) if known else []


def _listed(keys: Iterable[str]) -> str:
    named = [shortened(key, KEY_CHARACTERS) for key in keys]
    more = len(named) - LISTED_KEYS
    return ", ".join(named[:LISTED_KEYS]) + (f" and {more:,} more" if more > 0 else "")
