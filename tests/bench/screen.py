"""Screened matrices beside exact ones: what they find, what they take, and whether bounds hold.

``python tests/bench/screen.py [--seeds 100] [--shape NAME]… [--beside-exact]`` measures made
conversations with the toy scorer, which needs no model. ``python tests/bench/screen.py --scorer
local FOLDER [--conversations 20] [--memories 180] [--questions 45] [--sample 8] [--dtype bfloat16]
[--exact MATRICES]`` measures cuts of the conversations of LoCoMo
(https://github.com/snap-research/locomo), whose JSON files, or a zip of them, are in FOLDER. Exact
matrices, which take the time, are kept in the folder MATRICES. Seconds are the process's own.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from screen_locomo import measure_locomo
from screen_run import LARGE, run_matrix
from shapes import say

from mindhooks import (
    BaseScorer,
    Context,
    Node,
    RangeScore,
    Role,
    ScoreResult,
    WirePrompt,
)
from mindscore.scorers.toy import PRIOR, VOCABULARY, ToyScorer

# -- made conversations ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shape:
    """A made conversation: ``place`` is where memories stand, ``words`` what texts say of them.

    ``words``: ``"true"``: memories share rare words with the responses that they matter to;
    ``"none"``: texts are not known, token ids alone; ``"false"``: other memories' texts share words
    with every response.
    """

    place: str = "start"
    length: tuple[int, int] = (5, 12)
    words: str = "true"
    memories: int = 500
    responses: int = 400
    matter: int = 12
    apiece: int = 3


SHAPES = {
    "start": Shape(),
    "middle": Shape(place="middle"),
    "end": Shape(place="end"),
    "scattered": Shape(place="scattered"),
    "long": Shape(length=(60, 120)),
    "few": Shape(responses=6, matter=2),
    "few-at-end": Shape(place="end", responses=20, matter=2, apiece=1),
    "ids": Shape(words="none"),
    "misleading": Shape(words="false"),
    "one-response-each": Shape(apiece=1, words="none"),
    "same-responses": Shape(apiece=0, words="none"),
}

COMMON, RARE = 200, 100_000


def made(shape: Shape, seed: int) -> tuple[Context, set[str]]:
    """Return a conversation, and the keys of the memories that matter."""
    chance = random.Random(f"{seed} {shape}")
    keys = [f"m{n:03}" for n in range(shape.memories)]
    matter = chance.sample(keys, shape.matter)
    # Where memories come in the middle or at the end, responses before them cannot need them.
    begin = {"middle": 0.5, "end": 0.9}.get(shape.place, 0.0)
    first = int(shape.responses * begin)
    late = range(first, shape.responses)
    needs: dict[int, list[str]] = {}
    if shape.apiece:
        places = chance.sample(late, min(len(late), shape.matter * shape.apiece))
        for at, response in enumerate(places):
            needs.setdefault(response, []).append(matter[at % shape.matter])
    else:
        needs = dict.fromkeys(chance.sample(late, 6), matter)

    def common(count: int) -> list[int]:
        return [chance.randrange(COMMON) for _ in range(count)]

    rare: dict[str, list[int]] = {key: [] for key in keys}
    said: dict[int, list[int]] = {}
    for number, (response, its) in enumerate(needs.items()):
        for at, key in enumerate(its):
            token = RARE + number * 100 + at
            rare[key].append(token)
            said.setdefault(response, []).append(token)

    def text(ids: Sequence[int]) -> str:
        return "" if shape.words == "none" else " ".join(f"w{it}" for it in ids)

    memories = []
    for key in keys:
        ids = [*common(chance.randint(10, 20)), *rare[key]]
        words = text(ids)
        if shape.words == "false":
            lure = "" if key in matter else f" lure{chance.randrange(60)}"
            words = text([it for it in ids if it < COMMON]) + lure
        memories.append(Node(f"i{key}", Role.MEMORY, words, (9, *ids, 7), memory_key=key))
    turns: list[Node] = []
    for response in range(shape.responses):
        asked, ids = common(8), [*common(chance.randint(*shape.length)), *said.get(response, ())]
        chance.shuffle(ids)
        words = text([it for it in ids if it < COMMON] if shape.words == "false" else ids)
        words += f" lure{response % 60}" * (shape.words == "false")
        turns.append(Node(f"u{response}", Role.USER, text(asked), (9, *asked, 7)))
        body = (1, len(ids) + 2)
        turns.append(Node(f"a{response}", Role.ASSISTANT, words, (9, *ids, 7), body))
    # No common word is one memory's alone.
    system = (Node("s", Role.SYSTEM, "", (9, *(3 * list(range(COMMON))), 7)),)
    if shape.place == "start":
        return Context(system, tuple(memories), tuple(turns), f"{seed}"), set(matter)
    if shape.place == "scattered":
        late_of = {key: min(r for r, its in needs.items() if key in its) for key in matter}
        for node in memories:
            at = chance.randrange(2 * late_of.get(node.memory_key or "", shape.responses) + 1)
            index = (
                turns.index(next(it for it in turns if it.id == f"u{at // 2}"))
                if at < 2 * shape.responses
                else len(turns)
            )
            turns.insert(index, node)
        return Context(system, (), tuple(turns), f"{seed}"), set(matter)
    turns[2 * first : 2 * first] = memories
    return Context(system, (), tuple(turns), f"{seed}"), set(matter)


def toy_rows(context: Context) -> dict[str, dict[str, float]]:
    """Return the toy's exact effect of each memory on each response behind it, by its formula."""
    whole = context.wire_prompt(range(len(context.conversation)), lambda _: False)
    counts: Counter[int] = Counter()
    before = []
    for token in whole.tokens:
        before.append(counts[token])
        counts[token] += 1
    spoken = np.array([at for start, end in whole.ranges for at in range(start, end)])
    owner = np.array([n for n, (start, end) in enumerate(whole.ranges) for _ in range(start, end)])
    tokens, had = np.array(whole.tokens)[spoken], np.array(before)[spoken]
    found, at = {}, 0
    where: dict[int, list[int]] = {}
    for place, token in enumerate(tokens.tolist()):
        where.setdefault(token, []).append(place)
    least = PRIOR / VOCABULARY
    for node in (*context.system, *context.identity, *context.conversation):
        if node.memory_key is not None:
            fewer = np.zeros(len(tokens))
            for token, count in Counter(node.token_ids).items():
                if token in where:
                    fewer[where[token]] = count
            behind = spoken >= at
            fewer = fewer * behind
            gone = len(node.token_ids) * behind
            nats = np.log((had + least) / (had - fewer + least))
            nats -= np.log((spoken + PRIOR) / (spoken - gone + PRIOR))
            sums = np.bincount(owner, nats, len(whole.ranges))
            reach = {it for it, (start, _) in enumerate(whole.ranges) if start >= at}
            found[node.memory_key] = {whole.node_ids[it]: float(sums[it]) for it in reach}
        at += len(node.token_ids)
    return found


