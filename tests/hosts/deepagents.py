"""The harness profile in the real deepagents, from nothing, without a network.

python tests/hosts/deepagents.py
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from environment import ROOT, enter

enter("deepagents", "deepagents==0.7.32", "langchain==1.4.7", "langgraph==1.2.22")

from scripted import ChatScripted  # noqa: E402

HERE = Path(__file__).parent
PATIENCE_S = 60
# This file has the host's name.
sys.path.remove(str(HERE))

NOTES = "# Notes\n\n<!-- 7 -->The deploy key is blue-42.\n"
STYLE = "Answer in one line, without a greeting.\n"
ANSWER = "The deploy key is blue-42."
OPTIONS = 'enabled = true\nproviders = ["scripted"]\nevery_turns = 0\nidle_s = 0\n'


def prove_scores(folder: Path) -> None:
    """Nothing of mindscore's is named where the agent is built; each file is scored."""
    from deepagents import create_deep_agent
    from deepagents.backends.filesystem import FilesystemBackend
    from langchain_core.messages import AIMessage

    from mindscore.integrations.deepagents import mind

    (folder / "AGENTS.md").write_text(NOTES)
    (folder / "style.md").write_text(STYLE)
    model = ChatScripted(replies=[AIMessage(ANSWER), AIMessage(ANSWER)])
    agent = create_deep_agent(
        model=model,
        system_prompt="You are a deep agent.",
        memory=["/AGENTS.md", "/none.md", "/style.md"],
        backend=FilesystemBackend(root_dir=folder, virtual_mode=True),
    )
    asked: Any = {"messages": [("user", "What is the key?")]}
    for say in (agent.invoke, lambda given: asyncio.run(agent.ainvoke(given))):
        say(asked)
        scoring = mind()
        assert scoring is not None
        found = scoring.score().result(PATIENCE_S)
        assert (found.error, scoring.remarks) == (None, ())
        assert set(found.scores) == {"/AGENTS.md", "/style.md"}, found
    prove_prompt(str(model.sent[-1][0].text), folder)


def prove_prompt(prompt: str, folder: Path) -> None:
    """Without a file, the system prompt is what deepagents sends without it."""
    from deepagents import create_deep_agent
    from deepagents.backends.filesystem import FilesystemBackend
    from langchain_core.messages import AIMessage

    from mindhooks import Role
    from mindscore.conversation.conversation import Conversation
    from mindscore.conversation.message import Message
    from mindscore.recognisers import MemoryFinder

    files = {"/AGENTS.md": NOTES, "/style.md": STYLE}
    conversation = Conversation("it", (Message(Role.SYSTEM, prompt),))
    [message] = conversation.transcript(folder, MemoryFinder(files)).system
    for skipped in ([], ["/AGENTS.md"], ["/style.md"], ["/AGENTS.md", "/style.md"]):
        model = ChatScripted(replies=[AIMessage(ANSWER)])
        agent = create_deep_agent(
            model=model,
            system_prompt="You are a deep agent.",
            memory=[path for path in files if path not in skipped],
            backend=FilesystemBackend(root_dir=folder, virtual_mode=True),
        )
        agent.invoke({"messages": [("user", "What is the key?")]})
        assert message.text_without(frozenset(skipped)) == model.sent[0][0].text, skipped
    sys.stdout.write("without a file, the system prompt is byte for byte deepagents' own\n")


def prove_off() -> None:
    """An installed package does nothing that it was not asked for."""
    from deepagents import create_deep_agent
    from langchain_core.messages import AIMessage

    model = ChatScripted(replies=[AIMessage(ANSWER)])
    create_deep_agent(model=model).invoke({"messages": [("user", "Well?")]})
    assert "mindscore.integrations.deepagents" in sys.modules
    assert "mindscore.integrations.langchain.handler" not in sys.modules


def run(part: str, folder: Path, options: str) -> str:
    """A part of this script in a process of its own, with a configuration; what it prints."""
    config = folder / "mindscore.toml"
    config.write_text(
        '[server]\nscorer = "toy"\n[memory]\ntoken_cutoff = 1.0\ninterval_s = 0\n'
        f'[store]\nurl = "sqlite:///{folder}/store.sqlite3"\nnamespace = "deep"\n'
        f"[plugins.settings.deepagents]\n{options}"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "MINDSCORE_CONFIG": str(config)}
    if "MINDSCORE_HOSTS" in os.environ:
        environment["MINDSCORE_HOSTS"] = os.environ["MINDSCORE_HOSTS"]
    ran = subprocess.run(
        [sys.executable, str(HERE / "deepagents.py"), part, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert ran.returncode == 0, (ran.stdout, ran.stderr)
    sys.stdout.write(ran.stdout)
    return ran.stderr


def main() -> None:
    """Everything, from nothing."""
    folder = ROOT / "tests" / "mindscore" / "integrations" / "deepagents"
    fixture = folder / "deepagents.json"
    # Not beside this file, which has the host's name.
    code = (HERE / "deepagents_memory.py").read_text(encoding="utf-8")
    subprocess.run([sys.executable, "-c", code, "--check", str(fixture)], check=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assert run("off", folder, 'providers = ["scripted"]\n') == ""
        said = run("off", folder, "enable = true\n")
        assert said == (
            "deep agents are not scored: plugins.settings.deepagents.enable: unknown key; did you "
            "mean 'enabled'?\n"
        ), said
        run("scores", folder, OPTIONS)
        command = [str(Path(sys.executable).with_name("mindscore")), "store", "list"]
        command += ["--config", str(folder / "mindscore.toml")]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        sys.stdout.write(f"$ mindscore store list\n{listed}")
        assert [line.split()[0] for line in listed.splitlines()[1:]] == ["/AGENTS.md", "/style.md"]


if __name__ == "__main__":
    if sys.argv[1:2] == ["off"]:
        prove_off()
    elif sys.argv[1:2] == ["scores"]:
        prove_scores(Path(sys.argv[2]))
    else:
        main()
