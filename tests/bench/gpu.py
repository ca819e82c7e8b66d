"""What the local scorer makes of a GPU: forwards behind a cache, and the full matrix.

python tests/bench/gpu.py           # one GPU, no network, under 8 minutes; bfloat16
python tests/bench/gpu.py --tiny    # a few seconds on any machine, to see that it runs; float32

It needs mindscore's own dependencies, torch and transformers. The models have random weights in the
shapes of well-known ones; prompts are random ids, so there is no tokenizer either.

- bare: a forward of a whole prompt, with no cache, by transformers' usual attention (sdpa).
- behind a cache: the scorer asked for a prompt whose first tokens it has computed before. The
  bare forward beside it has the same mean context: twice what a token of the suffix looks back on.
- knock-out: a response once for each of many spans that it does not see, behind a cached prompt.
- matrix: all memories of a conversation left out one by one, as score-full asks for them: with all
  of them, twice (that measures the noise), then without each, the last memory first. Every turn's
  response after the memory is asked for. Naive are bare forwards of as many full prompts, of which
  two are timed. What can be saved depends on where the memories lie: both extremes are printed.
- MFU: the operations that a forward cannot do without, by what the device does in a plain matrix
  product. Operations are counted as by Chowdhery et al. (PaLM, arXiv:2204.02311, appendix B), for a
  forward alone and a causal mask: 2 for each weight of a matrix and token; in attention
  4 x layers x heads x head size for each token and each token that it looks back on.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "hooks"), str(ROOT / "plugin")]

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoModelForCausalLM, LlamaConfig  # noqa: E402

from mindhooks import WirePrompt  # noqa: E402
from mindscore.scorers.local import model as local_model  # noqa: E402
from mindscore.scorers.local.devices import Compute, choose  # noqa: E402
from mindscore.scorers.local.scorer import LocalScorer  # noqa: E402

DEADLINE_S = 450.0
"""After so many seconds nothing new is begun."""

STARTED = time.monotonic()


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured: lengths in tokens, and of the conversation its parts."""

    bare: tuple[int, ...]
    behind: tuple[tuple[int, int], ...]
    product: int
    memories: int
    memory: int
    conversation: int
    turn: int = 100
    response: int = 60


FULL = Sizes((1024, 4096, 16384), ((4096, 8192), (512, 30_000)), 8192, 50, 80, 20_000)
TINY = Sizes((32, 128), ((64, 128), (32, 300)), 256, 6, 10, 500)
LLAMAS: dict[str, dict[str, int]] = {
    "8B": {
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "1.7B": {
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
    },
}
TINY_LLAMA = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def say(line: str) -> None:
    sys.stdout.write(f"[{time.monotonic() - STARTED:5.0f} s] {line}\n")
    sys.stdout.flush()


def is_late() -> bool:
    late = time.monotonic() - STARTED > DEADLINE_S
    if late:
        say("skipped: no time is left")
    return late


# -- the device --------------------------------------------------------------------------------


class Machine:
    """The device that is measured, with its clock."""

    def __init__(self, compute: Compute, product: int) -> None:
        self.compute = compute
        self.dtype = getattr(torch, compute.dtype)
        self.peak_flops = self._peak(product)

    def wait(self) -> None:
        """Wait for what the device was told to do."""
        if self.compute.kind == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], Any], repeats: int = 3) -> float:
        """Return the median time of ``work``, which runs once before, to warm up."""
        work()
        return statistics.median(self.once(work) for _ in range(repeats))

    def once(self, work: Callable[[], Any]) -> float:
        """Return the time of ``work``."""
        self.wait()
        started = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - started

    def memory(self) -> str:
        """Return the most memory that was taken so far."""
        if self.compute.kind == "cuda":
            return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of the card"
        return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"

    def _peak(self, size: int) -> float:
        made = {"device": self.compute.device, "dtype": self.dtype}
        left, right = torch.randn(size, size, **made), torch.randn(size, size, **made)
        return 2 * size**3 / self.seconds(lambda: left @ right, 10)


# -- the model ---------------------------------------------------------------------------------