class Planted(BaseScorer):
    """A scorer whose memories have effects that have nothing to do with their words.

    ``effects[key][node_id]`` are lost where the memory's first token is not in the prompt. Any
    other removal costs a little noise. With ``hides``, it can hide tokens: exact, plus noise.
    """

    model = "planted"
    reuses_prefixes = False

    def __init__(
        self, effects: Mapping[int, Mapping[str, float]], noise: float, *, hides: float | None
    ) -> None:
        self._effects = effects
        self._noise = noise
        self._hides = hides
        if hides is not None:
            self.knock_out = self._knock_out

    def _value(
        self, prompt: WirePrompt, absent: set[int], noise: float, salt: object
    ) -> list[RangeScore]:
        scores = []
        chance = random.Random(repr(salt))
        for node_id, (start, end) in zip(prompt.node_ids, prompt.ranges, strict=True):
            lost = sum(self._effects[it].get(node_id, 0.0) for it in absent)
            scores.append(RangeScore(-200.0 - 2.0 * (end - start) - lost + chance.gauss(0, noise)))
        return scores

    async def score(self, prompts: Sequence[WirePrompt]) -> ScoreResult:
        found = []
        for prompt in prompts:
            absent = self._effects.keys() - set(prompt.tokens)
            noise = self._noise * len(absent) ** 0.5
            found.append(self._value(prompt, absent, noise, len(prompt.tokens)))
        return ScoreResult(found, sum(len(it.tokens) for it in prompts))

    async def _knock_out(
        self, prompt: WirePrompt, hidden: Sequence[Sequence[tuple[int, int]]]
    ) -> ScoreResult:
        found, computed = [], 0
        for spans in hidden:
            gone = {it for start, end in spans for it in prompt.tokens[start:end]}
            absent = self._effects.keys() & gone
            found.append(self._value(prompt, absent, self._hides or 0.0, spans))
            first = min(spans)[0]
            computed += sum(end - start for start, end in prompt.ranges if start >= first)
        return ScoreResult(found, computed)

    async def tokenize(self, text: str) -> list[int]:
        return [len(text)]


