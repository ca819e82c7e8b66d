"""A Node.js agent on the Vercel AI SDK, whose spans go to ``mindscore collect``, from nothing.

python tests/hosts/vercel_ai.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from collecting import PATIENCE_S, TYPES, collector
from environment import enter
from model_api import model_api
from node_packages import NODE, environment, install, node

enter("vercel_ai", NODE, TYPES)

PACKAGES = {
    "ai": "7.0.173",
    "@ai-sdk/openai-compatible": "3.0.92",
    "@ai-sdk/otel": "1.0.173",
    "@opentelemetry/sdk-node": "0.301.0",
}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "id": "call-1",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"place": "Leeds"}'},
        }
    ],
}
MEMORIES = {"tea": "Nora drinks rooibos.", "dog": "Her dog is called Max."}
ANSWERS = ["A pot of rooibos.", "Your dog is called Max.", "It rains on Max."]


def talk(folder: Path, url: str, protocol: str) -> str:
    """Run the agent; return the id of its conversation."""
    chat = f"kitchen-{protocol.partition('/')[2]}"
    agent = folder / "agent.mjs"
    agent.write_text(Path(__file__).with_suffix(".mjs").read_text())
    with model_api(*ANSWERS[:2], CALL, ANSWERS[2]) as server:
        ran = subprocess.run(
            [node(), agent, server.base_url, chat],
            env=environment(
                OTEL_EXPORTER_OTLP_ENDPOINT=url,
                OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
                OTEL_METRICS_EXPORTER="none",
                OTEL_LOGS_EXPORTER="none",
            ),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.splitlines() == ANSWERS, ran.stdout
        assert len(server.requests) == 4
    return chat


def main() -> None:
    """Hold the same conversation twice, sent as protobuf and as JSON."""
    packages = install(**PACKAGES)
    with tempfile.TemporaryDirectory() as name:
        memories = Path(name) / "memories.json"
        memories.write_text(json.dumps(MEMORIES))
        with collector(Path(name), "--memories", str(memories)) as server:
            for protocol in ("http/protobuf", "http/json"):
                chat = talk(packages, server.url, protocol)
                scores = server.scores(chat, *MEMORIES)
                assert min(scores.values()) > 1, scores
                for key, score in sorted(scores.items()):
                    sys.stdout.write(f"{chat}: {key}: {score:.1f} nats\n")
            exported = Path(name) / "scores.json"
            server.mindscore("store", "export", str(exported))
            assert set(json.loads(exported.read_text())) == set(MEMORIES)


if __name__ == "__main__":
    main()
