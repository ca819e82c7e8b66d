"""``mindscore demo``: the three flows, or the whole loop of training, on bundled conversations."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mindhooks import (
    Activity,
    Context,
    FinetuneCandidate,
    MemoryScore,
    MindCommand,
    MindhooksError,
    Scorer,
)
from mindscore._util.aio import share_one_arena
from mindscore._util.errors import TrainError
from mindscore._util.text import one_line
from mindscore.cli.interruption import DONE, FAILED, run_until_interrupted
from mindscore.config.settings import ServerSettings
from mindscore.conversation.choice import template_for
from mindscore.conversation.conversation import Transcript
from mindscore.conversation.native import read_transcript
from mindscore.display.screen import Screen, new_console
from mindscore.display.tables import score_line, show_result
from mindscore.flows.finetune import bare_prompt, end_of_turn
from mindscore.http.client import WireClient
from mindscore.http.runner import listen
from mindscore.measure.leave_one_out import (
    Effect,
    mean_divergence,
    memory_effects,
    relative_change,
    response_totals,
)
from mindscore.measure.retry import with_retries
from mindscore.scorers.local.scorer import LocalScorer
from mindscore.serve.app import make_app
from mindscore.serve.trainer import Trainer
from mindscore.session.session import Session
from mindscore.training.lora.job import Recipe
from mindscore.training.outbox import send_to_train

STEPS = {
    MindCommand.SCORE: "1. memory-scoring: the background pass over memories that are due",
    MindCommand.SCORE_FULL: "2. The full matrix: every memory against every response",
    MindCommand.SCORE_FINETUNE: "3. finetune-scoring: what to train on, and what the model says "
    "without memories",
}


def run_demo(*, train: bool) -> int:
    """Run the demo with a store, and a trainer, that are thrown away; return the exit status."""
    share_one_arena()
    console, run = new_console(), _run_training if train else _run_flows
    with tempfile.TemporaryDirectory(prefix="mindscore-demo-") as folder:
        return run_until_interrupted(lambda: run(folder, console), lambda: "")


async def _run_flows(folder: str, console: Console) -> int:
    def hear(found: MemoryScore | FinetuneCandidate) -> None:
        if isinstance(found, MemoryScore) and found.mode == "incremental":
            console.print(score_line(found))

    transcript = _bundled("conversation")
    tables = {
        "store": {"url": f"sqlite:///{folder}/store.sqlite3"},
        "finetune": {"generate_alternates": True, "max_alternate_tokens": 40},
    }
    keys = tuple(transcript.keys())
    console.print(
        f"A conversation of {len(transcript.conversation)} messages with {len(keys)} memories, "
        "scored by SmolLM2-135M on this machine. The first run converts the weights (20 s)."
    )
    status = DONE
    with Screen("loading the model …") as screen:
        async with Session(transcript, screen.activity, hear).open(tables) as session:
            # Loads the model: where it is missing, that is said once, and not by each flow.
            await (await session.registry.scorer()).score([])
            for command, title in STEPS.items():
                console.print(Text(f"\n{title}\n", style="bold"))
                result = await session.attempt(command, keys)
                show_result(console, result)
                if result.error is not None:
                    screen.fail(result.error)
                    status = FAILED
    return status


POLL_S = 0.5
RECIPE = Recipe(target=0.18, keep=70.0)
"""Longer training than a server's default, and held closer to the model as it was."""


class TrainingJob(Struct):
    """A training job, as ``/v1/train/JOB`` describes it.

    ``loss`` is the last epoch's mean, in nats per token.
    """

    status: str
    epoch: int
    epochs: int
    loss: float | None
    seconds: float
    error: str | None


