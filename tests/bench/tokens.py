"""What the full matrix costs, in tokens and seconds, against N+1 full prompts and a lower bound.

python tests/bench/tokens.py [--shape demo] [--shape 20x60+2000] ... [--repeats 3] [--seed 0]
                             [--dtype bfloat16]

A shape is ``demo`` or ``NxM+H``: N memories of M tokens each, then H tokens of turns.

- naive: a bare forward of each full prompt, with all memories and without each, with no cache, and
  with logits for the responses' rows only. Its seconds are those of the forwards alone.
- mindscore: the command score-full with the local scorer, all of it but loading the model.
- lower bound: the prompt with all memories once, then for each memory what comes after it, up to
  the last response that is asked for. What prompts share beyond that by chance (the header of the
  next message, mostly) is not in it, so that a little less can be computed. In bfloat16 mindscore
  runs the prompt with all memories twice, to measure the noise: that is not in it either.

After each prompt of mindscore's a naive one runs, so that both have the machine as it is at the
time; what is printed are medians of the repeats.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from shapes import Matrix, conversation, full_matrix, parse_shape, say
from transformers import AutoModelForCausalLM

from mindhooks import Context, Generated, ScoreResult, WirePrompt, in_thread
from mindscore._util.aio import share_one_arena
from mindscore.measure.memories import (
    find_memories,
    responses_after_change,
    skip_none,
    skip_only,
    whole,
)
from mindscore.measure.prompts import common_prefix, prompt_for
from mindscore.scorers.local.scorer import LocalScorer
from mindscore.scorers.local.weights import locate

SHAPES = ("demo", "20x60+2000", "50x80+1000", "40x30+300")
WARM_UP = tuple(range(1000, 1128))


# -- naive -------------------------------------------------------------------------------------


class Naive:
    """N+1 full prompts through a bare model, one at each ``step``."""

    def __init__(self, model: Any, context: Context) -> None:
        self._model = model
        window = whole(context)
        keys = [memory.key for memory in find_memories(context)]
        prompts = {key: context.wire_prompt(window, skip_only(key)) for key in reversed(keys)}
        # In the order in which mindscore asks: all memories first, then without the last one.
        self._left = [(None, context.wire_prompt(window, skip_none)), *prompts.items()]
        self.tokens = sum(len(prompt.tokens) for _, prompt in self._left)
        self.seconds = 0.0
        self._totals: dict[str | None, Mapping[str, float]] = {}

    def step(self) -> None:
        """Run the next prompt, if one is left."""
        if self._left:
            key, prompt = self._left.pop(0)
            self._totals[key] = self._forward(prompt)

    def finish(self) -> None:
        """Run what is left."""
        while self._left:
            self.step()

    def signed(self, key: str, node_id: str) -> float:
        """What the memory ``key`` did to a response, in nats."""
        return self._totals[None][node_id] - self._totals[key][node_id]

    @torch.inference_mode()
    def _forward(self, prompt: WirePrompt) -> dict[str, float]:
        ids = torch.tensor([prompt.tokens])
        rows = [at - 1 for start, end in prompt.ranges for at in range(start, end)]
        kept = torch.tensor(rows)
        started = time.perf_counter()
        logits = self._model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits[0]
        self.seconds += time.perf_counter() - started
        logprobs = logits.float().log_softmax(1).gather(1, ids[0, kept + 1, None])[:, 0].tolist()
        totals, at = {}, 0
        for (start, end), node_id in zip(prompt.ranges, prompt.node_ids, strict=True):
            totals[node_id] = math.fsum(logprobs[at : at + end - start])
            at += end - start
        return totals


def load_bare(dtype: str) -> Any:
    """A model of the class that the local scorer runs, without the scorer."""
    model: Any = AutoModelForCausalLM.from_pretrained(
        locate("smollm2"), dtype=getattr(torch, dtype), use_safetensors=True
    ).eval()
    with torch.inference_mode():
        model(input_ids=torch.tensor([WARM_UP]))
    return model


# -- mindscore ---------------------------------------------------------------------------------


class Interleaved:
    """A scorer that does something else after each prompt, and knows for how long it did."""

    def __init__(self, scorer: LocalScorer, beside: Callable[[], None]) -> None:
        self._scorer = scorer
        self._beside = beside
        self._turn = asyncio.Lock()
        self.model = scorer.model
        self.noisy = scorer.noisy
        self.seconds_beside = 0.0

    async def score(self, prompts: Sequence[WirePrompt]) -> ScoreResult:
        async with self._turn:
            answers = await self._scorer.score(prompts)
            started = time.perf_counter()
            await in_thread(self._beside)
            self.seconds_beside += time.perf_counter() - started
            return answers

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        return await self._scorer.generate(prompt, max_tokens=max_tokens, stop=stop)

    async def tokenize(self, text: str) -> list[int]:
        return await self._scorer.tokenize(text)

    async def aclose(self) -> None:
        """The scorer is its maker's to close."""


async def mindscore(
    context: Context, dtype: str, beside: Callable[[], None]
) -> tuple[Matrix, float]:
    """The matrix and its seconds, from a scorer that is loaded and warm and has no cache yet."""
    tables = {"server": {"dtype": dtype}}
    scorer = LocalScorer(tables["server"])
    await scorer.score([WirePrompt(WARM_UP, (), ((1, len(WARM_UP)),), ("warm-up",))])
    interleaved = Interleaved(scorer, beside)
    matrix = await full_matrix(context, interleaved, tables)
    await scorer.aclose()
    return matrix, matrix.stats.seconds - interleaved.seconds_beside


