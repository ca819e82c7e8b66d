"""The plugin that Hermes loads, through the entry-point group ``hermes_agent.plugins``.

Hermes loads it once it is enabled: ``hermes plugins enable mindscore``. It works with 0.19.0. It
imports nothing of Hermes, and nothing slow, since an agent waits for it.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindscore._util.errors import ErrorLog, StoreError, format_error
from mindscore._util.text import count_of, one_line, printable
from mindscore.integrations.hermes.capture import Capture, Worker

if TYPE_CHECKING:
    from mindscore.integrations.hermes.queue import TurnQueue, Waiting
    from mindscore.integrations.hermes.scoring import (
        FoundCandidate,
        HermesFindings,
        HermesSettings,
        MeasuredMemory,
        Pass,
    )


# Imported where they are used: registering the plugin is to be quick.

TEXT_WIDTH = 60
KINDS = {"memory": "MEMORY.md", "user": "USER.md", "recall": "recalled", "other": "other"}
DROPPABLE = ("memory", "user")
"""Kinds of memories that the user can drop; a provider chooses what it recalls."""

ENOUGH_RESPONSES = 10
"""Responses on which an entry must have been unused before it may be dropped."""

WAITS = (
    "live.tokens_per_hour is used up: the turns that were not scored wait until tokens are free; "
    "hermes mind score does not wait"
)

PATIENCE_S = 5.0
"""Time that a chat waits for scores before it says that scoring goes on."""

ACTIONS = {
    "score": "score the waiting turns",
    "status": "show what is registered, how many turns wait, and which scorer is used",
    "memories": "show what each memory does, and which ones to drop",
    "candidates": "list the responses that could be trained on",
    "prune": "show what MEMORY.md and USER.md would be without the entries that could go",
}


class HermesCommands:
    """The actions of both commands; ``registered`` lists what Hermes has accepted."""

    def __init__(self, folder: Path, log: ErrorLog) -> None:
        self.registered: list[str] = []
        self.worker = Worker(
            lambda goes_on: self._score_beside(goes_on, asked=self.worker.is_asked),
            _idle_s,
            lambda: self.queue.prepare(),
            log,
        )
        self._folder = folder
        self._log = log
        self._last: Pass | None = None

    @cached_property
    def queue(self) -> TurnQueue:
        """The turns that wait."""
        from mindscore.integrations.hermes.queue import TurnQueue

        return TurnQueue(self._folder / "queue.sqlite3")

    @cached_property
    def _findings(self) -> HermesFindings:
        from mindscore.integrations.hermes.scoring import HermesFindings

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
                    default=ENOUGH_RESPONSES,
                    metavar="N",
                    help="propose to drop an unused entry only if it was measured on N responses "
                    "(default: %(default)s)",
                )
            if name == "prune":
                action.add_argument(
                    "--dry-run",
                    action="store_true",
                    required=True,
                    help="show it; there is no other way: mindscore changes no memory",
                )

    def run(self, arguments: argparse.Namespace) -> None:
        """Run an action of ``hermes mind``, and print its result.

        Raises:
            SystemExit: it failed; the exit status is 1.
        """
        action = arguments.mind_action
        enough = arguments.responses if action == "memories" else ENOUGH_RESPONSES
        failed, text = self._caught(lambda: self._act(action, enough))
        (sys.stderr if failed else sys.stdout).write(f"{text}\n")
        if failed or (action == "score" and self._last is not None and self._last.error):
            raise SystemExit(1)

    async def chat(self, raw: str = "") -> str:
        """Return the answer to ``/mind``."""
        action = raw.strip() or "score"
        if action not in ACTIONS:
            return f"Usage: /mind [{'|'.join(ACTIONS)}]"
        if action != "score":
            # Some of them read the store, which takes a loop of its own.
            act = functools.partial(self._act, action, ENOUGH_RESPONSES)
            _, text = await asyncio.to_thread(self._caught, act)
            return text
        self._last = None
        done = self.worker.ask()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, done.wait, PATIENCE_S)
        if not done.is_set():
            return "Scoring goes on beside the chat: /mind memories shows what was found so far."
        _, text = self._caught(self._last_pass)
        return text

    def _act(self, action: str, enough: int) -> str:
        actions: dict[str, Callable[[], str]] = {
            "score": self._score,
            "status": self._status,
            "memories": lambda: self._memories(enough),
            "candidates": self._candidates,
            "prune": self._prune,
        }
        return actions[action]()

    def _score(self) -> str:
        self._score_beside(lambda: True, asked=True)
        return self._last_pass()

    def _score_beside(self, goes_on: Callable[[], bool], *, asked: bool) -> float | None:
        """Score what waits; return the seconds after which there are tokens for the rest."""
        from mindscore.integrations.hermes.scoring import HermesScoring, load_settings

        lock = self._folder / "scoring.lock"
        scoring = HermesScoring(self.queue, self._findings, lock)
        self._last = done = scoring.run(load_settings(), goes_on, asked=asked)
        if done.waits is not None:
            self._log.warn(WAITS if done.retry_s is not None else done.waits)
        return done.retry_s

    def _last_pass(self) -> str:
        if self._last is None:
            raise StoreError("scoring failed: see Hermes' log, or run: hermes mind score")
        return pass_text(self._last, self.queue.waiting())

    def _status(self) -> str:
        from mindscore.integrations.hermes.scoring import load_settings
        from mindscore.store import History

        findings = self._findings
        measured = {it.key for model in findings.models() for it in findings.memories(model)}
        settings, waiting = load_settings(), self.queue.waiting()
        store = settings.settings.store
        sent = sum(it for _, it in asyncio.run(History(store).tokens_sent(time.time())))
        return status_text(self.registered, waiting, settings, len(measured), sent)

    def _memories(self, enough: int) -> str:
        from mindscore.integrations.hermes.scoring import load_settings

        models = self._findings.models()
        found = self._findings.memories(models[0]) if models else []
        least = load_settings().settings.memory.min_divergence
        return memories_text(found, enough, least, models[0] if models else "")

    def _candidates(self) -> str:
        from mindscore.integrations.hermes.scoring import load_settings
        from mindscore.store import Reviews

        models = self._findings.models()
        if not models:
            return candidates_text([], {})
        found = self._findings.candidates(models[0])
        queue = asyncio.run(Reviews(load_settings().settings.store).decisions(models[0]))
        return candidates_text(found, queue)

    def _prune(self) -> str:
        from mindscore.integrations.hermes.prune import prune_text
        from mindscore.integrations.hermes.scoring import load_settings

        return prune_text(load_settings().settings, hermes_home() / "memories")

    @staticmethod
    def _caught(act: Callable[[], str]) -> tuple[bool, str]:
        """Return if ``act`` failed, and its text or its error."""
        try:
            return False, act()
        # Nothing here may stop the agent.
        except Exception as error:
            return True, f"mindscore: {format_error(error)}"


def _idle_s() -> float:
    from mindscore.integrations.hermes.scoring import load_settings

    return load_settings().options.idle_s


def status_text(
    registered: Iterable[str], waiting: Waiting, settings: HermesSettings, measured: int, sent: int
) -> str:
    """Say what is registered, what waits, which scorer is used, and what the hour has left."""
    server, about = settings.settings.server, waiting.about
    lines = [f"mindscore is registered with Hermes: {', '.join(registered)}."]
    line = f"Waiting: {count_of(waiting.turns, 'turn')} of {count_of(waiting.sessions, 'session')}"
    if waiting.oldest is not None:
        line += f", the oldest from {datetime.fromtimestamp(waiting.oldest):%Y-%m-%d %H:%M}"
    lines.append(f"{line}.")
    if waiting.dropped:
        dropped = count_of(waiting.dropped, "turn")
        lines.append(f"Dropped unscored, because too many waited: {dropped} so far.")
    where = f" at {server.base_url}" if server.base_url else ""
    idle_s = settings.options.idle_s
    when = f"when idle for {idle_s:g} s" if idle_s else "never by itself"
    lines.append(f"Scorer: {server.scorer} ({server.model}){where}; {when}.")
    if limit := settings.settings.live.tokens_per_hour:
        lines.append(f"Tokens of the last hour: {sent:,} of {limit:,} (live.tokens_per_hour).")
    configuration, namespace = settings.file or "the defaults", settings.settings.store.namespace
    lines.append(f"Configuration: {configuration}; namespace {namespace}.")
    if about.get("model"):
        lines.append(
            f"Hermes itself talks to {about['model']} at {about.get('base_url') or '?'} "
            f"({about.get('provider') or '?'}): to score with it, name it in the configuration."
        )
    lines.append(f"Measured so far: {count_of(measured, 'memory', 'memories')}.")
    return _plain(lines)


def pass_text(done: Pass, waiting: Waiting) -> str:
    """Say what one pass found."""
    lines = []
    if done.turns:
        by = f" with {done.model}" if done.model else ""
        lines.append(
            f"Scored {count_of(done.turns, 'turn')} of {count_of(done.sessions, 'session')}{by}."
        )
    elif done.error is None:
        lines.append("Nothing waits to be scored.")
    if done.turns and not done.largest:
        lines.append("No memory was found in them.")
    for key, most in sorted(done.largest.items(), key=lambda it: (-it[1], it[0])):
        lines.append(f"{most:8.2f} nats  {key}  {one_line(done.memories.get(key, ''), TEXT_WIDTH)}")
    for it in done.leaned[:1]:
        text = one_line(done.memories.get(it.key, it.key), TEXT_WIDTH)
        more = f", and {count_of(len(done.leaned) - 1, 'other')}" if done.leaned[1:] else ""
        lines.append(f"The last reply leaned on: {text} ({it.nats:.2f} nats){more}.")
    if done.candidates:
        lines.append(
            f"{count_of(len(done.candidates), 'candidate')} for training: hermes mind candidates."
        )
    lines += [f"Remark: {remark}." for remark in done.remarks]
    if done.waits is not None:
        lines.append(
            f"Not finished ({count_of(waiting.turns, 'turn')} still waiting): {done.waits}"
        )
    if done.error is not None:
        lines.append(
            f"Not finished ({count_of(waiting.turns, 'turn')} still waiting): {done.error}"
        )
    return _plain(lines)


def memories_text(
    memories: Iterable[MeasuredMemory], enough: int, min_divergence: float, model: str
) -> str:
    """Say what each memory does, and which ones could be dropped."""
    current = [it for it in memories if it.is_current]
    if not current:
        return "No memory has been measured yet: hermes mind score."
    unused = [
        it
        for it in current
        if it.kind in DROPPABLE and it.responses >= enough and it.largest < min_divergence
    ]
    lines = [f"What the memories do, by {model} (largest divergence of any response):"]
    lines += [f"  {it.largest:8.2f} nats  {_memory(it)}" for it in current]
    if unused:
        lines.append(
            f"Never used, below {min_divergence:g} nats on {count_of(enough, 'response')} or more; "
            "consider dropping:"
        )
        lines += [f"  {_memory(it)}" for it in unused]
    else:
        lines.append(
            f"None to drop: an entry counts as never used below {min_divergence:g} nats on "
            f"{count_of(enough, 'response')} or more."
        )
    lines.append("Nothing was changed: drop entries yourself, or ask Hermes to.")
    return _plain(lines)


def candidates_text(
    candidates: Iterable[FoundCandidate], decisions: Mapping[str, str | None]
) -> str:
    """List the responses that the memories made likelier, each with what was decided.

    ``decisions`` are by the hash of a response; ``None``: it is not listed any more.
    """
    lines = [
        f"{it.divergence:8.2f} nats  {decision:8}  {one_line(it.text, TEXT_WIDTH)}"
        for it in candidates
        if (decision := decisions.get(it.response, "waiting")) is not None
    ]
    return _plain(lines) or "No candidate for training was found yet: hermes mind score."


def _memory(memory: MeasuredMemory) -> str:
    on = count_of(memory.responses, "response")
    return f"{KINDS[memory.kind]:9}  {on:>13}  {one_line(memory.text, TEXT_WIDTH)}"


def _plain(lines: Iterable[str]) -> str:
    return "\n".join(map(printable, lines))


def register(ctx: Any) -> None:
    """Add the hooks, ``/mind`` and ``hermes mind`` to Hermes, which calls this."""
    log = ErrorLog("mindscore.hermes")
    commands = HermesCommands(plugin_folder(), log)
    worker = commands.worker
    capture = Capture(lambda: commands.queue, log, worker.agent_works, worker.turn_ended)
    # Both, or neither: a reply without its request is nothing.
    ctx.register_hook("pre_api_request", capture.pre_api_request)
    ctx.register_hook("post_llm_call", capture.post_llm_call)
    commands.registered.append("hooks pre_api_request and post_llm_call")
    help_ = "what each memory does to the agent's replies"
    with log.catch("registering /mind failed"):
        ctx.register_command("mind", commands.chat, description=help_, args_hint="[action]")
        commands.registered.append("/mind")
    with log.catch("registering hermes mind failed"):
        ctx.register_cli_command("mind", help_, commands.set_up, commands.run, description=help_)
        commands.registered.append("hermes mind")


def hermes_home() -> Path:
    """Return the folder of Hermes' data: ``$HERMES_HOME``, or its default."""
    if named := os.environ.get("HERMES_HOME", "").strip():
        return Path(named)
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", "").strip()
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "hermes"
    return Path.home() / ".hermes"


def plugin_folder() -> Path:
    """Return the folder of the plugin's own data."""
    return hermes_home() / "plugin-data" / "mindscore"
