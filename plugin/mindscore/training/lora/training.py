"""The training of an adapter, which blocks: for a process of its own."""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from transformers import AutoModelForCausalLM

from mindscore._util.errors import TrainError
from mindscore._util.files import whole_folder
from mindscore.scorers.local.weights import LocalTokenizer, adapted, locate
from mindscore.training.guard import Losses, unrelated_answers
from mindscore.training.lora.job import Job, Measures, Packed, Progress, Recipe, Sample, pack

LIKELIEST = 64
"""The likeliest tokens of a row, whose probabilities are kept apart; the others are kept as a sum.
All of them would take gigabytes."""

ROWS = 256
"""Rows that are compared in one step, drawn anew each time."""


class KLReference:
    """The distributions at the rows of a sequence that are not learnt from, before the training.

    ``logits`` computes those of given rows, with the model as it is then.
    """

    def __init__(
        self, sequence: Packed, logits: Callable[[Sequence[int], Sequence[int]], Any]
    ) -> None:
        learnt = set(sequence.rows)
        self._rows = torch.tensor([it for it in range(len(sequence.ids) - 1) if it not in learnt])
        tokens, logprobs = [], []
        with torch.no_grad():
            for rows in self._rows.split(2 * ROWS):
                if len(rows):
                    every = logits(sequence.ids, rows.tolist()).log_softmax(1)
                    likeliest = every.topk(min(LIKELIEST, every.shape[1] - 1))
                    tokens.append(likeliest.indices)
                    logprobs.append(likeliest.values)
        self._tokens = torch.cat(tokens) if tokens else None
        self._logprobs = torch.cat(logprobs) if logprobs else None

    def draw(self) -> Any:
        """Draw indices of some of the rows."""
        return torch.randperm(len(self._rows))[:ROWS].sort().values

    def rows(self, drawn: Any) -> list[int]:
        """Return the sequence's rows at those indices."""
        rows: list[int] = self._rows[drawn].tolist()
        return rows

    def divergence(self, drawn: Any, logits: Any) -> Any:
        """Return the mean KL divergence of ``logits`` from the reference, in nats a row."""
        if self._tokens is None or self._logprobs is None:
            return 0.0
        before = _with_rest(self._logprobs[drawn])
        after = _with_rest(logits.log_softmax(1).gather(1, self._tokens[drawn]))
        return (before.exp() * (before - after)).sum(1).mean()


def _with_rest(logprobs: Any) -> Any:
    """Append a column: the log-probability of all other tokens together."""
    rest = (1 - logprobs.exp().sum(1, keepdim=True)).clamp(min=1e-6)
    return torch.cat([logprobs, rest.log()], dim=1)