def lower_bound(context: Context) -> int:
    """Tokens of the prompt with all memories, and of what comes after each memory."""
    window = whole(context)
    keys = [memory.key for memory in find_memories(context)]
    asked = {key: responses_after_change(context, window, skip_only(key)) for key in keys}
    judged = set[str]().union(*asked.values())
    tokens = len(prompt_for(context, window, skip_none, judged).tokens)
    for key in keys:
        if asked[key]:
            without = prompt_for(context, window, skip_only(key), asked[key])
            tokens += len(without.tokens) - _begin(context, key)
    return tokens


def _begin(context: Context, key: str) -> int:
    """How many tokens come before the memory ``key``."""
    at = 0
    for node in (*context.system, *context.identity, *context.conversation):
        if node.memory_key == key:
            return at
        if node.render is not None and key in node.memory_keys():
            return at + common_prefix(node.token_ids, node.render(frozenset({key})))
        at += len(node.token_ids)
    raise KeyError(key)


# -- figures -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Seconds:
    """One entry for each repeat; ``single`` are mindscore's in float32, where that was asked."""

    naive: list[float] = field(default_factory=list)
    mindscore: list[float] = field(default_factory=list)
    single: list[float] = field(default_factory=list)

    def ratio(self, one: Iterable[float], other: Iterable[float]) -> float:
        """Median of what ``one`` took by what ``other`` took in the same repeat."""
        return statistics.median(a / b for a, b in zip(one, other, strict=True))


async def measure(name: str, dtype: str, repeats: int, seed: int) -> None:
    """Print the figures of one shape."""
    tokenizer = LocalScorer({})
    context = await conversation(parse_shape(name), tokenizer.tokenize, seed)
    await tokenizer.aclose()
    bare = load_bare(dtype)
    seconds = Seconds()
    single: Matrix | None = None
    for _ in range(repeats):
        naive = Naive(bare, context)
        matrix, taken = await mindscore(context, dtype, naive.step)
        naive.finish()
        seconds.naive.append(naive.seconds)
        seconds.mindscore.append(taken)
        if dtype != "float32":
            single, taken = await mindscore(context, "float32", lambda: None)
            seconds.single.append(taken)
    computed, bound = matrix.stats.computed_tokens, lower_bound(context)
    assert computed is not None
    prompt = context.wire_prompt(whole(context), skip_none)
    label = name if dtype == "float32" else f"{name} {dtype}"
    say(
        f"{label}: {len(matrix.rows)} memories, {len(prompt.ranges)} responses, "
        f"{len(prompt.tokens):,} tokens with all memories; medians of {repeats}"
    )
    say(
        f"{label}: tokens: naive {naive.tokens:,}, mindscore {computed:,} "
        f"({naive.tokens / computed:.2f} x fewer), lower bound {bound:,} "
        f"(mindscore {computed / bound:.3f} x it)"
    )
    per_token = [it / naive.tokens for it in seconds.naive]
    as_many = [it * computed for it in per_token]
    say(
        f"{label}: seconds: naive {statistics.median(seconds.naive):.2f} "
        f"({1 / statistics.median(per_token):,.0f} tokens per second), "
        f"mindscore {statistics.median(seconds.mindscore):.2f}; "
        f"naive / mindscore {seconds.ratio(seconds.naive, seconds.mindscore):.2f}"
    )
    say(
        f"{label}: mindscore's seconds, of those of bare forwards of as many tokens: "
        f"{seconds.ratio(seconds.mindscore, as_many):.2f} x"
    )
    signed = matrix.signed()
    worst = max(abs(it - naive.signed(*cell)) for cell, it in signed.items())
    strongest = max(abs(it) for it in signed.values())
    say(
        f"{label}: largest difference of a value from naive's: {worst:.1e} nats "
        f"(largest value: {strongest:.1f})"
    )
    if single is not None:
        lengths = {
            node_id: end - start
            for (start, end), node_id in zip(prompt.ranges, prompt.node_ids, strict=True)
        }
        half(label, matrix, single, naive, lengths)
        faster = seconds.ratio(seconds.single, seconds.mindscore)
        say(f"{label}: float32's seconds by {dtype}'s: {faster:.2f}")


def half(
    label: str, matrix: Matrix, single: Matrix, naive: Naive, lengths: Mapping[str, int]
) -> None:
    """Print how far values in half as many bits are to be trusted, in nats per token."""
    exact = single.signed()
    cells = {cell: it for cell, it in matrix.signed().items() if it != 0}
    floors = [
        it.noise / lengths[it.node_id]
        for row in matrix.rows.values()
        for it in row
        if it.noise is not None and it.signed != 0
    ]
    errors = [abs(it - exact[cell]) / lengths[cell[1]] for cell, it in cells.items()]
    paths = [abs(it - naive.signed(*cell)) / lengths[cell[1]] for cell, it in cells.items()]
    for what, values in (
        ("noise floor that mindscore measured", floors),
        ("difference from naive in the same format", paths),
        ("error against float32", errors),
    ):
        if values:
            say(
                f"{label}: {what}, in nats per token of the response: "
                f"median {statistics.median(values):.1e}, largest {max(values):.1e}"
            )


async def main() -> None:
    parser = argparse.ArgumentParser(description="Tokens and seconds of the full matrix.")
    parser.add_argument("--shape", action="append", help=f"demo or NxM+H (default: {SHAPES})")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    names = options.shape or SHAPES
    if options.repeats < 1:
        parser.error("--repeats: at least 1")
    try:
        for name in names:
            parse_shape(name)
    except ValueError as error:
        parser.error(f"--shape: {error}")
    for name in names:
        await measure(name, options.dtype, options.repeats, options.seed)


if __name__ == "__main__":
    share_one_arena()  # as the command does
    asyncio.run(main())
