"""What a matrix costs on a real vLLM without a GPU, by each way of asking it.

python -m tests.bench.live

- in full: /v1/completions, which every vLLM has.
- reuse: /inference/v1/generate, which one has that is started with --enable-scale-out.
- plugin: /v1/score of mindscore's plugin, on a server that has seen nothing, then once more.

The demo's conversation is scored with SmolLM2. One of 8,000 tokens with 20 memories in its last
tenth is scored with random weights. A vLLM on a CPU caches blocks of 128 tokens; on a GPU they have
16. What is not offered in a way is hidden by a gateway, before one and the same server.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from tests.bench.shapes import DEMO, say
from tests.live import environment
from tests.live.conversations import long_lines
from tests.live.gateway import gateway
from tests.live.models import TEMPLATES, write_model
from tests.live.server import BARE, NAME, PLUGIN, SCALED_OUT, STOCK, Server

from mindscore.cli import main as mindscore
from mindscore.scorers.local.weights import SMOLLM2, locate

WAYS = {"in full": BARE, "reuse": STOCK, "plugin": (), "plugin again": ()}
"""The paths that each way does without."""


def score(conversation: Path, url: str, folder: Path) -> dict[str, Any]:
    """Return the document of ``mindscore score --full`` in a store of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        settings = {
            "store.url": f"sqlite:///{own}/scores.sqlite3",
            "server.scorer": "vllm",
            "server.model": NAME,
            "server.base_url": url,
            # Random weights are no language model, as which the self-test takes a server's.
            "server.self_test": "false",
        }
        given = [it for name, value in settings.items() for it in ("--set", f"{name}={value}")]
        with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")) as out:
            status = mindscore(["score", str(conversation), "--full", "--json", *given])
            out.seek(0)
            document = json.load(out)
    if status:
        sys.exit(status)
    return document


def measure(label: str, conversation: Path, model: Path, folder: Path) -> None:
    """Print a line for each way."""
    server = Server(
        model,
        folder / "vllm.log",
        ("--max-model-len", "8192", *SCALED_OUT),
        # So that its cache can be emptied, and that it holds all of a run.
        {**PLUGIN, "VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_KVCACHE_SPACE": "2"},
    )
    right: list[list[float]] = []
    try:
        server.start()
        for way, hidden in WAYS.items():
            if way != "plugin again":
                _forget(server)
            with gateway(server.url, hidden) as url:
                document = score(conversation, url, folder)
            stats, signed = document["stats"], document["signed"]
            right = right or signed
            apart = max(
                abs(one - other)
                for row, expected in zip(signed, right, strict=True)
                for one, other in zip(row, expected, strict=True)
            )
            sent, computed = stats["prompt_tokens"], stats["computed_tokens"]
            # Not known where the server refused a prompt that was then asked for in another way.
            known = "        ?        ?" if computed is None else _computed(computed, sent)
            say(
                f"{label:5} {way:13} {stats['calls']:5} {sent:9,} {known} "
                f"{stats['seconds']:8.1f} {apart:8.1e}"
            )
    finally:
        server.stop()


def _computed(computed: int, sent: int) -> str:
    return f"{computed:9,} {computed / sent:8.3f}"


def _forget(server: Server) -> None:
    """Empty the prefix cache."""
    path = server.url.removesuffix("/v1") + "/reset_prefix_cache"
    urllib.request.urlopen(urllib.request.Request(path, b"", method="POST"), timeout=60).close()


def late_memories(folder: Path) -> Path:
    """Write a conversation of about 8,000 tokens, with 20 memories in the last tenth."""
    file = folder / "late.jsonl"
    lines = long_lines(before=275, memories=20)
    file.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return file


def main() -> None:
    """Measure both conversations."""
    environment.main()
    if environment.REASON.exists():
        say(f"skipped: {environment.REASON.read_text('utf-8').strip()}")
        return
    environment.install_mindscore()
    say("      way           calls      sent  computed    ratio  seconds    apart (nats)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure("demo", DEMO / "conversation.jsonl", Path(locate(SMOLLM2)), folder)
        write_model(folder / "model", TEMPLATES["only-adds"])
        measure("late", late_memories(folder), folder / "model", folder)


if __name__ == "__main__":
    main()
