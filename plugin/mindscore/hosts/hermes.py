"""hermes-agent: the module that the entry point of the group ``hermes_agent.plugins`` names.

Hermes loads a plugin once it is enabled: ``hermes plugins enable mindscore``. As of 0.19.0;
nothing of Hermes is imported.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

LOGGER = "mindscore.hermes"


def register(ctx: Any) -> None:
    """Hook into the agent, and give it ``/mind`` and ``hermes mind``. Called by Hermes."""
    from mindscore.hosts.complaints import Complaints
    from mindscore.hosts.hermes_capture import Capture
    from mindscore.hosts.hermes_commands import HermesCommands
    from mindscore.hosts.queue import TurnQueue

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
