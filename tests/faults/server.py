"""A model server that answers well, or breaks HTTP, JSON or its own shapes: raw, on loopback.

``with FaultServer(reply) as server`` runs one in a thread of its own; ``reply`` gets each request
and says what is written. It knows ``/score``, vLLM's and OpenAI's ``/v1/completions``, SGLang's
``/generate`` and vLLM's ``/version``, with the numbers of ``ToyScorer``.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mindhooks import WirePrompt
from mindscore.scorers.toy import ToyScorer

PATIENCE_S = 20


@dataclass
class Exchange:
    """A request, its right answer as JSON would have it, and the connection it came on."""

    method: str
    path: str
    headers: dict[str, str]
    good: Any
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    is_answered: bool = False

    def write(self, data: bytes) -> None:
        """Put ``data`` on the connection."""
        self.writer.write(data)

    def answer(self, body: bytes | None = None, status: str = "200 OK", *headers: str) -> None:
        """Answer properly; without ``body``, the right answer."""
        body = json.dumps(self.good).encode() if body is None else body
        given = "".join(f"{line}\r\n" for line in headers)
        if "content-type" not in given.lower():
            given += "Content-Type: application/json\r\n"
        head = f"HTTP/1.1 {status}\r\n{given}Content-Length: {len(body)}\r\n\r\n"
        self.write(head.encode("latin-1") + body)
        self.is_answered = True

    def reset(self) -> None:
        """End the connection as a process that was killed does."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def until_gone(self) -> None:
        """Wait until the client gives up."""
        while await self.reader.read(2**16):
            pass


Reply = Callable[[Exchange], Awaitable[None]]
"""Writes an answer, or what is none. The connection is closed after it, unless it answered."""


async def good(exchange: Exchange) -> None:
    """The right answer."""
    exchange.answer()


class FaultServer:
    """A server that ``reply`` answers for; ``url`` is its root, ``requests`` counts the scoring."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.requests = 0
        self.open = 0
        self._toy = ToyScorer()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault server")
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> FaultServer:
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open += 1
        try:
            while await self._answer_one(reader, writer):
                pass
            # Closed while there is something unread, the connection would be reset.
            writer.write_eof()
            await asyncio.wait_for(reader.read(), PATIENCE_S)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, TimeoutError):
            pass
        finally:
            writer.close()
            self.open -= 1
            self._tasks.discard(task)

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        body = json.loads(raw) if raw else None
        exchange = Exchange(method, path, headers, await self._good(path, body), reader, writer)
        if path.endswith("/version"):
            exchange.answer()
            return True
        self.requests += 1
        await self.reply(exchange)
        await writer.drain()
        return exchange.is_answered

    # -- what is right ----------------------------------------------------------------------------

    async def _good(self, path: str, body: Any) -> Any:
        if path.endswith("/version"):
            return {"version": "0.11.0"}
        if path.endswith("/score"):
            [scores] = (
                await self._toy.score([_prompt(body["prompt"], body["score_ranges"])])
            ).ranges
            return {"scores": [{"total_logprob": it.total} for it in scores]}
        if path.endswith("/generate"):
            entries = await self._entries(body["input_ids"], body["logprob_start_len"])
            return {"text": "", "meta_info": {"input_token_logprobs": entries}}
        if path.endswith("/completions"):
            return {"choices": [await self._choice(body["prompt"])]}
        return {}

    async def _values(self, ids: list[int]) -> list[float | None]:
        ranges = [(index, index + 1) for index in range(1, len(ids))]
        [scores] = (await self._toy.score([_prompt(ids, ranges)])).ranges
        return [None, *(it.total for it in scores)]

    async def _entries(self, ids: list[int], start: int) -> list[Any]:
        pairs = list(zip(await self._values(ids), ids, strict=True))[start:]
        return [[value if index else None, id_, None] for index, (value, id_) in enumerate(pairs)]

    async def _choice(self, ids: list[int]) -> Any:
        values = await self._values(ids)
        rows = [
            None if value is None else {str(id_): {"logprob": value, "rank": 1}}
            for id_, value in zip(ids, values, strict=True)
        ]
        logprobs = {"token_logprobs": values, "tokens": [f"token_id:{it}" for it in ids]}
        return {"index": 0, "text": "", "prompt_logprobs": rows, "logprobs": logprobs}


def _prompt(ids: list[int], ranges: Any) -> WirePrompt:
    spans = tuple((start, end) for start, end in ranges)
    return WirePrompt(tuple(ids), (), spans, tuple(str(start) for start, _ in spans))