class Bench:
    """A model with random weights, bare and within a scorer."""

    def __init__(self, name: str, shape: dict[str, int], machine: Machine, sizes: Sizes) -> None:
        self.name, self.machine, self.sizes = name, machine, sizes
        config = LlamaConfig(**shape, max_position_embeddings=131_072, tie_word_embeddings=False)
        torch.manual_seed(0)
        with torch.device(machine.compute.device):
            self.model = AutoModelForCausalLM.from_config(config, dtype=machine.dtype).eval()
        embeddings = self.model.get_input_embeddings().weight.numel()
        total = sum(it.numel() for it in self.model.parameters())
        self._per_token = 2 * (total - 2 * embeddings)
        self._per_row = 2 * embeddings
        self._per_pair = 4 * config.num_hidden_layers * config.hidden_size
        self._random = random.Random(0)
        self._vocabulary = config.vocab_size
        self.usual = self.model.config._attn_implementation
        say(f"{name}: {total / 1e9:.2f} billion weights, {self.usual}; {machine.memory()}")

    def ids(self, length: int) -> tuple[int, ...]:
        """Return random token ids."""
        return tuple(self._random.choices(range(self._vocabulary), k=length))

    def flops(self, tokens: int, before: int = 0, rows: int = 1) -> float:
        """Return the operations of ``tokens`` behind so many others."""
        pairs = tokens * before + tokens * (tokens + 1) / 2
        return self._per_token * tokens + self._per_row * rows + self._per_pair * pairs

    def rate(self, tokens: int, seconds: float, flops: float) -> str:
        """Return the speed as a text."""
        share = flops / seconds / self.machine.peak_flops
        return (
            f"{tokens / seconds:,.0f} tokens/s ({flops / seconds / 1e12:,.1f} TFLOP/s, "
            f"MFU {share:.0%})"
        )

    @torch.inference_mode()
    def bare(self, tokens: Sequence[int], rows: Sequence[int]) -> Any:
        """Return the log-probability of the token after each row, by one plain forward."""
        device = self.machine.compute.device
        ids, kept = torch.tensor([tokens], device=device), torch.tensor(rows, device=device)
        logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits[0]
        chosen = logits.gather(1, ids[0, kept + 1, None])[:, 0].float()
        return chosen - torch.cat([it.float().logsumexp(1) for it in logits.split(256)])

    def time_bare(self, length: int) -> float:
        """Return the seconds of a plain forward."""
        tokens = self.ids(length + 1)
        self.model.set_attn_implementation(self.usual)
        return self.machine.seconds(lambda: self.bare(tokens, [length - 1]))

    def scorer(self) -> LocalScorer:
        """Return the scorer with this model in it, and nothing in its caches."""
        self.model.set_attn_implementation(self.usual)
        loaded = SimpleNamespace(from_pretrained=lambda *_, **__: self.model)
        tokenizer = SimpleNamespace(
            name=self.name, location="/nowhere", encode=lambda _: self.ids(21)
        )
        vars(local_model)["AutoModelForCausalLM"] = loaded
        compute = self.machine.compute
        scorer = LocalScorer({"dtype": compute.dtype, "model": "/random"})
        scorer._loaded = local_model.LocalModel(tokenizer, compute, "auto")  # type: ignore[arg-type]
        return scorer

    # -- what is measured ----------------------------------------------------------------------

    def measure_bare(self) -> None:
        """Print the speed of bare forwards."""
        for length in self.sizes.bare:
            seconds = self.time_bare(length)
            what = self.rate(length, seconds, self.flops(length))
            say(f"{self.name}: bare, {length:,} tokens: {what}")

    async def measure_behind(self) -> None:
        """Print the speed of suffixes of a cached prefix, and of as deep a bare forward."""
        for suffix, prefix in self.sizes.behind:
            if is_late():
                return
            scorer, begun = self.scorer(), self.ids(prefix)
            await scorer.score([asked((*begun, *self.ids(1)), prefix)])
            rows = min(suffix, self.sizes.response)
            prompts = [asked((*begun, *self.ids(suffix + 1)), -rows) for _ in range(6)]
            taken, computed = [], 0
            for prompt in prompts:
                self.machine.wait()
                started = time.perf_counter()
                computed = (await scorer.score([prompt])).computed_tokens or 0
                taken.append(time.perf_counter() - started)
            # The first one warmed it up.
            seconds = statistics.median(taken[1:])
            flops = self.flops(computed, prefix, rows)
            chosen = self.model.config._attn_implementation
            say(
                f"{self.name}: {computed:,} tokens behind {prefix:,}, {rows} values ({chosen}): "
                f"{self.rate(computed, seconds, flops)}"
            )
            await scorer.aclose()
            length = 2 * prefix + suffix
            bare = self.time_bare(length)
            ratio = (computed / seconds) / (length / bare)
            say(
                f"{self.name}: {computed:,} behind {prefix:,}: {ratio:.2f} x the tokens/s of a "
                f"bare forward of {length:,} ({self.rate(length, bare, self.flops(length))})"
            )

    async def measure_matrix(self, where: str, first: float) -> None:
        """Print the time of the matrix, with the memories spread from a share of it onwards."""
        baseline, ablations = self._conversation(first)
        scorer, totals = self.scorer(), []
        self.machine.wait()
        started = time.perf_counter()
        computed = 0
        for prompt in (baseline, baseline, *ablations):
            if is_late():
                return
            result = await scorer.score([prompt])
            computed += result.computed_tokens or 0
            totals.append(result.ranges[0])
        seconds = time.perf_counter() - started
        await scorer.aclose()

        self.model.set_attn_implementation(self.usual)
        naive, full = [], []
        for prompt in (baseline, ablations[0], ablations[-1]):
            rows = [row for start, end in prompt.ranges for row in range(start - 1, end - 1)]
            self.machine.wait()
            started = time.perf_counter()
            full.append(self.bare(prompt.tokens, rows).tolist())
            naive.append(time.perf_counter() - started)
        # The first one warms up.
        estimated = statistics.mean(naive[1:]) * (1 + len(ablations))
        sent = sum(len(it.tokens) for it in (baseline, *ablations))
        say(
            f"{self.name}: matrix, {len(ablations)} memories of {self.sizes.memory} {where}, "
            f"{len(baseline.tokens):,} tokens: {seconds:.1f} s, {computed:,} of {sent:,} tokens "
            f"computed ({computed / seconds:,.0f}/s); naive {estimated:.1f} s (estimated): "
            f"{estimated / seconds:.2f} x faster"
        )
        cached = [[value for it in totals[at] for value in it.values] for at in (0, 2, -1)]
        again = [value for it in totals[1] for value in it.values]
        worst = max(
            abs(a - b)
            for one, other in zip(cached, full, strict=True)
            for a, b in zip(one, other, strict=True)
        )
        noise = max(abs(a - b) for a, b in zip(cached[0], again, strict=True))
        say(
            f"{self.name}: largest difference of a token's value from a full forward's: "
            f"{worst:.1e} nats; between the two of the same prompt: {noise:.1e}; "
            f"peak {self.machine.memory()}"
        )

    async def measure_knock_out(self) -> None:
        """Print the speed of rows that do not see one memory each, and of as many scored ones."""
        sizes, (suffix, prefix) = self.sizes, self.sizes.behind[0]
        scorer, begun = self.scorer(), self.ids(prefix)
        prompt = asked((*begun, *self.ids(sizes.response)), -sizes.response)
        copies = min(suffix, prefix) // sizes.response
        step = prefix // (copies + 1)
        hidden = [[(at * step, at * step + step // 2)] for at in range(1, copies + 1)]
        await scorer.score([prompt])
        taken, computed = [], 0
        for _ in range(4):
            self.machine.wait()
            started = time.perf_counter()
            computed = (await scorer._hide(prompt, hidden)).computed_tokens or 0
            taken.append(time.perf_counter() - started)
        plain = asked((*begun, *self.ids(computed + 1)), -computed)
        self.machine.wait()
        started = time.perf_counter()
        behind = (await scorer.score([plain])).computed_tokens or 0
        seconds = time.perf_counter() - started
        # The first one checked the model, and warmed it up.
        ratio = statistics.median(taken[1:]) / computed / (seconds / behind)
        what = self.rate(computed, statistics.median(taken[1:]), self.flops(computed, prefix))
        say(
            f"{self.name}: knock-out, {computed:,} tokens behind {prefix:,}: {what}; "
            f"{ratio:.2f} x the time of a token that is scored there"
        )
        await scorer.aclose()

    def _conversation(self, first: float) -> tuple[WirePrompt, list[WirePrompt]]:
        """Return the prompt with all memories, and those without each, the last one first."""
        sizes = self.sizes
        turns = (sizes.conversation - sizes.memories * sizes.memory) // sizes.turn
        spread = (1 - first) * (turns - 1) / sizes.memories
        at = [int(first * turns + number * spread) for number in range(sizes.memories)]
        parts: list[tuple[bool, tuple[int, ...]]] = []
        for turn in range(turns):
            parts += [(True, self.ids(sizes.memory)) for it in at if it == turn]
            parts.append((False, self.ids(sizes.turn)))
        memories = [index for index, (is_memory, _) in enumerate(parts) if is_memory]

        def prompt(without: int) -> WirePrompt:
            tokens: list[int] = []
            ranges = []
            for index, (is_memory, ids) in enumerate(parts):
                if index != without:
                    tokens += ids
                    if not is_memory and index > without:
                        ranges.append((len(tokens) - sizes.response, len(tokens)))
            return asked(tuple(tokens), *ranges)

        return prompt(-1), [prompt(index) for index in reversed(memories)]


def asked(tokens: tuple[int, ...], *ranges: Any) -> WirePrompt:
    """Return a prompt that asks for ``ranges``, or for all from an index on."""
    spans = tuple(it if isinstance(it, tuple) else (it % len(tokens), len(tokens)) for it in ranges)
    return WirePrompt(tokens, (), spans, tuple(map(str, range(len(spans)))))


async def main() -> None:
    parser = argparse.ArgumentParser(description="The local scorer on a GPU.")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, on any machine")
    tiny = parser.parse_args().tiny
    compute = choose("auto", "float32" if tiny else "bfloat16", lambda: None)
    if compute.kind == "cpu" and not tiny:
        parser.error("there is no GPU here: see what runs with --tiny")
    sizes = TINY if tiny else FULL
    machine = Machine(compute, sizes.product)
    say(
        f"{compute}; torch {torch.__version__}, transformers {transformers.__version__}; "
        f"a matrix product: {machine.peak_flops / 1e12:,.1f} TFLOP/s"
    )
    for name, shape in {"tiny": TINY_LLAMA}.items() if tiny else LLAMAS.items():
        if is_late():
            return
        bench = Bench(name, shape, machine, sizes)
        bench.measure_bare()
        await bench.measure_behind()
        if not is_late():
            await bench.measure_knock_out()
        for where, first in (("in its second half", 0.5), ("all over it", 0.0)):
            if not is_late():
                await bench.measure_matrix(where, first)
        del bench
        if compute.kind == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    asyncio.run(main())
