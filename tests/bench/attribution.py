"""What ContextCite, captum and mindscore cost, and find, on responses of the demo's conversation.

python tests/bench/attribution.py [--responses 5] [--ablations 64]

Of the responses whose memory is labelled, some are taken, spread evenly. Each method is to say what
each memory before a response did to it, with the same model and the very same ids of prompt and
response. ContextCite and captum do so for one response at a time, mindscore for all in one matrix.
Forwards and tokens are counted in the model's own ``forward``, whoever calls it.

Needs the extra ``bench``: pip install -c constraints.txt -e '.[local,bench]'
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib.util
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from shapes import DEMO, Matrix, conversation, full_matrix, say

from mindhooks import Context, WirePrompt
from mindscore.measure.memories import find_memories, responses_after_change, skip_only, whole
from mindscore.scorers.local.scorer import LocalScorer
from mindscore.scorers.local.weights import locate

NEEDED = ("context_cite", "captum")
WARM_UP = tuple(range(1000, 1128))


# -- what is asked -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Question:
    """A response: which of ``keys``, the memories before it, did what to it?"""

    context: Context
    index: int
    keys: tuple[str, ...]

    @property
    def node_id(self) -> str:
        return self.context.conversation[self.index].id

    def prompt(self, present: Sequence[bool]) -> list[int]:
        """The ids up to the response, with the memories that are ``present`` alone."""
        absent = {key for key, is_in in zip(self.keys, present, strict=True) if not is_in}
        prompt = self.context.wire_prompt(range(self.index + 1), absent.__contains__)
        return list(prompt.tokens[: prompt.ranges[-1][0]])

    def response(self) -> list[int]:
        """The ids of the response, end-of-turn included."""
        node = self.context.conversation[self.index]
        return list(node.token_ids[slice(*node.body)])

    def texts(self) -> list[str]:
        """The memories' texts, for methods that want to show them."""
        nodes = (*self.context.system, *self.context.identity, *self.context.conversation)
        found = {part.memory_key: part.text for node in nodes for part in node.parts}
        found |= {node.memory_key: node.text for node in nodes}
        return [found[key] for key in self.keys]


def questions(context: Context, count: int, labels: Mapping[str, str]) -> list[Question]:
    """``count`` of the labelled responses, the first and the last one among them."""
    window = whole(context)
    labelled = [i for i in window if context.conversation[i].id in labels]
    last, steps = len(labelled) - 1, max(1, count - 1)
    chosen = [labelled[round(n * last / steps)] for n in range(count)]
    # No other response is asked for, of any method.
    only = replace(
        context,
        conversation=tuple(
            node if index in chosen else replace(node, body=(0, 0))
            for index, node in enumerate(context.conversation)
        ),
    )
    reach = {
        memory.key: responses_after_change(only, window, skip_only(memory.key))
        for memory in find_memories(only)
    }
    return [
        Question(
            only, index, tuple(key for key in reach if only.conversation[index].id in reach[key])
        )
        for index in chosen
    ]


# -- counting ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Cost:
    """What a method spent."""

    forwards: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def add(self, other: Cost) -> None:
        self.forwards += other.forwards
        self.tokens += other.tokens
        self.seconds += other.seconds

    def __str__(self) -> str:
        return f"{self.forwards:5,} forwards {self.tokens:9,} tokens {self.seconds:7.1f} s"


@contextmanager
def counted(kind: type[Any]) -> Iterator[Cost]:
    """Count what runs through any model of the class ``kind``.

    In the class's ``forward``, not by a hook: captum does not call the model, but its forward.
    """
    cost, forward = Cost(), kind.forward

    @functools.wraps(forward)
    def counting(self: Any, input_ids: Any = None, *args: Any, **kwargs: Any) -> Any:
        cost.forwards += 1
        cost.tokens += input_ids.numel()
        return forward(self, input_ids, *args, **kwargs)

    kind.forward = counting
    started = time.perf_counter()
    try:
        yield cost
    finally:
        cost.seconds = time.perf_counter() - started
        kind.forward = forward


# -- the methods -------------------------------------------------------------------------------

Method = Callable[[Question], Sequence[float]]
"""Says what each memory of a question did, in the order of its keys."""


def context_cite(model: Any, tokenizer: Any, ablations: int) -> Method:
    """ContextCite, with memories for sources and our ids for its prompt and its response.

    It knows of one context, in one user message, and generates the response itself. So these four
    of its members, private ones for the most part, say what ours are; masks, forwards, and the
    regression are its own.
    """
    import nltk

    # The import downloads a sentence splitter. Memories are the sources here: nothing is split.
    nltk.download = lambda *_, **__: True
    from context_cite import ContextCiter
    from context_cite.context_partitioner import BaseContextPartitioner

    class Memories(BaseContextPartitioner):
        def __init__(self, texts: Sequence[str]) -> None:
            super().__init__("\n".join(texts))
            self._texts = texts

        @property
        def num_sources(self) -> int:
            return len(self._texts)

        def split_context(self) -> None:
            """They are split as it is."""

        def get_source(self, index: int) -> str:
            return self._texts[index]

        def get_context(self, mask: Any = None) -> str:
            present = [True] * len(self._texts) if mask is None else mask
            return "\n".join(t for t, is_in in zip(self._texts, present, strict=True) if is_in)

    class Citer(ContextCiter):
        question: Question

        def _get_prompt_ids(self, mask: Any = None, return_prompt: bool = False) -> list[int]:
            present = [True] * self.num_sources if mask is None else mask
            return self.question.prompt(present)

        @property
        def _response_ids(self) -> list[int]:
            return self.question.response()

        @property
        def response(self) -> str:
            return self.tokenizer.decode(self._response_ids)

        def _indices_to_token_indices(self, *_: Any) -> tuple[int, int]:
            return 0, len(self._response_ids)

    def attribute(question: Question) -> Sequence[float]:
        memories = Memories(question.texts())
        citer = Citer(
            model, tokenizer, memories.context, "", num_ablations=ablations, partitioner=memories
        )
        citer.question = question
        return citer.get_attributions(verbose=False).tolist()

    return attribute


