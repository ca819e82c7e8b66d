"""The plugin in the real llm, from nothing, on loopback alone.

python tests/hosts/llm.py
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from environment import enter
from model_api import ModelAPI, model_api

enter("llm", "llm==0.36")

# This file has the host's name.
sys.path.remove(str(Path(__file__).parent))

CASES = 60
PATIENCE_S = 60
LLM = Path(sys.executable).with_name("llm")
NOTES = "The deploy key is blue-42.\nIt changes on Mondays.\n"
STYLE = "Answer in one line.\n"
ANSWER = "The deploy key is blue-42."


class Home:
    """A ``LLM_USER_PATH`` with one model, on loopback."""

    def __init__(self, folder: Path, server: ModelAPI) -> None:
        self.folder = folder
        self.logs = folder / "logs.db"
        (folder / "extra-openai-models.yaml").write_text(
            f"- model_id: echo\n  model_name: echo\n  api_base: {server.base_url}\n"
            "  can_stream: false\n"
        )
        (folder / "mindscore.toml").write_text(
            f'[server]\nscorer = "toy"\n[store]\nurl = "sqlite:///{folder}/store.sqlite3"\n'
        )
        (folder / "notes.md").write_text(NOTES)
        (folder / "style.md").write_text(STYLE)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LLM_USER_PATH": str(folder),
            "MINDSCORE_CONFIG": str(folder / "mindscore.toml"),
            "OPENAI_API_KEY": "none",
            "COLUMNS": "90",
        }

    def shown(self, *arguments: str, status: int = 0) -> str:
        """What ``llm`` prints, which is printed for people too; its exit status is checked."""
        ran = subprocess.run(
            [str(LLM), *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert ran.returncode == status, (ran.returncode, ran.stdout, ran.stderr)
        printed = (ran.stdout + ran.stderr).replace(str(self.folder), "~")
        sys.stdout.write(f"$ llm {' '.join(arguments)}\n{printed}\n")
        return printed


def prove_commands() -> None:
    """A user's way: ask with fragments, go on, and look at what they did."""
    with tempfile.TemporaryDirectory() as folder, model_api(ANSWER, ANSWER, "Hello.") as server:
        home = Home(Path(folder), server)
        error = home.shown("mind", "list", status=1)
        assert error == "Error: nothing is logged yet: there is no ~/logs.db\n"
        home.shown("-m", "echo", "-f", "notes.md", "--sf", "style.md", "What is the deploy key?")
        home.shown("-c", "Which one?")
        home.shown("-m", "echo", "Hi!")
        home.shown("fragments", "set", "notes", "notes.md")
        inherited = server.requests[1]["messages"]
        assert inherited[1]["content"] == f"{NOTES}\nWhat is the deploy key?", inherited
        [_, conversation] = home.shown("mind", "list").splitlines()
        assert conversation.split()[3:5] == ["2", "2"], conversation
        assert "No fragment is scored yet" in home.shown("mind", "fragments")
        before = home.logs.read_bytes()
        scored = home.shown("mind", "score")
        for word, is_there in (("notes", True), ("~/style.md", True), ("Hi!", False)):
            assert (word in scored) is is_there, word
        full = home.shown("mind", "score", "--full", "-n", "1")
        assert full.splitlines()[3].split() == ["memory", "#1", "#3"]
        ranked = home.shown("mind", "fragments").splitlines()
        fragment, model, weight, _, times = ranked[1].split()
        assert (fragment, model, times) == ("notes", "toy", "1")
        assert float(weight) > 1
        assert home.logs.read_bytes() == before
        for arguments, error in (
            (
                ("--conversation", "none"),
                "Error: no conversation 'none' is logged; see llm mind list",
            ),
            (("--set", "server.scorer=none"), "Error: "),
            (
                ("--set", "server.scorers=toy"),
                "Error: --set server.scorers: server.scorers: unknown",
            ),
        ):
            said = home.shown("mind", "score", *arguments, status=1)
            # What is scored is named before it fails.
            assert said.splitlines()[-1].startswith(error), said
            assert said.count("Error: ") == 1, said


def prove_removals() -> None:
    """Without a fragment, a conversation is what llm itself sends without it."""
    with tempfile.TemporaryDirectory() as folder, model_api() as server:
        home = Home(Path(folder), server)
        os.environ.update(home.environment)
        import llm
        import sqlite_utils

        from mindscore.integrations.llm.reader import LlmLogsReader
        from mindscore.readers.source import Source
        from mindscore.recognisers import MemoryFinder

        database = sqlite_utils.Database(home.logs)
        model = llm.get_model("echo")
        chance, compared = random.Random(3), 0

        def say(turns: list[dict[str, Any]], skipped: str | None = None) -> tuple[str, list[Any]]:
            """One conversation; its name, and what was sent in the end."""
            conversation = model.conversation()
            for turn in turns:
                given = {
                    kind: [llm.Fragment(text, name) for name, text in turn[kind] if name != skipped]
                    for kind in ("fragments", "system_fragments")
                }
                response = conversation.prompt(turn["prompt"], system=turn["system"], **given)
                said = response.text()
                if skipped is None:
                    response.log_to_db(database)
            sent = [(it["role"], it["content"]) for it in server.requests[-1]["messages"]]
            return conversation.id, [*sent, ("assistant", said)]

        for number in range(CASES):
            turns = _turns(chance, number)
            name, sent = say(turns)
            [logged] = [it for it in LlmLogsReader().read(Source(home.logs)) if it.name == name]
            transcript = logged.transcript(home.logs, MemoryFinder())
            assert not transcript.remarks, transcript.remarks
            assert _said(transcript, None) == sent
            names = [name for turn in turns for name, _ in turn["fragments"]]
            names += [name for name, _ in turns[0]["system_fragments"]]
            assert set(transcript.keys()) == set(names)
            for key in names:
                assert _said(transcript, key) == say(turns, key)[1], (turns, key)
                compared += 1
    sys.stdout.write(f"{compared} conversations without a fragment: just what llm sends\n")


def _turns(chance: random.Random, number: int) -> list[dict[str, Any]]:
    """A conversation of one to three turns, with fragments anywhere."""
    texts = ["a\n", " b ", "c", "Be brief.", "c", "x\n\ny\n", "\n- item\n", "a", "日本語 🙂"]
    turns = []
    for at in range(chance.randint(1, 3)):
        given = []
        for kind in ("p", "s"):
            chosen = chance.sample(texts, chance.randint(0, 3))
            given.append([(f"{number}{kind}{at}{i}", f"{number}{kind}{at}{i} {it}")
                          for i, it in enumerate(chosen)])  # fmt: skip
        # A turn that says nothing at all without its fragment is no turn.
        prompt = chance.choice(["What?", "c", "  \n"]) if at or chance.random() < 0.7 else None
        if prompt is None and len(given[0]) < 2:
            prompt = "Well?"
        turns.append(
            {
                "fragments": given[0],
                "system_fragments": given[1],
                "prompt": prompt,
                "system": chance.choice([None, "You help.", " Be kind. "]),
            }
        )
    return turns


def _said(transcript: Any, skipped: str | None) -> list[tuple[str, str]]:
    """The messages as roles and texts, without a fragment."""
    keys = frozenset() if skipped is None else frozenset([skipped])
    return [
        (str(it.role), it.text_without(keys) if it.parts else it.text)
        for it in (*transcript.system, *transcript.identity, *transcript.conversation)
        if it.memory_key is None or it.memory_key not in keys
    ]


if __name__ == "__main__":
    prove_commands()
    prove_removals()
