"""Conversations to measure with, and the full matrix of one."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from mindhooks import (
    Context,
    MemoryStats,
    Node,
    Registry,
    ResponseDivergence,
    Role,
    Scorer,
    Trigger,
)
from mindhooks.testing import RecordingListener, StubMind
from mindscore.conversation.conversation import Transcript
from mindscore.conversation.native import read_transcript
from mindscore.flows.memory import MemoryScoring

DEMO = Path(str(files("mindscore") / "demo"))
SYSTEM = 40
"""Tokens of a made conversation's system message."""
TURN, FEWEST = 100, 8
"""About how many tokens a user's message and its response have together, and how many a message
has at least: its role and its end take six."""

Tokenize = Callable[[str], Awaitable[list[int]]]


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


# -- conversations -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shape:
    """``memories`` messages of ``size`` tokens each, then ``history`` tokens of turns."""

    memories: int
    size: int
    history: int


def parse_shape(text: str) -> Shape | None:
    """``NxM+H``: N memories of M tokens each, then H tokens; ``None`` for ``demo``.

    Raises:
        ValueError: it is neither, or too small to be a conversation.
    """
    if text == "demo":
        return None
    found = re.fullmatch(r"(\d+)x(\d+)\+(\d+)", text)
    if found is None:
        raise ValueError(f"{text!r}: neither 'demo' nor NxM+H, such as 20x60+2000")
    shape = Shape(*map(int, found.groups()))
    if shape.memories < 1 or shape.size < FEWEST or shape.history < 3 * FEWEST:
        raise ValueError(f"{text!r}: no memory, or fewer than {FEWEST} tokens in a message")
    return shape


def demo() -> Transcript:
    """The conversation of ``mindscore demo``."""
    return read_transcript(DEMO / "conversation.jsonl")


async def conversation(shape: Shape | None, tokenize: Tokenize, seed: int) -> Context:
    """The demo's conversation, or one of ``shape`` made of its sentences in a random order."""
    if shape is None:
        return await demo().context(tokenize)
    total = SYSTEM + shape.memories * shape.size + shape.history
    ids = iter(await _text(total, tokenize, seed))
    headers = {role: await tokenize(f"<|im_start|>{role}\n") for role in Role}
    end, newline = await tokenize("<|im_end|>"), await tokenize("\n")

    def node(id_: str, role: Role, size: int) -> Node:
        header = headers[role]
        text = [next(ids) for _ in range(size - len(header) - len(end) - len(newline))]
        body = (len(header), size - len(newline)) if role == Role.ASSISTANT else (0, 0)
        tokens = (*header, *text, *end, *newline)
        return Node(id_, role, "", tokens, body, id_ if role == Role.MEMORY else None)

    system = node("system", Role.SYSTEM, SYSTEM)
    memories = [node(f"m{n:03}", Role.MEMORY, shape.size) for n in range(shape.memories)]
    turns: list[Node] = []
    count = max(1, round(shape.history / TURN))
    for n in range(count):
        size = shape.history * (n + 1) // count - shape.history * n // count
        asked = size * 2 // 5
        turns.append(node(f"u{n:03}", Role.USER, asked))
        turns.append(node(f"a{n:03}", Role.ASSISTANT, size - asked))
    return Context((system,), tuple(memories), tuple(turns))


async def _text(count: int, tokenize: Tokenize, seed: int) -> list[int]:
    """At least ``count`` ids of the demo's sentences, shuffled anew each time all were used."""
    transcript, shuffled = demo(), random.Random(seed)
    messages = (*transcript.system, *transcript.identity, *transcript.conversation)
    sentences = [it for message in messages for it in re.split(r"(?<=[.?!])\s+", message.text)]
    ids: list[int] = []
    while len(ids) < count:
        shuffled.shuffle(sentences)
        ids += await tokenize(" ".join(sentences) + " ")
    return ids


# -- the matrix --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Matrix:
    """The full matrix: each memory's row, by key, and what the run says of itself."""

    rows: Mapping[str, tuple[ResponseDivergence, ...]]
    stats: MemoryStats

    def signed(self) -> dict[tuple[str, str], float]:
        """Each memory's nats on each response, by key and node id."""
        return {(key, it.node_id): it.signed for key, row in self.rows.items() for it in row}


class _Given(Registry):
    """A registry whose scorer is given: it is loaded and warm, and outlives the registry."""

    def __init__(self, mind: StubMind, tables: Mapping[str, Any], scorer: Scorer) -> None:
        super().__init__(mind, tables)
        self._given = scorer

    async def scorer(self) -> Scorer:
        return self._given


async def full_matrix(context: Context, scorer: Scorer, tables: Mapping[str, Any]) -> Matrix:
    """The command ``score-full``, as a host gives it; nothing is recorded."""
    mind, heard = StubMind(context), RecordingListener()
    async with _Given(mind, tables, scorer) as registry:
        registry.register(MemoryScoring({}), name="memory-scoring")
        registry.register(heard)
        if registry.dispatch("score-full") != {"memory-scoring": Trigger.STARTED}:
            raise RuntimeError("the matrix was not started")
        await registry.wait_idle()
    stats = mind.state.memory_last_run
    if stats is None or stats.error is not None:
        raise RuntimeError(f"the matrix failed: {stats and stats.error}")
    return Matrix({score.key: score.divergences for score in heard.scores}, stats)
