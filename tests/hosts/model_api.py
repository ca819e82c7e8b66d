"""An OpenAI-style chat server on loopback that says what a script wants it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ModelAPI(ThreadingHTTPServer):
    """Answers ``/chat/completions`` with ``replies``, one after the other; keeps ``requests``.

    A reply is a text, or a whole message.
    """

    daemon_threads = True

    def __init__(self, replies: list[str | dict[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies = list(replies)
        self.requests: list[dict[str, Any]] = []

    @property
    def base_url(self) -> str:
        """What a client takes."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: ModelAPI
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """The one model."""
        self._send({"object": "list", "data": [{"id": "echo", "object": "model"}]})

    def do_POST(self) -> None:
        """The next reply."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.path.endswith("/chat/completions"):
            self.send_error(404)
            return
        self.server.requests.append(asked)
        said = self.server.replies.pop(0) if self.server.replies else "Yes."
        message = {"role": "assistant", "content": said} if isinstance(said, str) else said
        calls = message.get("tool_calls", [])
        finish = "tool_calls" if calls else "stop"
        head = {"id": "chatcmpl-1", "created": 1, "model": "echo"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        if not asked.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": finish}
            self._send({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
            return
        head["object"] = "chat.completion.chunk"
        numbered = [{"index": number, **call} for number, call in enumerate(calls)]
        delta = {**message, "tool_calls": numbered} if calls else message
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": delta}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]},
            {"choices": [], "usage": usage},
        ]
        events = "".join(f"data: {json.dumps({**head, **chunk})}\n\n" for chunk in chunks)
        self._answer((events + "data: [DONE]\n\n").encode(), "text/event-stream")

    def _send(self, document: Any) -> None:
        self._answer(json.dumps(document).encode(), "application/json")

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Nothing: what is printed is the host's."""


@contextmanager
def model_api(*replies: str | dict[str, Any]) -> Iterator[ModelAPI]:
    """A server for the ``with`` block."""
    with ModelAPI(list(replies)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