class Training:
    """A model and the adapter to train on the samples of ``job``.

    ``weights`` are the adapter's. The same job gives the same adapter on the same machine.
    """

    def __init__(self, job: Job) -> None:
        torch.manual_seed(job.recipe.seed)
        transformers.utils.logging.disable_progress_bar()
        self._recipe = job.recipe
        self._sequences = pack(job.samples)
        location = locate(job.model)
        base: Any = AutoModelForCausalLM.from_pretrained(
            location, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
        self._keeps_rows = "logits_to_keep" in inspect.signature(base.forward).parameters
        self._tokenizer = LocalTokenizer(job.model, location)
        self._goes_on = bool(job.start)
        self._model = _with_adapter(base, job)
        self.weights = [it for it in self._model.parameters() if it.requires_grad]

    def run(self, tell: Callable[[Progress], None]) -> None:
        """Train until the loss reaches the recipe's target; call ``tell`` after each epoch.

        Raises:
            TrainError: the loss is not finite.
        """
        recipe, began = self._recipe, time.monotonic()
        kept: list[KLReference | None] = [None] * len(self._sequences)
        if recipe.keep:
            self._model.eval()
            # Not without the adapter that it goes on from: what that has learnt stands between
            # what is learnt now, and would be unlearnt.
            with nullcontext() if self._goes_on else self._model.disable_adapter():
                kept = [KLReference(it, self.logits) for it in self._sequences]
        self._model.train()
        stepper = _Stepper(self.weights, recipe)
        tokens = sum(len(it.rows) for it in self._sequences)
        goal = 0.0
        for epoch in range(1, recipe.epochs + 1):
            lost = 0.0
            for index in torch.randperm(len(self._sequences)).tolist():
                loss, total = self._losses(self._sequences[index], kept[index])
                stepper.step(total)
                lost += loss.item() * len(self._sequences[index].rows)
            mean = lost / tokens
            if not math.isfinite(mean):
                raise TrainError(f"the loss is {mean} in epoch {epoch}")
            tell(Progress(epoch, recipe.epochs, mean, time.monotonic() - began))
            if mean < goal:
                break
            if epoch == 1:
                goal = mean * recipe.target

    def measured(self, train: Callable[[], None]) -> Measures:
        """Call ``train``, and return the losses before it and after it.

        Raises:
            TrainError: one is not finite.
        """
        unrelated = pack(_unrelated(self._tokenizer))
        with self._model.disable_adapter():
            base = self._loss(unrelated)
        before = [self._loss(it) for it in (self._sequences, unrelated)]
        train()
        learnt, kept = (
            Losses(loss, self._loss(it))
            for loss, it in zip(before, (self._sequences, unrelated), strict=True)
        )
        if not math.isfinite(learnt.after + kept.after):
            raise TrainError(f"the loss is {learnt.after + kept.after} after the training")
        return Measures(learnt, kept, base if self._goes_on else kept.before)

    def _loss(self, sequences: Sequence[Packed]) -> float:
        """Return the mean loss of the tokens to learn, with the model as it is."""
        self._model.eval()
        with torch.no_grad():
            lost = sum(
                mean_loss(it, self.logits(it.ids, it.rows)).item() * len(it.rows)
                for it in sequences
            )
        return float(lost) / sum(len(it.rows) for it in sequences)

    def logits(self, ids: Sequence[int], rows: Sequence[int]) -> Any:
        """Return the model's logits at ``rows``: (rows, vocabulary)."""
        end = max(rows) + 1
        kept = torch.tensor(rows)
        keep = {"logits_to_keep": kept} if self._keeps_rows else {}
        logits = self._model(input_ids=torch.tensor([ids[:end]]), use_cache=False, **keep).logits[0]
        return logits if self._keeps_rows else logits[kept]

    def save(self, folder: Path) -> None:
        """Write the adapter to ``folder``, in PEFT's format, whole or not at all."""
        with whole_folder(folder) as unfinished:
            # Otherwise PEFT looks for the base model's files, in the current folder first.
            self._model.save_pretrained(unfinished, save_embedding_layers=False)

    def _losses(self, sequence: Packed, kept: KLReference | None) -> tuple[Any, Any]:
        """Return the mean loss of the tokens to learn, and the total that a step lessens."""
        learnt = len(sequence.rows)
        if kept is None:
            loss = mean_loss(sequence, self.logits(sequence.ids, sequence.rows))
            return loss, loss
        drawn = kept.draw()
        logits = self.logits(sequence.ids, [*sequence.rows, *kept.rows(drawn)])
        loss = mean_loss(sequence, logits[:learnt])
        return loss, loss + self._recipe.keep * kept.divergence(drawn, logits[learnt:])


def mean_loss(sequence: Packed, logits: Any) -> Any:
    """Return the mean cross-entropy of the tokens to learn, from the logits of their rows."""
    targets = torch.tensor([sequence.ids[row + 1] for row in sequence.rows])
    return torch.nn.functional.cross_entropy(logits, targets)


class _Stepper:
    """AdamW with a warm-up of the learning rate."""

    def __init__(self, weights: list[Any], recipe: Recipe) -> None:
        self._weights = weights
        self._recipe = recipe
        self._optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=0.0)
        warming = [(it + 1) / recipe.warmup_steps for it in range(recipe.warmup_steps)]
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: warming[step] if step < len(warming) else 1.0
        )

    def step(self, loss: Any) -> None:
        """Change the weights by one step against the gradient of ``loss``."""
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._weights, self._recipe.gradient_norm)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()


def _unrelated(tokenizer: LocalTokenizer) -> list[Sample]:
    """Return the guard's questions and answers as the model reads them."""

    async def render(
        messages: Sequence[Mapping[str, Any]], ask: bool, tools: Sequence[Mapping[str, Any]] = ()
    ) -> str:
        return tokenizer.template.render(messages, ask, tools)

    async def samples() -> list[Sample]:
        texts = [await it.texts(render) for it in unrelated_answers()]
        return [Sample(*(tuple(tokenizer.encode(it)) for it in both)) for both in texts]

    return asyncio.run(samples())


def _with_adapter(base: Any, job: Job) -> Any:
    if job.start:
        return adapted(base, job.start, trainable=True)
    config = peft.LoraConfig(
        r=job.recipe.rank,
        lora_alpha=job.recipe.alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return peft.get_peft_model(base, config)