def captum(model: Any, tokenizer: Any) -> Method:
    """captum's leave-one-out, the whole response in one forward, with our ids for its prompt."""
    import torch
    from captum.attr import FeatureAblation, LLMAttribution, TextTemplateInput

    class Memories(TextTemplateInput):
        def __init__(self, question: Question) -> None:
            texts = question.texts()
            super().__init__("{}" * len(texts), texts)
            self._question = question

        def to_model_input(self, perturbed_tensor: Any = None) -> Any:
            present = self.to_tensor() if perturbed_tensor is None else perturbed_tensor
            return torch.tensor([self._question.prompt((present[0] > 0.5).tolist())])

    attribution = LLMAttribution(FeatureAblation(model), tokenizer)

    def attribute(question: Question) -> Sequence[float]:
        target = torch.tensor(question.response())
        found = attribution.attribute(Memories(question), target, forward_in_tokens=False)
        return found.seq_attr.tolist()

    return attribute


async def mindscore(context: Context, kind: type[Any]) -> tuple[Matrix, Cost]:
    """The matrix, by the local scorer; its model is loaded before the counting begins."""
    scorer = LocalScorer({})
    await scorer.score([WirePrompt(WARM_UP, (), ((1, len(WARM_UP)),), ("warm-up",))])
    with counted(kind) as cost:
        matrix = await full_matrix(context, scorer, {})
    await scorer.aclose()
    return matrix, cost


# -- figures -----------------------------------------------------------------------------------


def first(keys: Sequence[str], values: Sequence[float]) -> str:
    """The memory of the largest value."""
    return max(zip(values, keys, strict=True))[1]


def missing() -> list[str]:
    """What is not installed of what this needs beyond mindscore itself."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


async def compare(count: int, ablations: int) -> None:
    """Print what each method costs and finds."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    labels = json.loads((DEMO / "labels.json").read_text(encoding="utf-8"))["depends_on"]
    folder = locate("smollm2")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True
    ).eval()
    with torch.inference_mode():
        model(input_ids=torch.tensor([WARM_UP]))
    encode = LocalScorer({})
    asked = questions(await conversation(None, encode.tokenize, 0), count, labels)
    await encode.aclose()
    methods = {
        f"ContextCite, {ablations} ablations": context_cite(model, tokenizer, ablations),
        "captum, leave-one-out": captum(model, tokenizer),
    }
    totals = {name: Cost() for name in methods}
    right = dict.fromkeys(methods, 0)
    found: dict[tuple[str, str, str], float] = {}
    say(f"{count} of the {len(labels)} labelled responses, each after all that comes before it")
    for question in asked:
        node_id, label = question.node_id, labels[question.node_id]
        for name, attribute in methods.items():
            with counted(type(model)) as cost:
                values = attribute(question)
            totals[name].add(cost)
            top = first(question.keys, values)
            right[name] += top == label
            found.update(
                ((name, k, node_id), v) for k, v in zip(question.keys, values, strict=True)
            )
            verdict = "" if top == label else f", not {label}"
            say(f"{node_id}: {name:26} {cost}; first: {top}{verdict}")
    name = "mindscore, leave-one-out"
    matrix, totals[name] = await mindscore(asked[0].context, type(model))
    signed, right[name] = matrix.signed(), 0
    for question in asked:
        node_id = question.node_id
        top = first(question.keys, [signed[key, node_id] for key in question.keys])
        right[name] += top == labels[node_id]
        if top != labels[node_id]:
            say(f"{node_id}: {name:26} first: {top}, not {labels[node_id]}")
    for name, cost in totals.items():
        say(f"all: {name:26} {cost}; labelled memory first: {right[name]} of {count}")
    mine = totals.popitem()[1]
    for name, cost in totals.items():
        say(
            f"mindscore, of {name}: {mine.tokens / cost.tokens:.3f} x the tokens, "
            f"{mine.seconds / cost.seconds:.3f} x the seconds"
        )
    if mine.tokens != matrix.stats.computed_tokens:
        say(f"mindscore says that it computed {matrix.stats.computed_tokens:,} tokens")
    name = list(methods)[1]
    worst = max(abs(v - signed[k, n]) for (who, k, n), v in found.items() if who == name)
    say(f"mindscore's and captum's values: largest difference {worst:.1e} nats")


def main() -> int:
    parser = argparse.ArgumentParser(description="Costs and findings of three methods.")
    parser.add_argument("--responses", type=int, choices=range(1, 13), default=5, metavar="1..12")
    parser.add_argument("--ablations", type=int, default=64)
    options = parser.parse_args()
    if absent := missing():
        say(
            f"not installed: {', '.join(absent)}; install with: "
            "pip install -c constraints.txt -e '.[local,bench]'"
        )
        return 1
    # Progress bars and the packages' own warnings say nothing of what is measured.
    os.environ["TQDM_DISABLE"] = "1"
    warnings.simplefilter("ignore")
    asyncio.run(compare(options.responses, options.ablations))
    return 0


if __name__ == "__main__":
    sys.exit(main())
