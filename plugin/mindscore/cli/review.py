"""``mindscore review``: a page for one operator, on this machine."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mindscore._util.aio import share_one_arena
from mindscore._util.errors import UsageError
from mindscore.cli.interruption import DONE, leave, leave_in, run_until_interrupted
from mindscore.config.file import load_configuration
from mindscore.conversation.conversation import Transcript
from mindscore.display.screen import own_output
from mindscore.readers.conversations import read_chosen

GRACE_S = 5.0
"""How long a run may take to end after SIGTERM."""


@dataclass(frozen=True, slots=True)
class ReviewRequest:
    """What was asked for on the command line."""

    transcript: Path | None
    format: str | None
    memories: Path | None
    select: str | None
    port: int
    config_file: Path | None
    assignments: Sequence[str]


def run_review(request: ReviewRequest) -> int:
    """Serve until told to end; SIGTERM is a good end, Ctrl-C an interruption."""
    from mindscore.review.app import serve_review
    from mindscore.review.runs import Runs

    configuration = load_configuration(request.config_file, request.assignments)
    transcript = _transcript(request)
    share_one_arena()
    out, timers = sys.stdout, list[threading.Timer]()

    def ready(address: str) -> None:
        out.write(f"open {address}\n")
        out.flush()

    def ending() -> None:
        # A forward of a large model cannot be stopped on its way, and nobody waits for it.
        timers.append(leave_in(GRACE_S, lambda: leave(None, DONE)))

    async def serve() -> None:
        runs = Runs(transcript, configuration.tables)
        await serve_review(configuration.settings, runs, request.port, ready, ending)

    try:
        with own_output():
            run_until_interrupted(serve, lambda: "")
    finally:
        for timer in timers:
            timer.cancel()
    return DONE


def _transcript(request: ReviewRequest) -> Transcript | None:
    if request.transcript is None:
        options = {
            "--format": request.format,
            "--memories": request.memories,
            "--select": request.select,
        }
        if given := [name for name, value in options.items() if value is not None]:
            raise UsageError(f"{given[0]} goes with a TRANSCRIPT")
        return None
    return read_chosen(request.transcript, request.format, request.select, request.memories)
