"""Scores noted in a real mem0 and a real cognee, and by Letta's real client.

python tests/hosts/write_back.py

Letta's server wants a database and an environment of its own: an imitation of its blocks answers.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).parent))

from environment import enter

enter("write_back", "mem0ai==2.2.1", "cognee==1.6.5", "letta-client==1.12.1")

TEA = "The user drinks rooibos tea in the evening."
DOG = "The user's dog is called Max."
DIMENSIONS = 16


class _Embeddings(BaseHTTPRequestHandler):
    """An embedding endpoint: a text's vector is made of its hash."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
        data = [
            {"object": "embedding", "index": at, "embedding": _vector(str(text), asked)}
            for at, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        answer = {"object": "list", "model": "m", "data": data, "usage": usage}
        _send(self, answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _send(request: BaseHTTPRequestHandler, value: dict[str, Any]) -> None:
    content = json.dumps(value).encode()
    request.send_response(200)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content)


def _vector(text: str, asked: dict[str, Any]) -> Any:
    values = [it / 255 for it in hashlib.sha256(text.encode()).digest()[:DIMENSIONS]]
    if asked.get("encoding_format") == "base64":
        return base64.b64encode(struct.pack(f"{DIMENSIONS}f", *values)).decode()
    return values


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def _score(memories: dict[str, str], write_back: dict[str, Any], folder: Path) -> dict[str, float]:
    """Score a conversation that holds ``memories``; return what each did, in nats."""
    from mindscore import attach

    told = "\n".join(memories.values())
    messages = [
        {"role": "system", "content": f"You are an assistant.\n<memories>\n{told}\n</memories>"},
        {"role": "user", "content": "What shall I drink?"},
        {"role": "assistant", "content": "A pot of rooibos tea."},
    ]
    settings = {
        "server": {"scorer": "toy"},
        "memory": {"token_cutoff": 1.0, "interval_s": 0},
        "store": {"url": f"sqlite:///{folder}/store.sqlite3"},
        "plugins": {"settings": {"write-back": write_back}},
    }
    with attach(lambda: messages, memories, settings=settings) as mind:
        found = mind.score("score-full").result(60)
        assert found.error is None, found.error
        return {key: it.score for key, it in found.scores.items()}


def _mem0(folder: Path, url: str) -> None:
    os.environ |= {"MEM0_TELEMETRY": "False", "MEM0_DIR": str(folder / "mem0")}
    from mem0 import Memory

    model = {"api_key": "none", "openai_base_url": url}
    config = {
        "vector_store": {
            "provider": "qdrant",
            "config": {
                "path": str(folder / "qdrant"),
                "collection_name": "notes",
                "embedding_model_dims": DIMENSIONS,
                "on_disk": True,
            },
        },
        "embedder": {
            "provider": "openai",
            "config": {"model": "m", "embedding_dims": DIMENSIONS, **model},
        },
        "llm": {"provider": "openai", "config": model},
        "history_db_path": str(folder / "history.db"),
    }
    file = folder / "mem0.json"
    file.write_text(json.dumps(config))
    memory = Memory.from_config(config)
    ids = {
        text: memory.add(text, user_id="ann", infer=False, metadata={"source": "chat"})["results"][
            0
        ]["id"]
        for text in (TEA, DOG)
    }
    memory.close()
    memory.vector_store.client.close()
    scores = _score(
        {id_: text for text, id_ in ids.items()}, {"mem0": {"config": str(file)}}, folder
    )
    memory = Memory.from_config(config)
    for text, id_ in ids.items():
        found = memory.get(id_)
        assert found["memory"] == text
        assert found["metadata"]["source"] == "chat"
        assert found["metadata"]["mindscore_nats"] == round(scores[id_], 4)
        sys.stdout.write(f"mem0: {text} {found['metadata']['mindscore_nats']} nats\n")
    assert len(memory.get_all(filters={"user_id": "ann"})["results"]) == len(ids)
    memory.close()


def _cognee(folder: Path) -> None:
    os.environ |= {
        "SYSTEM_ROOT_DIRECTORY": str(folder / "cognee"),
        "DATA_ROOT_DIRECTORY": str(folder / "cognee-data"),
        "TELEMETRY_DISABLED": "1",
        "ENABLE_BACKEND_ACCESS_CONTROL": "false",
        "LLM_API_KEY": "none",
        "LOG_LEVEL": "ERROR",
    }
    from cognee.infrastructure.databases.graph import get_graph_engine
    from cognee.infrastructure.engine import DataPoint

    class Remembered(DataPoint):  # type: ignore[misc]
        text: str

    nodes = [Remembered(text=it) for it in (TEA, DOG)]
    ids = {str(it.id): it.text for it in nodes}

    async def add() -> None:
        await (await get_graph_engine()).add_nodes(nodes)

    async def weights() -> dict[str, float]:
        graph = await get_graph_engine()
        for id_, text in ids.items():
            assert (await graph.get_node(id_))["text"] == text
        found: dict[str, float] = await graph.get_node_feedback_weights(list(ids))
        return found

    asyncio.run(add())
    scores = _score(ids, {"cognee": {"alpha": 0.5}}, folder)
    found = asyncio.run(weights())
    tea, dog = found
    assert scores[tea] > 1 > scores[dog], scores
    assert found[tea] > 0.5 > found[dog], found
    for id_, weight in found.items():
        sys.stdout.write(f"cognee: {ids[id_]} weight 0.5 to {weight:.2f}\n")


class _Blocks(BaseHTTPRequestHandler):
    """An agent's memory blocks at the paths of Letta's server."""

    blocks: ClassVar[dict[str, dict[str, Any]]] = {
        label: {"id": f"block-{label}", "label": label, "value": text, "metadata": {"by": "ann"}}
        for label, text in (("tea", TEA), ("dog", DOG))
    }

    def do_GET(self) -> None:
        self._answer(self._block())

    def do_PATCH(self) -> None:
        change = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert list(change) == ["metadata"], change
        self._block().update(change)
        self._answer(self._block())

    def _block(self) -> dict[str, Any]:
        before, label = self.path.rsplit("/", 1)
        assert before == "/v1/agents/agent-1/core-memory/blocks", self.path
        return self.blocks[label]

    def _answer(self, value: dict[str, Any]) -> None:
        _send(self, value)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _letta(folder: Path, url: str) -> None:
    texts = {"letta:tea": TEA, "letta:dog": DOG}
    scores = _score(texts, {"letta": {"agent": "agent-1", "base_url": url}}, folder)
    for key, text in texts.items():
        block = _Blocks.blocks[key.removeprefix("letta:")]
        assert (block["value"], block["metadata"]["by"]) == (text, "ann")
        assert block["metadata"]["mindscore_nats"] == round(scores[key], 4)
        sys.stdout.write(f"letta: {text} {block['metadata']['mindscore_nats']} nats\n")


def main() -> None:
    """Score beside each, and look at what it has then."""
    with tempfile.TemporaryDirectory() as folder, _serving(_Embeddings) as url:
        _mem0(Path(folder), f"{url}/v1")
        _cognee(Path(folder))
    with tempfile.TemporaryDirectory() as folder, _serving(_Blocks) as url:
        _letta(Path(folder), url)


if __name__ == "__main__":
    main()
