"""The plugin that Hermes loads: the module that the entry-point group ``hermes_agent.plugins`` has.

Hermes loads it once it is enabled: ``hermes plugins enable mindscore``. As of 0.19.0; nothing of
Hermes is imported, and nothing slow, since an agent waits for it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from mindscore.integrations.hermes.capture import Capture, ErrorLog
from mindscore.integrations.hermes.commands import HermesCommands


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
    with log.catch("registering /mind"):
        ctx.register_command("mind", commands.chat, description=help_, args_hint="[action]")
        commands.registered.append("/mind")
    with log.catch("registering hermes mind"):
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
