"""As much of Hermes as its plugins see; ``tests/hosts/hermes.py`` has the real one."""

import argparse
import asyncio
from pathlib import Path

import pytest

from mindscore.integrations.hermes import plugin as hermes
from mindscore.integrations.hermes.queue import TurnQueue

HELIX, BUILD = "User prefers the Helix editor.", "Builds last forty minutes"
RULE = "═" * 46


def system(*entries):
    """The system prompt with these notes."""
    notes = "\n§\n".join(entries)
    share = int(len(notes) / 2200 * 100)
    header = f"MEMORY (your personal notes) [{share}% — {len(notes)}/2,200 chars]"
    block = f"{RULE}\n{header}\n{RULE}\n{notes}"
    return f"You help.\n\n{block}\n\nConversation started: Monday"


SYSTEM = system(HELIX, BUILD)
QUESTION = "Which editor do I like?"
ANSWER = "You like the Helix editor."


class Hermes:
    """Keeps what a plugin registers, and calls it as 0.19.0 does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hooks = {}
        self.commands = {}
        self.turns = 0

    def register_hook(self, hook_name, callback):
        self.hooks[hook_name] = callback

    def register_command(self, name, handler, description="", args_hint=""):
        self.commands[name] = handler

    def register_cli_command(self, name, help, setup_fn, handler_fn=None, description=""):  # noqa: A002
        self.parser = argparse.ArgumentParser(prog=f"hermes {name}")
        setup_fn(self.parser)
        self.parser.set_defaults(func=handler_fn)

    def turn(self, messages=None, said=ANSWER, session="s1", **request):
        """One turn of a conversation; what it sent."""
        self.turns += 1
        messages = messages or [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": QUESTION},
        ]
        ids = {"session_id": session, "turn_id": f"t{self.turns}", "task_id": ""}
        about = {"model": "echo", "provider": "custom", "base_url": "http://x/v1"}
        about |= {"api_mode": "chat_completions", "platform": "cli", **request}
        self.hooks["pre_api_request"](**ids, **about, request_messages=messages, tool_count=17)
        history = [*messages[1:], {"role": "assistant", "content": said, "_db_persisted": True}]
        self.hooks["post_llm_call"](
            **ids, assistant_response=said, conversation_history=history, model="echo"
        )
        return messages

    def cli(self, *arguments):
        """``hermes mind …``."""
        parsed = self.parser.parse_args(arguments)
        parsed.func(parsed)

    def chat(self, raw=""):
        """``/mind …``."""
        return asyncio.run(self.commands["mind"](raw))

    def queue(self):
        """What waits, looked at from outside."""
        return TurnQueue(self.folder / "plugin-data" / "mindscore" / "queue.sqlite3")


@pytest.fixture
def configure(tmp_path, monkeypatch):
    """Writes mindscore's configuration; without further tables, the toy scores when asked."""
    file = tmp_path / "mindscore.toml"
    monkeypatch.setenv("MINDSCORE_CONFIG", str(file))

    def configure(text='[server]\nscorer = "toy"\n', idle_s=0):
        file.write_text(
            f'{text}[store]\nurl = "sqlite:///{tmp_path}/store.sqlite3"\n'
            f"[plugins.settings.hermes]\nidle_s = {idle_s}\n"
        )

    configure()
    return configure


@pytest.fixture
def agent(tmp_path, monkeypatch, configure):
    """Hermes with the plugin registered, in a home of its own."""
    home = tmp_path / "hermes"
    monkeypatch.setenv("HERMES_HOME", str(home))
    context = Hermes(home)
    hermes.register(context)
    return context
