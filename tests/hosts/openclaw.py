"""The plugin in the real OpenClaw, whose turns go to ``mindscore collect``, from nothing.

python tests/hosts/openclaw.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

sys.path.insert(0, str(Path(__file__).parent))

from collecting import PATIENCE_S, TYPES, Collector, collector
from environment import enter
from model_api import ModelAPI, model_api
from node_packages import NODE, environment, install

enter("openclaw", NODE, TYPES)

FILES = {
    "MEMORY.md": "# Memory\n\n- Nora drinks rooibos.\n- The old box builds for forty minutes.\n",
    "USER.md": "# User\n\n- Her dog is called Max.\n",
    "memory/2026-11-27.md": "# Friday\n\n- Her bees are called Ada and Grace.\n",
}
READ = {
    "role": "assistant",
    "content": "Let me look.",
    "tool_calls": [
        {
            "id": "c1",
            "type": "function",
            "function": {"name": "read", "arguments": '{"path": "memory/2026-11-27.md"}'},
        }
    ],
}
TALK: dict[str, list[Any]] = {
    "What shall I drink?": ["A pot of rooibos."],
    "What are my animals called?": [READ, "The dog is called Max, the bees Ada and Grace."],
}
NEEDED = {
    "memory/nora-drinks-rooibos": "Nora drinks rooibos.",
    "user/her-dog-is-called-max": "Her dog is called Max.",
    "memory/2026-11-27.md/her-bees-are-called-ada-and-2daa37": "Her bees are called Ada and Grace.",
}
UNUSED = "memory/the-old-box-builds-for-forty-800ba1"


class Relay(ThreadingHTTPServer):
    """Passes on what it is sent to ``url``, and keeps the ``turns``."""

    daemon_threads = True

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.target = url
        self.turns: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """What the plugin is told."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Passing(BaseHTTPRequestHandler):
    server: Relay
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Pass on one turn."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.turns.append(json.loads(body))
        headers = {"Content-Type": "application/json"}
        with urlopen(Request(self.server.target + self.path, body, headers)) as answer:
            said = answer.read()
            self.send_response(answer.status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Nothing: what is printed is the host's."""


@contextmanager
def relay(url: str) -> Iterator[Relay]:
    """A relay for the ``with`` block."""
    with Relay(url) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class Home:
    """A user's folder with OpenClaw's configuration, workspace and the plugin."""

    def __init__(self, folder: Path, packages: Path, model: ModelAPI, url: str) -> None:
        from mindscore.integrations import openclaw

        self.folder = folder
        self.command = packages / "node_modules" / ".bin" / "openclaw"
        self.config = folder / ".openclaw" / "openclaw.json"
        self.config.parent.mkdir(parents=True)
        for name, text in FILES.items():
            file = folder / "workspace" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        served = {"id": "echo", "name": "Echo", "contextWindow": 100_000, "maxTokens": 4000}
        provider = {"baseUrl": model.base_url, "apiKey": "none", "api": "openai-completions"}
        agent = {"workspace": str(folder / "workspace"), "skipBootstrap": True}
        document = {
            "gateway": {"mode": "local"},
            "agents": {"defaults": {**agent, "model": {"primary": "local/echo"}}},
            "models": {"mode": "replace", "providers": {"local": {**provider, "models": [served]}}},
        }
        self.config.write_text(json.dumps(document))
        package = str(openclaw.__path__[0])
        self.openclaw("plugins", "install", package, "--force", "--accept-capabilities")
        document = json.loads(self.config.read_text())
        document["plugins"]["entries"]["mindscore"] |= {
            "hooks": {"allowConversationAccess": True},
            "config": {"url": url},
        }
        self.config.write_text(json.dumps(document))

    def openclaw(self, *arguments: str) -> str:
        """What the command prints."""
        ran = subprocess.run(
            [self.command, *arguments],
            env=environment(HOME=self.folder),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=3 * PATIENCE_S,
        )
        assert ran.returncode == 0, (ran.returncode, ran.stdout, ran.stderr)
        return ran.stdout

    def say(self, question: str) -> str:
        """What the agent answers."""
        session = ["--local", "--agent", "main", "--session-key", "agent:main:kitchen"]
        return self.openclaw("agent", *session, "--message", question)


def plain(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages, with a text alone instead of a list of one part."""
    made = []
    for message in messages:
        content = message["content"]
        if isinstance(content, list) and [it["type"] for it in content] == ["text"]:
            content = content[0]["text"]
        calls = [
            {**it["function"], "arguments": json.loads(it["function"]["arguments"])}
            for it in message.get("tool_calls", [])
        ]
        made.append({**message, "content": content, "tool_calls": calls})
    return made


def talk(folder: Path, server: Collector, packages: Path) -> None:
    """Two questions: what was sent is what the model got, and is scored."""
    replies = [reply for answers in TALK.values() for reply in answers]
    with model_api(*replies) as model, relay(server.url) as passing:
        home = Home(folder, packages, model, passing.url)
        for number, (question, answers) in enumerate(TALK.items(), start=1):
            assert answers[-1] in home.say(question)
            assert len(passing.turns) == number, "the plugin sent no turn"
            turn = passing.turns[-1]
            assert plain(turn["messages"]) == plain(model.requests[-1]["messages"])
            assert turn["response"]["content"] == answers[-1]
        memories = passing.turns[-1]["memories"]
        assert memories.items() >= NEEDED.items(), memories
        conversation = passing.turns[0]["conversation"]
        assert conversation.startswith("agent:main:kitchen/")
        assert {turn["conversation"] for turn in passing.turns} == {conversation}
    sys.stdout.write("2 turns: the messages are those that the model got\n")
    scores = server.scores(conversation, *memories)
    for key, score in sorted(scores.items()):
        sys.stdout.write(f"{key}: {score:.1f} nats\n")
    assert min(scores[key] for key in NEEDED) > 1, scores
    assert scores[UNUSED] < 1, scores


def main() -> None:
    """Hold a conversation, and look at its scores."""
    packages = install(openclaw="2026.9.6")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "mindscore").mkdir()
        with collector(folder / "mindscore") as server:
            talk(folder / "home", server, packages)


if __name__ == "__main__":
    main()
