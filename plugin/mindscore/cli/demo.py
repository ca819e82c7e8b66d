"""``mindscore demo``: the three flows, or the whole loop of training, on bundled conversations."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mindhooks import (
    Context,
    FinetuneCandidate,
    MemoryScore,
    MindCommand,
    MindhooksError,
    Scorer,
    in_thread,
)
from mindscore._util.aio import share_one_arena
from mindscore._util.errors import UsageError
from mindscore._util.text import count_of, one_line
from mindscore.cli.interruption import DONE, FAILED, run_until_interrupted
from mindscore.config.settings import ServerSettings, TrainSettings, parse_settings
from mindscore.conversation.choice import template_for
from mindscore.conversation.conversation import Transcript
from mindscore.conversation.native import read_transcript
from mindscore.display.ledger import ledger_tables
from mindscore.display.screen import Screen, new_console
from mindscore.display.tables import score_line, show_result
from mindscore.flows.finetune import bare_prompt, end_of_turn
from mindscore.http.runner import listen
from mindscore.measure.leave_one_out import (
    Effect,
    mean_divergence,
    memory_effects,
    relative_change,
    response_totals,
)
from mindscore.scorers.local.scorer import LocalScorer
from mindscore.serve.app import make_app
from mindscore.serve.trainer import Trainer
from mindscore.session.session import Session
from mindscore.store import Ledger, Reviews
from mindscore.training.jobs import TrainerClient, TrainingJob
from mindscore.training.ledger import BASE, Measurer
from mindscore.training.lora.job import Recipe
from mindscore.training.outbox import send_to_train

STEPS = {
    MindCommand.SCORE: "1. memory-scoring: the background pass over memories that are due",
    MindCommand.SCORE_FULL: "2. The full matrix: every memory against every response",
    MindCommand.SCORE_FINETUNE: "3. finetune-scoring: what to train on, and what the model says "
    "without memories",
}


def run_demo(*, train: bool, rounds: int = 1, keep: Path | None = None) -> int:
    """Run the demo with a store, and a trainer, that are thrown away; return the exit status.

    ``keep``: the folder that the last adapter is copied to.
    """
    if (rounds > 1 or keep is not None) and not train:
        raise UsageError(f"{'--rounds' if rounds > 1 else '--keep'} goes with --train")
    if keep is not None and keep.exists():
        raise UsageError(f"--keep {keep}: is there already: name a new folder")
    # As compare takes it, a relative one could be the name of a model.
    kept = None if keep is None else keep.absolute()
    share_one_arena()
    console = new_console()
    with tempfile.TemporaryDirectory(prefix="mindscore-demo-") as folder:
        return run_until_interrupted(
            lambda: (
                _run_training(folder, console, rounds, kept)
                if train
                else _run_flows(folder, console)
            ),
            lambda: "",
        )


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


RECIPE = Recipe(target=0.18, keep=70.0)
"""Longer training than a server's default, and held closer to the model as it was."""


@asynccontextmanager
async def demo_server(folder: Path) -> AsyncIterator[str]:
    """Serve the bundled model on loopback, with training in ``folder``; yield its address.

    Raises:
        TrainError: what training needs is not installed.
    """
    async with aclosing(LocalScorer({})) as scorer:
        # Loads the model: from here on, what is sent to be trained on is checked against it.
        await scorer.score([])
        # Nobody asks for anything meanwhile.
        threads = os.cpu_count() or 1
        trainer = Trainer(scorer, folder, RECIPE, threads, TrainSettings().guard)
        async with listen(make_app(scorer, trainer=trainer)) as listening:
            yield f"{listening.address}/v1"


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


async def _run_training(folder: str, console: Console, rounds: int, keep: Path | None) -> int:
    console.print(
        "Which answers of a conversation depend on memories; SmolLM2-135M trained on those, "
        "without the memories; and the same answers again. All on this machine. The first run "
        "converts the weights (20 s)."
    )
    with Screen("loading the model …") as screen:
        async with training_demo(folder, console, screen) as it:
            await it.show(rounds)
            if keep is not None:
                await it.keep(keep)
    return DONE


