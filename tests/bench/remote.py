"""What scoring through a model server costs this side of the wire.

python tests/bench/remote.py

- decode: CPU time of one call for a prompt of 100,000 tokens, half of them asked for, by adapter.
  The server is another process; HTTP, decoding and checks count, of this process only.
- flow: wall time of score-full for 40 memories with server.concurrency = 8, from a server that
  takes 200 ms for a request, as a share of (40 / 8 + 1) x 200 ms.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

from mindhooks import Context, MindCommand, Node, Registry, Role, WirePrompt
from mindhooks.testing import StubMind

TOKENS = 100_000
MEMORIES, CONCURRENCY, TAKES_S = 40, 8, 0.2
RUNS = 15


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


# -- a server, in a process of its own ------------------------------------------------------------


def large_answers(ids: list[int]) -> Mapping[str, bytes]:
    """By path, what servers answer for the prompt ``ids``."""
    import numpy

    generator = random.Random(1)
    logprobs = [-9 * generator.random() for _ in ids]
    half = len(ids) // 2
    rows = io.BytesIO()
    numpy.save(rows, numpy.array([[it] for it in logprobs[half:]], dtype=numpy.float32))
    entries = [
        {str(token): {"logprob": it, "rank": 1, "decoded_token": f" t{token % 997}"}}
        for token, it in zip(ids[1:], logprobs[1:], strict=True)
    ]
    texts = [f" t{token % 997}" for token in ids]
    usage = {"prompt_tokens": len(ids)}
    echo = {"tokens": texts, "token_logprobs": [None, *logprobs[1:]], "top_logprobs": None}
    triples = [[it, token, None] for it, token in zip(logprobs[half:], ids[half:], strict=True)]
    meta = {**usage, "cached_tokens": 0}
    meta["input_token_logprobs"] = [[None, ids[half - 1], None], *triples]
    completion = {"index": 0, "text": " a", "prompt_logprobs": [None, *entries]}
    answers: Mapping[str, Any] = {
        "/old/version": {"version": "0.11.0"},
        "/old/v1/completions": {"choices": [completion], "usage": usage},
        "/new/version": {"version": "0.33.0"},
        "/new/inference/v1/generate": {
            "prompt_token_id_logprobs": base64.b64encode(rows.getvalue()).decode(),
            "usage": usage,
        },
        "/echo/v1/completions": {"choices": [{"index": 0, "logprobs": echo}], "usage": usage},
        "/radix/generate": {"text": "", "output_ids": [], "meta_info": meta},
    }
    return {path: json.dumps(answer).encode() for path, answer in answers.items()}


def serve(ids: list[int], ports: Any) -> None:
    """Answer for ``ids``; totals of any prompt at ``/score``, after a while."""
    from aiohttp import web

    answers = large_answers(ids)

    async def answer(request: web.Request) -> web.Response:
        raw = await request.read()
        if request.path == "/score":
            ranges = json.loads(raw)["score_ranges"]
            await asyncio.sleep(TAKES_S)
            return web.json_response(
                {"scores": [{"total_logprob": -1.0 * len(ranges)}] * len(ranges)}
            )
        return web.Response(body=answers[request.path], content_type="application/json")

    async def main() -> None:
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.put((runner.addresses[0][1], {path: len(it) for path, it in answers.items()}))
        await asyncio.Event().wait()

    asyncio.run(main())


# -- figures --------------------------------------------------------------------------------------


async def decode(url: str, ids: list[int], sizes: Mapping[str, int]) -> None:
    """CPU time of a call, by adapter."""
    from mindscore.scorers.remote.openai import OpenAIScorer
    from mindscore.scorers.remote.sglang import SGLangScorer
    from mindscore.scorers.remote.vllm import VLLMScorer

    prompt = WirePrompt(tuple(ids), (), ((len(ids) // 2, len(ids)),), ("half",))
    for name, kind, base, path in (
        ("vllm /v1/completions", VLLMScorer, "/old", "/old/v1/completions"),
        ("vllm /inference/v1/generate", VLLMScorer, "/new", "/new/inference/v1/generate"),
        ("sglang /generate", SGLangScorer, "/radix", "/radix/generate"),
        ("openai echo", OpenAIScorer, "/echo/v1", "/echo/v1/completions"),
    ):
        scorer = kind({"base_url": url + base})
        await scorer.score([prompt])
        taken = []
        for _ in range(RUNS):
            started = time.process_time()
            await scorer.score([prompt])
            taken.append(time.process_time() - started)
        await scorer.aclose()
        say(
            f"decode: {name}: {statistics.median(taken) * 1000:.0f} ms of CPU for "
            f"{sizes[path] / 1e6:.1f} MB (median of {RUNS})"
        )


def conversation() -> Context:
    """Memories first, then turns, of few tokens."""
    memories = [
        Node(f"m{n}", Role.MEMORY, "", (n, n + 1), memory_key=f"memory-{n}")
        for n in range(MEMORIES)
    ]
    turns = [Node(f"r{n}", Role.ASSISTANT, "", (1, 2, 3, 4), (1, 4)) for n in range(5)]
    return Context((), tuple(memories), tuple(turns))


async def flow(url: str) -> None:
    """Wall time of a matrix, against what so many requests at once must take."""
    least = (MEMORIES / CONCURRENCY + 1) * TAKES_S
    for repeats in (0, 1):
        ratios = []
        for _ in range(3):
            server = {"scorer": "score", "base_url": url, "concurrency": CONCURRENCY}
            settings = {
                "server": server,
                "memory": {"noise_repeats": repeats},
                "plugins": {"disabled": ["score-recorder"]},
            }
            mind = StubMind(conversation())
            async with Registry(mind, settings) as registry:
                registry.load_entry_points()
                started = time.perf_counter()
                registry.dispatch(MindCommand.SCORE_FULL)
                await registry.wait_idle()
                ratios.append((time.perf_counter() - started) / least)
        say(
            f"flow: {MEMORIES} memories, concurrency {CONCURRENCY}, {TAKES_S * 1000:.0f} ms a "
            f"request, noise_repeats {repeats}: {statistics.median(ratios):.2f} x "
            f"({MEMORIES}/{CONCURRENCY} + 1) x {TAKES_S * 1000:.0f} ms (median of 3)"
        )


async def main(url: str, ids: list[int], sizes: Mapping[str, int]) -> None:
    await decode(url, ids, sizes)
    await flow(url)


if __name__ == "__main__":
    generator = random.Random(0)
    tokens = [generator.randrange(150_000) for _ in range(TOKENS)]
    ports: Any = multiprocessing.Queue()
    process = multiprocessing.Process(target=serve, args=(tokens, ports), daemon=True)
    process.start()
    port, sizes = ports.get()
    os.environ.pop("MINDSCORE_API_KEY", None)
    asyncio.run(main(f"http://127.0.0.1:{port}", tokens, sizes))
    process.terminate()
