"""``mindscore demo``: a bundled conversation, the local model, all three flows."""

from __future__ import annotations

import tempfile
from importlib.resources import as_file, files
from typing import Any

from rich.console import Console
from rich.text import Text

from mindhooks import FinetuneCandidate, MemoryScore, MindCommand
from mindscore._util.aio import share_one_arena
from mindscore.cli.interruption import DONE, FAILED, run_until_interrupted
from mindscore.conversation.conversation import Transcript
from mindscore.conversation.native import read_transcript
from mindscore.display.screen import Screen, new_console
from mindscore.display.tables import score_line, show_result
from mindscore.session.result import run_in
from mindscore.session.session import Session, TranscriptMind

STEPS = {
    MindCommand.SCORE: "1. memory-scoring: the background pass over memories that are due",
    MindCommand.SCORE_FULL: "2. The full matrix: every memory against every response",
    MindCommand.SCORE_FINETUNE: "3. finetune-scoring: what to train on, and what the model says "
    "without memories",
}


def run_demo() -> int:
    """Run the three flows, one after the other, and print each one's findings."""
    share_one_arena()
    with as_file(files("mindscore") / "demo" / "conversation.jsonl") as file:
        transcript = read_transcript(file)
    console = new_console()
    with tempfile.TemporaryDirectory(prefix="mindscore-demo-") as folder:
        tables = {
            "store": {"url": f"sqlite:///{folder}/store.sqlite3"},
            "finetune": {"generate_alternates": True, "max_alternate_tokens": 40},
        }
        return run_until_interrupted(lambda: _run(transcript, tables, console), lambda: "")


async def _run(transcript: Transcript, tables: dict[str, Any], console: Console) -> int:
    def hear(found: MemoryScore | FinetuneCandidate) -> None:
        if isinstance(found, MemoryScore) and found.mode == "incremental":
            console.print(score_line(found))

    keys = tuple(transcript.keys())
    console.print(
        f"A conversation of {len(transcript.conversation)} messages with {len(keys)} memories, "
        "scored by SmolLM2-135M on this machine. The first run converts the weights (20 s)."
    )
    status = DONE
    with Screen() as screen:
        mind = TranscriptMind(transcript, screen.activity, hear)
        async with Session(mind, tables) as session:
            for command, title in STEPS.items():
                console.print(Text(f"\n{title}\n", style="bold"))
                result = await run_in(session, command, "smollm2", keys)
                show_result(console, result)
                if result.error is not None:
                    screen.complain(result.error)
                    status = FAILED
    return status