@asynccontextmanager
async def training_demo(
    folder: str, console: Console, screen: Screen
) -> AsyncIterator[TrainingDemo]:
    """Open the demo's server and its session over the bundled conversation."""
    async with demo_server(Path(folder) / "training") as base_url:
        tables = {
            "server": {"scorer": "score", "base_url": base_url, "self_test": False},
            "finetune": {"window_fraction": 1.0},
            "store": {"url": f"sqlite:///{folder}/store.sqlite3"},
            "train": {"context": "bare"},
        }
        client = TrainerClient(ServerSettings(base_url=base_url))
        async with (
            Session(_bundled("conversation"), screen.activity).open(tables) as session,
            aclosing(client),
        ):
            yield TrainingDemo(session, client, tables, console, screen)


class TrainingDemo:
    """The steps of the training demo, printed as they are done.

    ``adapter`` is the folder of the last one that was activated.
    """

    def __init__(
        self,
        session: Session,
        client: TrainerClient,
        tables: dict[str, Any],
        console: Console,
        screen: Screen,
    ) -> None:
        self._session = session
        self._client = client
        self._tables = tables
        self._console = console
        self._screen = screen
        self._store = parse_settings(tables).store
        self.adapter = ""

    async def show(self, rounds: int) -> None:
        """Score, train in rounds of some of the answers each, score again, and print all of it.

        Raises:
            MindhooksError: a step failed, or a round has not passed its guard.
        """
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
        # By which the ledger knows on which memories each answer depends.
        await self._session.run(MindCommand.SCORE_FULL)
        before = await self._measure(candidates, "before")
        await self._write_round(BASE)

        self._title("2. Training: an adapter (LoRA), on those answers, without the memories")
        for number in range(rounds):
            part = candidates[number::rounds]
            if rounds > 1:
                print_(f"Round {number + 1}: {count_of(len(part), 'answer')}")
            job = await self.train(await send_to_train(part, self._tables))
            job.require_guard()
            await self._client.activate(job.job_id)
            self.adapter = job.adapter or ""
            await self._write_round(job.job_id)

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

        self._title("5. The ledger: which memories the model knows by itself, round after round")
        await self.show_ledger()

    async def train(self, job_id: str) -> TrainingJob:
        """Wait for a job of the demo's server, print what came of it, and return it.

        Raises:
            TrainError: it failed; says why.
        """
        with self._screen.activity("training") as activity:
            job = await self._client.finished(job_id, activity)
        self._console.print(f"{job.words}.")
        if job.guard is not None:
            self._console.print(Text(f"{job.guard.words}."))
        return job

    async def keep(self, folder: Path) -> None:
        """Copy the last adapter, and print how to compare with it.

        Raises:
            UsageError: the folder cannot be written.
        """
        try:
            await in_thread(shutil.copytree, self.adapter, folder)
        except OSError as error:
            raise UsageError(f"--keep {folder}: cannot be written: {error}") from None
        file = shlex.quote(str(files("mindscore") / "demo" / "conversation.jsonl"))
        text = f"\nThe adapter stays: mindscore compare {file} --with {shlex.quote(str(folder))}"
        self._console.print(Text(text), soft_wrap=True)

    async def show_ledger(self) -> None:
        """Print the ledger."""
        scorer = await self._session.registry.scorer()
        for it in ledger_tables(await Ledger(self._store).rounds(scorer.model)):
            self._console.print(it)

    async def _write_round(self, name: str) -> None:
        scorer = await self._session.registry.scorer()
        answers = await Reviews(self._store).queue(scorer.model)
        with self._screen.activity("ledger") as activity:
            measurer = Measurer(scorer, Ledger(self._store), scorer.model, activity)
            await measurer.measure(name, "", answers)

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
