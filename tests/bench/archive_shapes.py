"""Archives to measure with: many conversations of five formats, with memories of known kinds.

``python tests/bench/archive_shapes.py FOLDER [--conversations 1000] [--seed 1]`` writes
``FOLDER/conversations``, ``FOLDER/memories.json`` (``--memories`` for the formats that mark none)
and ``FOLDER/planted.json``, the kind of each memory.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

KINDS = {"helping": 10, "duplicate": 5, "misleading": 3, "idle": 22}
"""How many memories are of each kind; the duplicates say the same as one another."""

PRESENT = 0.35
"""Share of the conversations that a memory is in."""
ON_TOPIC = 0.6
"""Share of the responses that say what a memory says, whether it is in the context or not."""

WORDS, FACTS, LONG = 12, 4, 120
"""Words of a memory, those that responses say, and words of a misleading one.

To the toy scorer a memory helps where it holds a response's words; it misleads by its length: the
more unrelated words a prompt has, the less likely are the others.
"""
RESPONSE = 14
"""Common words of a response."""
TURNS = (3, 7)
PER_FILE = 50
"""Conversations of a file, in the formats that have several in one."""
STARTED = 1_767_225_600
"""When the first conversation began, in seconds since the epoch; the others hours later."""

_WORDS = """
the a of to and in that it is was for on with as be at by this have from or had not
but what all were when we there can an your which their said if do will each about how
up out them then
"""
_COMMON = _WORDS.split()


@dataclass(frozen=True, slots=True)
class Planted:
    """A memory of a known kind; ``facts`` are the words that responses say."""

    key: str
    kind: str
    text: str
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation: its memories, and its messages as roles and texts."""

    number: int
    memories: tuple[Planted, ...]
    said: tuple[tuple[str, str], ...]

    @property
    def system(self) -> str:
        """The system prompt, with the memories printed in it."""
        lines = [f"- {it.text}" for it in self.memories]
        return "\n".join(["You help. What you know:", *lines])

    @property
    def name(self) -> str:
        return f"talk-{self.number:05}"

    def told(self) -> list[tuple[str, str]]:
        """All messages, the system prompt first."""
        return [("system", self.system), *self.said]


def planted(seed: int) -> list[Planted]:
    """The memories, of every kind."""
    words = _words(random.Random(f"memories {seed}"))
    shared = [next(words) for _ in range(FACTS)]
    alike = [next(words) for _ in range(WORDS - FACTS - 2)]
    found = []
    for kind, count in KINDS.items():
        for number in range(count):
            facts, length = [next(words) for _ in range(FACTS)], WORDS
            if kind == "duplicate":
                text = [*shared, *alike, *(next(words) for _ in range(2))]
                facts = shared
            else:
                length = LONG if kind == "misleading" else WORDS + number % 3
                text = [*facts, *(next(words) for _ in range(length - FACTS))]
            key = f"{kind}-{number:02}"
            found.append(Planted(key, kind, " ".join(text), tuple(facts)))
    return found


def _words(source: random.Random) -> Iterator[str]:
    """Yield words that are in no other text, each once."""
    known: set[str] = set()
    while True:
        word = "".join(source.choice(pair) for pair in ("bdfgklmnprstvz", "aeiou") * 3)
        if word not in known:
            known.add(word)
            yield word


def talks(count: int, seed: int, memories: Sequence[Planted]) -> Iterator[Talk]:
    """Yield ``count`` conversations, each the same whatever the count."""
    useful = [it for it in memories if it.kind in ("helping", "duplicate")]
    for number in range(count):
        source = random.Random(f"talk {seed} {number}")
        here = [it for it in memories if source.random() < PRESENT] or [memories[0]]
        said = []
        for turn in range(source.randint(*TURNS)):
            # Each begins in its own way: a conversation without an id is known by that.
            asked = [f"{number}", f"{turn}", *source.choices(_COMMON, k=8)]
            answer = source.choices(_COMMON, k=RESPONSE)
            if source.random() < ON_TOPIC:
                answer += source.choice([it for it in here if it in useful] or useful).facts
            said += [("user", " ".join(asked) + "?"), ("assistant", " ".join(answer) + ".")]
        yield Talk(number, tuple(here), tuple(said))


# -- formats -------------------------------------------------------------------------------------


def _line(value: object) -> str:
    return json.dumps(value) + "\n"


def native(talk: Talk) -> str:
    lines = [{"role": "system", "content": "You help."}]
    lines += [{"role": "memory", "key": it.key, "content": it.text} for it in talk.memories]
    for at, (role, text) in enumerate(talk.said):
        when = STARTED + 3600 * talk.number + 60 * at
        day, rest = divmod(when - STARTED, 86_400)
        clock = f"{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}"
        month, day = divmod(day, 28)
        date = f"{2026 + month // 12}-{month % 12 + 1:02}-{day + 1:02}"
        lines.append({"role": role, "content": text, "timestamp": f"{date}T{clock}Z"})
    return "".join(map(_line, lines))


def openai(talk: Talk) -> str:
    messages = [{"role": role, "content": text} for role, text in talk.told()]
    texts = {it.key: it.text for it in talk.memories}
    return _line({"id": talk.name, "messages": messages, "memories": texts})


def sharegpt(talk: Talk) -> str:
    names = {"user": "human", "assistant": "gpt"}
    turns = [{"from": names.get(role, role), "value": text} for role, text in talk.told()]
    return _line({"id": talk.name, "conversations": turns})


def responses(talk: Talk) -> str:
    *asked, (_, answer) = talk.said
    items = [{"type": "message", "role": role, "content": text} for role, text in asked]
    said = {"type": "message", "role": "assistant"}
    output = [{**said, "content": [{"type": "output_text", "text": answer}]}]
    call = {"id": talk.name, "object": "response", "model": "m", "instructions": talk.system}
    return _line({**call, "input": items, "output": output})


def langchain(talk: Talk) -> str:
    types = {"user": "human", "assistant": "ai"}
    said = [
        {"type": types.get(role, role), "data": {"content": text}} for role, text in talk.told()
    ]
    return json.dumps(said, indent=1)


SEVERAL = (openai, sharegpt, responses)
"""Formats of which a file has several conversations."""
FORMATS = (native, openai, sharegpt, responses, langchain)


def write_archive(folder: Path, conversations: int = 1000, seed: int = 1) -> Mapping[str, str]:
    """Write an archive; return the kind of each memory, by key."""
    memories = planted(seed)
    place = folder / "conversations"
    for talk in talks(conversations, seed, memories):
        write = FORMATS[talk.number % len(FORMATS)]
        number = talk.number // (len(FORMATS) * PER_FILE)
        name = f"part-{number:03}.jsonl" if write in SEVERAL else f"{talk.name}.json"
        file = place / write.__name__ / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a" if write in SEVERAL else "w", encoding="utf-8") as stream:
            stream.write(write(talk))
    kinds = {it.key: it.kind for it in memories}
    for name, value in (("memories", {it.key: it.text for it in memories}), ("planted", kinds)):
        folder.joinpath(f"{name}.json").write_text(json.dumps(value, indent=1), encoding="utf-8")
    return kinds


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--conversations", type=int, default=1000)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    kinds = write_archive(given.folder, given.conversations, given.seed)
    sys.stdout.write(f"{given.conversations:,} conversations, {len(kinds)} memories\n")


if __name__ == "__main__":
    main()
