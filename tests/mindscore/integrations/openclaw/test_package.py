"""The package for OpenClaw: its own tests with Node, its keys, and OpenClaw's own loader."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from mindscore.integrations import openclaw
from mindscore.readers.memories import read_memories

PLUGIN = Path(__file__).parents[4] / "plugin"
SOURCE = PLUGIN / "mindscore" / "integrations" / "openclaw"
INSTALLED = Path(openclaw.__path__[0])

NOTES = """---
kept: by hand
---
# Über den Haushalt

- Nora drinks rooibos.
* Her dog, Max, is 7 — and
  afraid of the cat.
1. Türen: abends zu!
    - inner item
2) 日本語のメモ

Setext
======

A paragraph of
two lines. With "quotes" & <tags>.

> Quoted: the key is under the mat.

### `deploy` on Fridays ###
```sh
make it
```
***
- [ ] Call the plumber about the pipe in the cellar, before the frost
§
No list at all.
"""


def node() -> str:
    """Return Node's command; skip without one that is new enough."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("Node.js is not installed")
    version = subprocess.check_output([found, "--version"], text=True, timeout=60)
    if int(version.lstrip("v").partition(".")[0]) < 20:
        pytest.skip(f"Node.js {version.strip()} is older than 20")
    return found


def test_the_packages_own_tests_pass() -> None:
    tests = sorted(SOURCE.glob("test/*.test.js"))
    ran = subprocess.run(
        [node(), "--test", "--test-reporter=tap", *map(str, tests)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len(tests) == 4


def test_entries_have_the_keys_that_the_command_gives_them(tmp_path: Path) -> None:
    file = tmp_path / "MEMORY.md"
    file.write_text(NOTES, encoding="utf-8")
    code = (
        f"import {{ entriesOf }} from {json.dumps((SOURCE / 'markdown.js').as_uri())};"
        "import { readFileSync } from 'node:fs';"
        "console.log(JSON.stringify(entriesOf(readFileSync(process.argv[1], 'utf8'))));"
    )
    printed = subprocess.check_output(
        [node(), "--input-type=module", "--eval", code, str(file)], text=True, timeout=60
    )
    found = read_memories(file)
    assert {key: text.strip() for key, text in found.items()} == dict(json.loads(printed))
    assert len(found) == 10


def test_the_request_that_the_page_shows_is_one_turn(tmp_path: Path) -> None:
    page = (PLUGIN / "docs" / "hosts.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"```js turn\.mjs\n(.*?)```", page, re.DOTALL)
    script = tmp_path / "turn.mjs"
    script.write_text(shown, encoding="utf-8")
    sent: list[dict[str, object]] = []

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(202)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Taking) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1/turns"
        environment = {**os.environ, "MINDSCORE_URL": url}
        command = [node(), str(script)]
        printed = subprocess.check_output(command, env=environment, text=True, timeout=60)
    assert printed == "202\n"
    [turn] = sent
    fields = {"conversation", "messages", "response", "memories", "id"}
    assert turn.keys() == fields


def test_what_is_installed_holds_the_package() -> None:
    made = json.loads((INSTALLED / "package.json").read_text(encoding="utf-8"))
    names = {file.name for file in INSTALLED.glob("*.js")}
    assert made["main"].removeprefix("./") in names
    assert names == {file.name for file in SOURCE.glob("*.js")}
    for name in ("openclaw.plugin.json", "README.md", "LICENSE"):
        assert (INSTALLED / name).read_bytes() == (SOURCE / name).read_bytes()


@pytest.mark.slow
def test_openclaw_itself_installs_and_loads_it(tmp_path: Path) -> None:
    command = shutil.which("openclaw")
    if command is None:
        pytest.skip("OpenClaw is not installed")

    def run(*arguments: str) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        return subprocess.check_output(
            [command, *arguments], env=environment, cwd=tmp_path, text=True, timeout=140
        )

    run("plugins", "install", str(INSTALLED), "--force", "--accept-capabilities")
    access = "plugins.entries.mindscore.hooks.allowConversationAccess"
    run("config", "set", access, "true")
    loaded = json.loads(run("plugins", "inspect", "mindscore", "--runtime", "--json"))
    assert loaded["plugin"]["status"] == "loaded"
    assert loaded["diagnostics"] == []
    hooks = {hook["name"] for hook in loaded["typedHooks"]}
    assert hooks == {"llm_input", "model_call_started", "agent_end", "gateway_stop"}