def planted(
    seed: int, place: str, *, apiece: int, hides: float | None
) -> tuple[Context, set[str], Planted]:
    """Return a conversation whose memories matter to ``apiece`` responses, its keys, its scorer."""
    shape = Shape(place=place, words="none")
    context, _ = made(shape, seed)
    chance = random.Random(f"planted {seed} {place}")
    # A token of its own tells each memory; what it does has nothing to do with its words.
    marks: dict[str, int] = {}

    def marked(nodes: Sequence[Node]) -> tuple[Node, ...]:
        found = []
        for node in nodes:
            if node.memory_key is not None:
                marks[node.memory_key] = 10**6 + len(marks)
                node = replace(node, token_ids=(marks[node.memory_key], *node.token_ids[1:]))
            found.append(node)
        return tuple(found)

    context = replace(
        context, identity=marked(context.identity), conversation=marked(context.conversation)
    )
    ids = [it.id for it in context.conversation if it.role == Role.ASSISTANT]
    late = ids[-int(len(ids) * {"middle": 0.5, "end": 0.1}.get(place, 1.0)) :]
    matter = chance.sample(sorted(marks), shape.matter)
    effects: dict[int, dict[str, float]] = {mark: {} for mark in marks.values()}
    for key in matter:
        for node_id in chance.sample(late, min(len(late), apiece)):
            effects[marks[key]][node_id] = chance.choice([-1, 1, 1]) * chance.uniform(3, 9)
    return context, set(matter), Planted(effects, 0.02, hides=hides)


async def measure_made(name: str, seeds: int, *, beside_exact: bool) -> None:
    """Print what screens of one shape find, and what they take of the exact cost.

    It is what the receipt says, unless exact matrices are measured, too.
    """
    sent, slower = [], []
    shares, count, missed, held, seconds, methods = [], 0, 0, 0, 0.0, Counter[str]()
    worst: list[str] = []
    for seed in range(seeds):
        if name.startswith("planted"):
            _, place, apiece, hides = name.split(":")
            context, matter, scorer = planted(
                seed, place, apiece=int(apiece), hides=float(hides) if hides else None
            )
            truth = None
        else:
            context, matter = made(SHAPES[name], seed)
            truth, scorer = toy_rows(context), ToyScorer()
            strong = {
                key
                for key, its in truth.items()
                if max(map(abs, its.values()), default=0.0) > LARGE
            }
            if not matter <= strong:
                raise RuntimeError(f"{name}, seed {seed}: {matter - strong} do not matter")
        run = await run_matrix(context, scorer, screen=True)
        receipt = run.receipt
        if receipt is None:
            raise RuntimeError("there is no receipt")
        seconds += run.seconds
        shares.append(receipt.spent_tokens / receipt.exact_tokens)
        if beside_exact:
            exact = await run_matrix(context, scorer, screen=False)
            sent.append(run.stats.prompt_tokens / exact.stats.prompt_tokens)
            slower.append(run.seconds / exact.seconds)
        lost = matter - set(receipt.exact)
        count += len(matter)
        missed += len(lost)
        worst += [f"{seed}:{key}" for key in sorted(lost)]
        methods[receipt.method] += 1
        above = {it.nats: len(lost) for it in receipt.missed}
        if truth is not None:
            sizes = {key: max(map(abs, its.values()), default=0.0) for key, its in truth.items()}
            above = {nats: sum(sizes[it] > nats for it in receipt.estimated) for nats in above}
        held += all(above[it.nats] <= it.most for it in receipt.missed)
    say(
        f"{name}: {', '.join(f'{k} {v}' for k, v in methods.items())}; tokens / exact "
        f"{np.mean(shares):.3f} on average, {max(shares):.3f} at most; missed {missed} of "
        f"{count} {' '.join(worst[:5])}; bounds held in {held}; {seconds / seeds:.2f} s each"
    )
    if beside_exact:
        say(
            f"{name}: beside exact matrices at most {max(sent):.3f} of the tokens and "
            f"{max(slower):.2f} of the CPU seconds"
        )


def main() -> None:
    """Measure what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--scorer", default="toy")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--beside-exact", action="store_true")
    parser.add_argument("--shape", action="append")
    parser.add_argument("--conversations", type=int, default=20)
    parser.add_argument("--memories", type=int, default=180)
    parser.add_argument("--questions", type=int, default=45)
    parser.add_argument("--sample", type=int, default=8)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--exact", type=Path)
    given = parser.parse_args()
    if given.folder is not None:
        asyncio.run(measure_locomo(given))
        return
    names = given.shape or list(SHAPES)
    for name in names:
        asyncio.run(measure_made(name, given.seeds, beside_exact=given.beside_exact))


if __name__ == "__main__":
    main()
