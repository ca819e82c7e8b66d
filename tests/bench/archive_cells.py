"""Cells of an archive of any size, for the figures of the store and of the advice."""

from __future__ import annotations

import random
from collections.abc import Iterator

from mindscore.store import Evidence

RESPONSES = 25
"""Responses of each conversation."""

DAY_S = 86400.0

BEGAN = 1.75e9
"""The time of the first response, in seconds since the epoch."""


def key_of(memory: int) -> str:
    """Return the key of a memory."""
    return f"memory-{memory:03d}"


def text_hash_of(memory: int) -> str:
    """Return the hash of a memory's text."""
    return f"{memory + 1:032x}"


def cells(count: int, memories: int) -> Iterator[Evidence]:
    """Yield cells of conversations of 25 responses: a tenth of the memories help, a few harm."""
    chance = random.Random(1)
    for number in range(count):
        conversation, rest = divmod(number, memories * RESPONSES)
        key, response = divmod(rest, RESPONSES)
        effect = chance.gauss(0, 0.3)
        if key % 10 == 0 and chance.random() < 0.1:
            effect += 8.0
        elif key % 17 == 1 and chance.random() < 0.1:
            effect -= 5.0
        yield Evidence(
            conversation=f"conversation-{conversation:08d}",
            model="HuggingFaceTB/SmolLM2-135M-Instruct",
            key=key_of(key),
            text_hash=text_hash_of(key),
            mode="full",
            node_id=f"{conversation:08x}-response-{response:04d}",
            entry_idx=2 * response + 1,
            divergence=max(0.0, effect),
            signed=effect,
            hold=None,
            noise=0.01,
            tokens=120,
            responded_at=BEGAN + conversation * DAY_S / 4,
            scored_at=BEGAN + 400 * DAY_S,
        )
