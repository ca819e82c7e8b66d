"""Prints figures that plugin/docs/figures.md states, each measured in this run.

python tests/bench/figures.py [local] [prompts] [wire] [imports]     (all of them by default)
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path

from mindhooks import Context, Node, Role, ScoreResult, WirePrompt


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def median_s(work: Callable[[], Awaitable[object]], times: int) -> float:
    """Median wall time of ``work``, in seconds."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        await work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


async def local() -> None:
    """The local scorer against a bare forward of the same model over the same prompts."""
    import torch
    from transformers import AutoModelForCausalLM

    from mindscore.conversation.native import read_transcript
    from mindscore.measure.memories import skip_none, skip_only, whole
    from mindscore.scorers.local.scorer import LocalScorer
    from mindscore.scorers.local.weights import locate

    scorer = LocalScorer({})
    transcript = read_transcript(Path(str(files("mindscore") / "demo" / "conversation.jsonl")))
    context = await transcript.context(scorer.tokenize)
    window = whole(context)
    keys = transcript.keys()[:6]
    prompts = [context.wire_prompt(window, skip_none)]
    prompts += [context.wire_prompt(window, skip_only(key)) for key in keys]
    bare = AutoModelForCausalLM.from_pretrained(locate("smollm2"), dtype=torch.float32).eval()

    @torch.inference_mode()
    def forward(prompt: WirePrompt) -> list[float]:
        ids = torch.tensor([prompt.tokens])
        logprobs = bare(input_ids=ids).logits[0, :-1].log_softmax(1)
        chosen = logprobs.gather(1, ids[0, 1:, None])[:, 0].double()
        return [float(chosen[start - 1 : end - 1].sum()) for start, end in prompt.ranges]

    @torch.inference_mode()
    def bare_forward(prompt: WirePrompt) -> None:
        bare(input_ids=torch.tensor([prompt.tokens]))

    ratios, worst = [], 0.0
    for prompt in prompts:
        [answer] = ScoreResult.of(await scorer.score([prompt])).ranges
        expected = forward(prompt)
        worst = max(worst, *(abs(it.total - e) for it, e in zip(answer, expected, strict=True)))
        for _ in range(3):
            started = time.perf_counter()
            bare_forward(prompt)
            between = time.perf_counter()
            await scorer.score([prompt])
            ended = time.perf_counter()
            ratios.append((between - started) / (ended - between))
    say(f"local: {len(prompts)} prompts of {len(prompts[0].tokens)} tokens, one after the other")
    say(
        f"local: tokens per second, of a bare forward's: {statistics.median(ratios):.2f} x (median)"
    )
    say(
        f"local: largest difference from a plain full-prompt forward: {worst:.1e} nats per response"
    )


def large_context(memories: int, tokens: int) -> Context:
    """A conversation of ``tokens`` tokens with ``memories`` memories spread over it."""
    size = tokens // (memories * 4)
    nodes = [
        Node(
            id=f"{number}-{role}",
            role=role,
            text="",
            token_ids=tuple((number * 7919 + at * 31) % 49_152 for at in range(size)),
            body=(3, size - 1) if role == Role.ASSISTANT else (0, 0),
            memory_key=f"memory-{number}" if role == Role.MEMORY else None,
        )
        for number in range(memories)
        for role in (Role.MEMORY, Role.USER, Role.ASSISTANT, Role.TOOL)
    ]
    return Context((), (), tuple(nodes))


async def prompts() -> None:
    """Building the prompts of 200 memories in a conversation of 100,000 tokens."""
    from mindscore.measure.memories import skip_only, whole

    context = large_context(200, 100_000)
    started = time.perf_counter()
    for number in range(200):
        context.wire_prompt(whole(context), skip_only(f"memory-{number}"))
    say(f"prompts: 200 prompts of 100,000 tokens built in {time.perf_counter() - started:.2f} s")


async def wire() -> None:
    """The score scorer's own time per call: build, encode, send, decode and check."""
    from aiohttp import web

    from mindscore.measure.memories import skip_none, whole
    from mindscore.scorers.remote.score import ScoreScorer

    context = large_context(200, 100_000)
    prompt = context.wire_prompt(whole(context), skip_none)
    answer = {"scores": [{"total_logprob": -1.0}] * len(prompt.ranges)}
    served: list[float] = []

    async def score(request: web.Request) -> web.Response:
        await request.read()
        started = time.perf_counter()
        response = web.json_response(answer)
        served.append(time.perf_counter() - started)
        return response

    app = web.Application(client_max_size=2**28)
    app.router.add_post("/score", score)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    scorer = ScoreScorer({"base_url": f"http://127.0.0.1:{port}"})
    await scorer.score([prompt])
    whole_call = await median_s(lambda: scorer.score([prompt]), 30)
    say(
        f"wire: a call with {len(prompt.tokens):,} tokens and {len(prompt.ranges)} ranges takes "
        f"{whole_call * 1000:.1f} ms, the instant server in the same process included (median)"
    )
    await scorer.aclose()
    await runner.cleanup()


async def imports() -> None:
    """What it costs to import the packages and to start the command."""
    for code in ("import mindhooks", "import mindscore"):
        timed = f"import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"
        taken = [
            float(subprocess.check_output([sys.executable, "-c", timed], text=True))
            for _ in range(9)
        ]
        say(f"imports: {code}: {statistics.median(taken):.3f} s (median)")
    command = [str(Path(sys.executable).with_name("mindscore")), "--help"]
    taken = []
    for _ in range(9):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(time.perf_counter() - started)
    say(f"imports: mindscore --help: {statistics.median(taken):.3f} s (median, whole process)")


FIGURES = {"local": local, "prompts": prompts, "wire": wire, "imports": imports}


async def main() -> None:
    for name in sys.argv[1:] or FIGURES:
        await FIGURES[name]()


if __name__ == "__main__":
    asyncio.run(main())
