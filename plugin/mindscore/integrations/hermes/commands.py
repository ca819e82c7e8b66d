"""``/mind`` in a chat, and ``hermes mind`` in a terminal."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mindscore._util.errors import format_error
from mindscore.integrations.hermes.queue import TurnQueue
from mindscore.integrations.hermes.worker import Complaints, Worker

if TYPE_CHECKING:
    from mindscore.integrations.hermes.findings import HermesFindings
    from mindscore.integrations.hermes.scoring import Pass


ENOUGH = 10
"""On so many responses an entry has had its chance."""

PATIENCE_S = 5.0
"""How long a chat waits for scores before it is told that they are on their way."""

ACTIONS = {
    "score": "score the turns that wait",
    "status": "what is registered, what waits, and who scores",
    "memories": "what each memory does, and which to drop",
    "candidates": "the responses that may be trained on",
}


class HermesCommands:
    """The actions of both commands, over one queue; ``registered`` is what Hermes took.

    What is slow to import is, when it is asked for.
    """

    def __init__(self, folder: Path, queue: TurnQueue, complaints: Complaints) -> None:
        self.registered: list[str] = []
        self.worker = Worker(self._score_beside, _idle_s, queue.prepare, complaints)
        self._folder = folder
        self._queue = queue
        self._last: Pass | None = None

    @cached_property
    def _findings(self) -> HermesFindings:
        from mindscore.integrations.hermes.findings import HermesFindings

        return HermesFindings(self._folder / "findings.sqlite3")

    def set_up(self, parser: argparse.ArgumentParser) -> None:
        """Give ``hermes mind`` its actions."""
        actions = parser.add_subparsers(dest="mind_action", metavar="ACTION", required=True)
        for name, help_ in ACTIONS.items():
            action = actions.add_parser(name, help=help_, description=help_)
            if name == "memories":
                action.add_argument(
                    "--responses",
                    type=int,
                    default=ENOUGH,
                    metavar="N",
                    help="how many responses an unused entry must have been measured on "
                    "(default: %(default)s)",
                )

    def run(self, arguments: argparse.Namespace) -> None:
        """Do what ``hermes mind`` was asked for, and print it.

        Raises:
            SystemExit: it failed; the status is 1.
        """
        action = arguments.mind_action
        failed, text = self._told(
            lambda: self._act(action, getattr(arguments, "responses", ENOUGH))
        )
        (sys.stderr if failed else sys.stdout).write(f"{text}\n")
        if failed or (action == "score" and self._last is not None and self._last.error):
            raise SystemExit(1)

    async def chat(self, raw: str = "") -> str:
        """What ``/mind`` answers."""
        action = raw.strip() or "score"
        if action not in ACTIONS:
            return f"Usage: /mind [{'|'.join(ACTIONS)}]"
        if action != "score":
            _, text = self._told(lambda: self._act(action, ENOUGH))
            return text
        self._last = None
        done = self.worker.ask()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, done.wait, PATIENCE_S)
        if not done.is_set():
            return "Scoring goes on beside the chat: /mind memories shows what was found so far."
        _, text = self._told(self._last_pass)
        return text

    def _act(self, action: str, enough: int) -> str:
        actions: dict[str, Callable[[], str]] = {
            "score": self._score,
            "status": self._status,
            "memories": lambda: self._memories(enough),
            "candidates": self._candidates,
        }
        return actions[action]()

    def _score(self) -> str:
        self._score_beside(lambda: True)
        return self._last_pass()

    def _score_beside(self, goes_on: Callable[[], bool]) -> None:
        from mindscore.integrations.hermes.database import OneProcess
        from mindscore.integrations.hermes.scoring import HermesScoring, load_settings

        turn = OneProcess(self._folder / "scoring.lock")
        scoring = HermesScoring(self._queue, self._findings, turn)
        self._last = scoring.run(load_settings(), goes_on)

    def _last_pass(self) -> str:
        from mindscore._util.errors import StoreError
        from mindscore.integrations.hermes.texts import pass_text

        if self._last is None:
            raise StoreError("scoring failed: see Hermes' log, or run: hermes mind score")
        return pass_text(self._last, self._queue.waiting())

    def _status(self) -> str:
        from mindscore.integrations.hermes.scoring import load_settings
        from mindscore.integrations.hermes.texts import status_text

        measured = {key.key for model in self._models() for key in self._findings.memories(model)}
        waiting = self._queue.waiting()
        return status_text(self.registered, waiting, load_settings(), len(measured))

    def _memories(self, enough: int) -> str:
        from mindscore.integrations.hermes.scoring import load_settings
        from mindscore.integrations.hermes.texts import memories_text

        models = self._models()
        found = self._findings.memories(models[0]) if models else []
        least = load_settings().settings.memory.min_divergence
        return memories_text(found, enough, least, models[0] if models else "")

    def _candidates(self) -> str:
        from mindscore.integrations.hermes.texts import candidates_text

        models = self._models()
        return candidates_text(self._findings.candidates(models[0]) if models else [])

    def _models(self) -> Sequence[str]:
        return self._findings.models()

    @staticmethod
    def _told(act: Callable[[], str]) -> tuple[bool, str]:
        """Whether it failed, and what to say."""
        try:
            return False, act()
        # The agent goes on, whatever it is.
        except Exception as error:
            return True, f"mindscore: {format_error(error)}"


def _idle_s() -> float:
    from mindscore.integrations.hermes.scoring import load_settings

    return load_settings().options.idle_s
