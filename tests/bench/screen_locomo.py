"""Screened matrices of conversations of LoCoMo, beside exact ones, which are kept in a folder."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from locomo import read_locomo
from screen_run import LARGE, STRONG, Run, run_matrix
from shapes import say

from mindhooks import MemoryStats, load_scorer
from mindscore.conversation.native import read_transcript

Lines = list[dict[str, Any]]

SHORT = 3
"""Letters of words that say little, at most."""


@dataclass(frozen=True, slots=True)
class Exact:
    """An exact matrix: signed nats by memory and response, the tokens it took, its CPU seconds."""

    rows: Mapping[str, Mapping[str, float]]
    tokens: int
    seconds: float


def locomo_lines(talk: Mapping[str, Any], cut: int, memories: int, questions: int) -> Lines:
    """Return a transcript of LoCoMo's questions and answers, with its observations as memories.

    It has the observations of that ``cut``, and questions whose evidence these are, first those
    whose answers are in their words; where there are fewer, questions about others follow.
    """
    observed = [
        (f"{session}-{number}", text, evidence)
        for session in range(1, 40)
        for number, (text, *evidence) in enumerate(
            fact for its in talk.get(f"session_{session}_observation", {}).values() for fact in its
        )
    ]
    first = max(0, min(cut * memories, len(observed) - memories))
    facts = observed[first : first + memories]
    told = {turn for _, _, evidence in facts for turn in _flat(evidence)}
    asked = [it for it in talk["qa"] if "answer" in it and it.get("evidence")]
    words = _words(" ".join(text for _, text, _ in facts))

    def strangeness(it: Mapping[str, Any]) -> tuple[bool, float]:
        answer = _words(str(it["answer"]))
        return not told.issuperset(it["evidence"]), -len(answer & words) / max(1, len(answer))

    asked.sort(key=strangeness)
    lines: Lines = [{"role": "system", "content": "Answer from what you know of the two friends."}]
    lines += [{"role": "memory", "key": key, "content": text} for key, text, _ in facts]
    for it in asked[:questions]:
        lines.append({"role": "user", "content": it["question"]})
        lines.append({"role": "assistant", "content": str(it["answer"])})
    return lines


def _words(text: str) -> set[str]:
    return {it for it in re.findall(r"\w+", text.casefold()) if len(it) > SHORT}


def _flat(evidence: Any) -> Iterator[str]:
    for it in [evidence] if isinstance(evidence, str) else evidence:
        if isinstance(it, str):
            yield it
        else:
            yield from _flat(it)


async def run_lines(
    lines: Lines, server: Mapping[str, Any], id_: str, *, screen: bool, **memory: Any
) -> Run:
    """Measure the matrix of a transcript's ``lines`` by the scorer of ``server``."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{id_}.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        transcript = read_transcript(file)
    async with aclosing(await load_scorer(server)) as scorer:
        context = await transcript.context(scorer.tokenize)
        # Loaded, and warm.
        await scorer.score([context.wire_prompt(range(2), lambda _: True)])
        return await run_matrix(context, scorer, screen=screen, **memory)


async def exact_matrix(
    lines: Lines, server: Mapping[str, Any], folder: Path | None, id_: str
) -> Exact:
    """Return the exact matrix of ``lines``, from ``folder`` if it is there, else measured."""
    digest = hashlib.sha256(json.dumps([server, lines]).encode()).hexdigest()
    file = folder / f"{id_}.json" if folder else None
    if file and file.exists():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept.pop("of") == digest:
            return Exact(**kept)
    run = await run_lines(lines, server, id_, screen=False)
    found = Exact(run.rows, tokens_of(run.stats), run.seconds)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = {"of": digest, "rows": found.rows, "tokens": found.tokens, "seconds": found.seconds}
        file.write_text(json.dumps(kept), encoding="utf-8")
    return found


def cuts(given: argparse.Namespace) -> Iterator[tuple[str, Lines]]:
    """Yield a name and the lines of each cut: the first of every conversation, then the second."""
    talks = read_locomo(given.folder)
    made = [(cut, number) for cut in (0, 1) for number in range(len(talks))]
    for cut, number in made[: given.conversations]:
        lines = locomo_lines(talks[number], cut, given.memories, given.questions)
        yield f"{number}-{cut}-{given.memories}-{given.questions}", lines


async def measure_locomo(given: argparse.Namespace) -> None:
    """Print, by cut and in all, what a screen finds of the exact matrix."""
    tops, found_tops, large, found_large, held, shares, speeds = 0, 0, 0, 0, 0, [], []
    made = list(cuts(given))
    server = {"scorer": given.scorer, "dtype": given.dtype}
    memory = {"screen_sample": given.sample}
    for id_, lines in made:
        exact = await exact_matrix(lines, server, given.exact, id_)
        screened = await run_lines(lines, server, id_, screen=True, **memory)
        receipt = screened.receipt
        if receipt is None:
            raise RuntimeError("there is no receipt")
        measured = set(receipt.exact)
        sizes = {key: max(map(abs, row.values()), default=0.0) for key, row in exact.rows.items()}
        mine = [0, 0, 0, 0]
        for node_id in next(iter(exact.rows.values())):
            nats, key = max((row.get(node_id, 0.0), key) for key, row in exact.rows.items())
            mine[0] += nats > STRONG
            mine[1] += nats > STRONG and key in measured
        mine[2] = sum(nats > LARGE for nats in sizes.values())
        mine[3] = sum(nats > LARGE and key in measured for key, nats in sizes.items())
        tops, found_tops = tops + mine[0], found_tops + mine[1]
        large, found_large = large + mine[2], found_large + mine[3]
        is_held = all(
            sum(sizes[key] > it.nats for key in receipt.estimated) <= it.most
            for it in receipt.missed
        )
        held += is_held
        shares.append(tokens_of(screened.stats) / exact.tokens)
        speeds.append(screened.seconds / exact.seconds)
        say(
            f"{id_}: {len(exact.rows)} memories, {receipt.method}; tokens / exact "
            f"{shares[-1]:.3f} "
            f"(the receipt says {receipt.spent_tokens / receipt.exact_tokens:.3f}), "
            f"CPU seconds / exact {speeds[-1]:.2f} of {exact.seconds:.0f}; top memory among the "
            f"exact rows in {mine[1]} of {mine[0]} strong responses; {mine[3]} of {mine[2]} "
            f"memories above {LARGE:g} nats; {len(receipt.exact)} exact; error "
            f"{_nats(receipt.error_median)} / {_nats(receipt.error_p95)}; together "
            f"{_nats(receipt.together)}; bounds {[(it.nats, it.most) for it in receipt.missed]} "
            f"{'hold' if is_held else 'DO NOT HOLD'}; "
            f"{'; '.join(receipt.remarks)}"
        )
    say(
        f"all: tokens / exact {np.mean(shares):.3f}, at most {max(shares):.3f}; "
        f"CPU seconds / exact {np.mean(speeds):.2f}, at most {max(speeds):.2f}; "
        f"top found {found_tops} of {tops} ({found_tops / max(1, tops):.3f}); "
        f"above {LARGE:g} nats {found_large} of {large} ({found_large / max(1, large):.3f}); "
        f"bounds hold in {held} of {len(made)}"
    )


def tokens_of(stats: MemoryStats) -> int:
    """Return the tokens of a run: those computed, or those sent where that is not known."""
    return stats.prompt_tokens if stats.computed_tokens is None else stats.computed_tokens


def _nats(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
