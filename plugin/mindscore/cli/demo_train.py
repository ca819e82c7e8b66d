"""``mindscore demo --train``: score, train on what depends on memories, and score again."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mindhooks import Context, FinetuneCandidate, MindCommand, MindhooksError, Scorer
from mindscore.chat.template_of import template_of
from mindscore.cli.demo_server import DemoServer, demo_server
from mindscore.cli.interruption import run_until_interrupted
from mindscore.cli.memory import share_one_arena
from mindscore.cli.output import new_console
from mindscore.cli.screen import Screen
from mindscore.cli.status import DONE
from mindscore.flows.candidates import bare_prompt, end_of_turn
from mindscore.host import Session, TranscriptMind
from mindscore.internalised import (
    Effect,
    mean_divergence,
    memory_effects,
    relative_change,
    response_totals,
)
from mindscore.text import one_line
from mindscore.train import send_to_train
from mindscore.transcripts import Transcript, read_transcript

SAMPLES = 3
"""Of how many responses it is shown what the model says without memories."""

MOST_TOKENS = 40


@dataclass(frozen=True, slots=True)
class Measured:
    """What a model makes of the three conversations."""

    trained: list[Effect]
    held_out: list[Effect]
    unrelated: dict[str, float]
    said: list[str]


def run_training_demo() -> int:
    """Run it on the bundled conversations, with a store and a trainer that are thrown away."""
    share_one_arena()
    console = new_console()
    with tempfile.TemporaryDirectory(prefix="mindscore-demo-") as folder:
        return run_until_interrupted(lambda: _run(folder, console), lambda: "")


async def _run(folder: str, console: Console) -> int:
    console.print(
        "Which answers of a conversation depend on memories; SmolLM2-135M trained on those, "
        "without the memories; and the same answers again. All on this machine. The first run "
        "converts the weights (20 s)."
    )
    with Screen() as screen:
        async with demo_server(Path(folder) / "training") as server:
            tables = {
                "server": {"scorer": "score", "base_url": server.base_url, "self_test": False},
                "finetune": {"window_fraction": 1.0},
                "store": {"url": f"sqlite:///{folder}/store.sqlite3"},
                "train": {"context": "bare"},
            }
            mind = TranscriptMind(_bundled("conversation"), screen.activity)
            async with Session(mind, tables) as session:
                demo = _Demo(session, tables, console, screen)
                await demo.show(server)
    return DONE


class _Demo:
    """Four steps over one session, printed as they are done."""

    def __init__(
        self, session: Session, tables: dict[str, Any], console: Console, screen: Screen
    ) -> None:
        self._session = session
        self._tables = tables
        self._console = console
        self._screen = screen

    async def show(self, server: DemoServer) -> None:
        mind, print_ = self._session.mind, self._console.print
        self._title("1. finetune-scoring: what falls apart without the memories")
        await self._session.run(MindCommand.SCORE_FINETUNE)
        stats = mind.state.finetune_last_run
        if stats is None or stats.error is not None or not mind.candidates:
            raise MindhooksError(f"nothing to train on: {stats.error if stats else 'no run'}")
        candidates = tuple(mind.candidates)
        print_(_found(candidates))
        print_(
            f"{len(candidates)} of {stats.responses_considered} answers lose {stats.threshold:g} "
            "nat or more."
        )
        before = await self._measure(candidates, "before")

        self._title("2. Training: an adapter (LoRA), on those answers, without the memories")
        job = await send_to_train(candidates, self._tables)
        with self._screen.activity("training") as activity:
            ended = await server.finished(job, activity)
        print_(
            f"{ended.epoch} epochs in {ended.seconds:.0f} s; loss of the last: {ended.loss:.2f} "
            "nats per token."
        )
        await server.activate(job)

        self._title("3. Scored again, with the adapter")
        after = await self._measure(candidates, "after")
        trained_on = {candidate.node_id for candidate in candidates}
        print_(_comparison(before, after, trained_on))
        print_(Text("* of each answer, up or down: none cancels another", style="dim"))

        self._title("4. What it says without any memory")
        for candidate, then, now in zip(candidates, before.said, after.said, strict=False):
            question = candidate.prior_context.rpartition("[user]\n")[2]
            print_(Text(one_line(question, 78), style="dim"))
            print_(Text(f"  before  {one_line(then, 68)}"))
            print_(Text(f"  after   {one_line(now, 68)}", style="bold"))

    async def _measure(self, candidates: Sequence[FinetuneCandidate], when: str) -> Measured:
        scorer = await self._session.registry.scorer()
        with self._screen.activity(f"measuring {when} training"):
            context = await self._session.mind.context()
            held_out = await self._context("paraphrases", scorer)
            unrelated = await self._context("unrelated", scorer)
            return Measured(
                trained=await memory_effects(context, scorer),
                held_out=await memory_effects(held_out, scorer),
                unrelated=await response_totals(unrelated, scorer),
                said=[await _said(scorer, context, it) for it in candidates[:SAMPLES]],
            )

    async def _context(self, name: str, scorer: Scorer) -> Context:
        template = template_of(scorer, self._tables)
        return await _bundled(name).context(scorer.tokenize, template)

    def _title(self, title: str) -> None:
        self._console.print(Text(f"\n{title}\n", style="bold"))


async def _said(scorer: Scorer, context: Context, candidate: FinetuneCandidate) -> str:
    """What the model says in the place of a response, without the memories."""
    prompt, stop = bare_prompt(context, candidate), end_of_turn(context)
    return (await scorer.generate(prompt, max_tokens=MOST_TOKENS, stop=stop)).text


def _found(candidates: Sequence[FinetuneCandidate]) -> Table:
    table = Table(box=None)
    table.add_column("nats", justify="right", min_width=5)
    table.add_column("answer", no_wrap=True)
    for it in candidates:
        table.add_row(f"{it.divergence:.1f}", one_line(f"#{it.entry_idx} {it.response_text}", 68))
    return table


def _comparison(before: Measured, after: Measured, trained_on: set[str]) -> Table:
    table = Table(box=None)
    table.add_column("log-probabilities in nats, in the mean")
    for title in ("before", "after", "change"):
        table.add_column(title, justify="right", no_wrap=True)

    def told(title: str, then: list[Effect], now: list[Effect]) -> None:
        table.add_row(Text(title, style="bold"))
        for name, values in (
            ("with the memories", [_mean([it.with_ for it in each]) for each in (then, now)]),
            ("without them", [_mean([it.without for it in each]) for each in (then, now)]),
        ):
            table.add_row(f"  {name}", *(f"{value:.1f}" for value in values))
        first, second = mean_divergence(then), mean_divergence(now)
        change = f"{second / first - 1:+.0%}"
        table.add_row("  divergence", f"{first:.1f}", f"{second:.1f}", change)

    then, now = ([e for e in it.trained if e.node_id in trained_on] for it in (before, after))
    told(f"{len(trained_on)} answers trained on", then, now)
    told(
        f"{len(before.held_out)} about the same, asked in other words",
        before.held_out,
        after.held_out,
    )
    table.add_row(Text(f"{len(before.unrelated)} unrelated answers", style="bold"))
    changed = f"{relative_change(before.unrelated, after.unrelated):.1%} *"
    values = (_mean(list(it.unrelated.values())) for it in (before, after))
    table.add_row("  without memories", *(f"{value:.1f}" for value in values), changed)
    return table


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _bundled(name: str) -> Transcript:
    with as_file(files("mindscore") / "demo" / f"{name}.jsonl") as file:
        return read_transcript(file)