class DemoServer:
    """A client of the demo's training server."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._settings = ServerSettings(base_url=base_url)
        self._client = WireClient(self._settings)

    async def finished(self, job_id: str, activity: Activity) -> TrainingJob:
        """Wait until a job has succeeded, and show its progress in ``activity``.

        Raises:
            TrainError: it failed; says why.
        """
        while True:
            job = await with_retries(
                lambda: self._client.get(f"/train/{job_id}", TrainingJob), self._settings
            )
            if job.status == "succeeded":
                return job
            if job.status not in ("queued", "running"):
                raise TrainError(f"job {job_id} {job.status}: {job.error}")
            loss = "" if job.loss is None else f", {job.loss:.2f} nats per token"
            activity.update(f"training: epoch {job.epoch}{loss}", job.epoch, job.epochs or None)
            await asyncio.sleep(POLL_S)

    async def activate(self, job_id: str) -> None:
        """Swap the job's adapter in."""
        await self._client.post(f"/train/{job_id}/activate", {}, TrainingJob)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


@asynccontextmanager
async def demo_server(folder: Path) -> AsyncIterator[DemoServer]:
    """Serve the bundled model on loopback, with training in ``folder``.

    Raises:
        TrainError: what training needs is not installed.
    """
    async with aclosing(LocalScorer({})) as scorer:
        # Loads the model: from here on, what is sent to be trained on is checked against it.
        await scorer.score([])
        # Nobody asks for anything meanwhile.
        trainer = Trainer(scorer, folder, RECIPE, threads=os.cpu_count() or 1)
        async with (
            listen(make_app(scorer, trainer=trainer)) as listening,
            aclosing(DemoServer(f"{listening.address}/v1")) as server,
        ):
            yield server


SAMPLES = 3
"""Responses of which the demo shows what the model says without memories."""

MOST_TOKENS = 40


@dataclass(frozen=True, slots=True)
class Measured:
    """A model's measures on the three conversations."""

    trained: list[Effect]
    held_out: list[Effect]
    unrelated: dict[str, float]
    said: list[str]


async def _run_training(folder: str, console: Console) -> int:
    console.print(
        "Which answers of a conversation depend on memories; SmolLM2-135M trained on those, "
        "without the memories; and the same answers again. All on this machine. The first run "
        "converts the weights (20 s)."
    )
    with Screen("loading the model …") as screen:
        async with demo_server(Path(folder) / "training") as server:
            tables = {
                "server": {"scorer": "score", "base_url": server.base_url, "self_test": False},
                "finetune": {"window_fraction": 1.0},
                "store": {"url": f"sqlite:///{folder}/store.sqlite3"},
                "train": {"context": "bare"},
            }
            async with Session(_bundled("conversation"), screen.activity).open(tables) as session:
                demo = _Demo(session, tables, console, screen)
                await demo.show(server)
    return DONE


class _Demo:
    """The four steps of the training demo, printed as they are done."""

    def __init__(
        self, session: Session, tables: dict[str, Any], console: Console, screen: Screen
    ) -> None:
        self._session = session
        self._tables = tables
        self._console = console
        self._screen = screen

    async def show(self, server: DemoServer) -> None:
        session, print_ = self._session, self._console.print
        self._title("1. finetune-scoring: what falls apart without the memories")
        await self._session.run(MindCommand.SCORE_FINETUNE)
        stats = session.state.finetune_last_run
        if stats is None or stats.error is not None or not session.candidates:
            raise MindhooksError(f"nothing to train on: {stats.error if stats else 'no run'}")
        candidates = tuple(session.candidates)
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
            context = await self._session.context()
            held_out = await self._context("paraphrases", scorer)
            unrelated = await self._context("unrelated", scorer)
            return Measured(
                trained=await memory_effects(context, scorer),
                held_out=await memory_effects(held_out, scorer),
                unrelated=await response_totals(unrelated, scorer),
                said=[await _said(scorer, context, it) for it in candidates[:SAMPLES]],
            )

    async def _context(self, name: str, scorer: Scorer) -> Context:
        transcript = _bundled(name)
        template, _ = await template_for(transcript, scorer, self._tables, scorer.tokenize)
        return await transcript.context(scorer.tokenize, template)

    def _title(self, title: str) -> None:
        self._console.print(Text(f"\n{title}\n", style="bold"))


async def _said(scorer: Scorer, context: Context, candidate: FinetuneCandidate) -> str:
    """Return what the model says in the place of a response, without the memories."""
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
