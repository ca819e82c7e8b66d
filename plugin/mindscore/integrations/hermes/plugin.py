"""hermes-agent: the module that the entry point of the group ``hermes_agent.plugins`` names.

Hermes loads a plugin once it is enabled: ``hermes plugins enable mindscore``. As of 0.19.0;
nothing of Hermes is imported.
"""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mindscore.integrations.hermes.queue import TurnQueue
from mindscore.integrations.hermes.worker import Complaints

TOLD = ("model", "provider", "base_url", "api_mode", "platform")
"""What is kept of a request beside its messages."""

UNFINISHED = 64
"""Sessions whose request is remembered until its turn ends: interrupted turns never do."""


class Capture:
    """The hooks ``pre_api_request`` and ``post_llm_call``; neither raises, nor changes anything.

    A turn's last request is the one that produced its reply. ``began`` and ``ended`` are told that
    the agent works, and that it has answered.
    """

    def __init__(
        self,
        queue: TurnQueue,
        complaints: Complaints,
        began: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._complaints = complaints
        self._began = began
        self._ended = ended
        self._requests: OrderedDict[str, Mapping[str, Any]] = OrderedDict()

    def pre_api_request(self, **given: Any) -> None:
        """Remember the request, until a later one of its session."""
        with self._complaints.guard("remembering a request"):
            self._began()
            session = _text(given.get("session_id"))
            kept = {name: _text(given.get(name)) for name in TOLD}
            self._requests[session] = {
                "turn_id": given.get("turn_id"),
                "messages": given.get("request_messages"),
                "about": kept,
            }
            self._requests.move_to_end(session)
            while len(self._requests) > UNFINISHED:
                self._requests.popitem(last=False)

    def post_llm_call(self, **given: Any) -> None:
        """Queue the turn: it is in the file when this returns."""
        with self._complaints.guard("keeping a turn"):
            session = _text(given.get("session_id"))
            request = self._requests.pop(session, None)
            messages = request["messages"] if request else None
            # Without a request of this very turn, nobody knows what the reply answers.
            if request is None or request["turn_id"] != given.get("turn_id") or not messages:
                return
            said = _said(given)
            if not said:
                return
            reply = {"role": "assistant", "content": said}
            dropped = self._queue.put(session, [*messages, reply], request["about"])
            if dropped:
                self._complaints.say("too many turns wait to be scored: the oldest are dropped")
            self._ended()


def _said(given: Mapping[str, Any]) -> str:
    """The reply as the conversation keeps it: what is shown may have been added to."""
    history = given.get("conversation_history")
    last = history[-1] if isinstance(history, list) and history else None
    if isinstance(last, Mapping) and last.get("role") == "assistant":
        content = last.get("content")
        if isinstance(content, str) and content:
            return content
    return _text(given.get("assistant_response"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


LOGGER = "mindscore.hermes"


def register(ctx: Any) -> None:
    """Hook into the agent, and give it ``/mind`` and ``hermes mind``. Called by Hermes."""
    from mindscore.integrations.hermes.commands import HermesCommands
    from mindscore.integrations.hermes.queue import TurnQueue
    from mindscore.integrations.hermes.worker import Complaints

    complaints, folder = Complaints(LOGGER), plugin_folder()
    queue = TurnQueue(folder / "queue.sqlite3")
    commands = HermesCommands(folder, queue, complaints)
    worker = commands.worker
    capture = Capture(queue, complaints, worker.agent_works, worker.turn_ended)
    # Both, or neither: a reply without its request is nothing.
    ctx.register_hook("pre_api_request", capture.pre_api_request)
    ctx.register_hook("post_llm_call", capture.post_llm_call)
    commands.registered.append("hooks pre_api_request and post_llm_call")
    help_ = "what each memory does to the agent's replies"
    with complaints.guard("registering /mind"):
        ctx.register_command("mind", commands.chat, description=help_, args_hint="[action]")
        commands.registered.append("/mind")
    with complaints.guard("registering hermes mind"):
        ctx.register_cli_command("mind", help_, commands.set_up, commands.run, description=help_)
        commands.registered.append("hermes mind")


def hermes_home() -> Path:
    """The folder that Hermes keeps its data in: ``$HERMES_HOME``, or its default."""
    if named := os.environ.get("HERMES_HOME", "").strip():
        return Path(named)
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", "").strip()
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "hermes"
    return Path.home() / ".hermes"


def plugin_folder() -> Path:
    """Where the plugin keeps its own data."""
    return hermes_home() / "plugin-data" / "mindscore"
