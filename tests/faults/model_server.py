"""A model server in a process of its own, for measuring what the client's process is kept from.

python -m tests.faults.model_server     prints its address; ends with its standard input

It answers the original protocol's ``/score`` and vLLM's ``/v1/completions`` at once, a range's
total being minus its length, so that what takes time is the client's own work.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgspec
from aiohttp import web


async def score(request: web.Request) -> web.Response:
    """The original protocol."""
    asked = msgspec.json.decode(await request.read())
    return _json({"scores": [{"total_logprob": float(s - e)} for s, e in asked["score_ranges"]]})


async def completions(request: web.Request) -> web.Response:
    """vLLM's answer with an entry for each token of each prompt."""
    prompts = msgspec.json.decode(await request.read())["prompt"]
    choices = [
        {
            "index": index,
            "text": "",
            "prompt_logprobs": [
                None,
                *({str(it): {"logprob": -1.0, "rank": 1, "decoded_token": f" t{it}"}}
                  for it in ids[1:]),
            ],
        }
        for index, ids in enumerate(prompts if isinstance(prompts[0], list) else [prompts])
    ]  # fmt: skip
    return _json({"choices": choices})


async def version(_: web.Request) -> web.Response:
    """One that has no newer endpoint."""
    return _json({"version": "0.11.0"})


def _json(document: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), content_type="application/json")


async def serve() -> None:
    """Serve until standard input ends."""
    app = web.Application(client_max_size=2**30)
    app.add_routes(
        [
            web.post("/score", score),
            web.post("/v1/completions", completions),
            web.get("/version", version),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sys.stdout.write(f"http://127.0.0.1:{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve())
