"""The training itself: blocking, for a process of its own."""

from __future__ import annotations

import inspect
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from transformers import AutoModelForCausalLM

from mindscore.errors import TrainError
from mindscore.lora.job import Job, Progress, Recipe
from mindscore.lora.kept import Kept
from mindscore.lora.packing import Packed, pack
from mindscore.scorers.adapter import adapted
from mindscore.scorers.weights import locate


class Training:
    """A model with an adapter, to be trained on the samples of ``job``.

    ``weights`` are the adapter's. The same job comes out the same on the same machine.
    """

    def __init__(self, job: Job) -> None:
        torch.manual_seed(job.recipe.seed)
        transformers.utils.logging.disable_progress_bar()
        self._recipe = job.recipe
        self._sequences = pack(job.samples)
        base: Any = AutoModelForCausalLM.from_pretrained(
            locate(job.model), dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
        self._keeps_rows = "logits_to_keep" in inspect.signature(base.forward).parameters
        self._model = _with_adapter(base, job)
        self.weights = [it for it in self._model.parameters() if it.requires_grad]

    def run(self, tell: Callable[[Progress], None]) -> None:
        """Train until the loss is as small as the recipe asks for; ``tell`` is told of each epoch.

        Raises:
            TrainError: the loss is no number any more.
        """
        recipe, began = self._recipe, time.monotonic()
        kept: list[Kept | None] = [None] * len(self._sequences)
        if recipe.keep:
            self._model.eval()
            with self._model.disable_adapter():
                kept = [Kept(it, self.logits) for it in self._sequences]
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

    def logits(self, ids: Sequence[int], rows: Sequence[int]) -> Any:
        """What the model says after each of ``rows``: (rows, vocabulary)."""
        end = max(rows) + 1
        kept = torch.tensor(rows)
        keep = {"logits_to_keep": kept} if self._keeps_rows else {}
        logits = self._model(input_ids=torch.tensor([ids[:end]]), use_cache=False, **keep).logits[0]
        return logits if self._keeps_rows else logits[kept]

    def save(self, folder: Path) -> None:
        """Write the adapter to ``folder``, in PEFT's format, whole or not at all."""
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
        self._model.save_pretrained(unfinished)
        unfinished.rename(folder)

    def _losses(self, sequence: Packed, kept: Kept | None) -> tuple[Any, Any]:
        """The mean loss of the tokens to be learnt, and what a step is to lessen."""
        learnt = len(sequence.rows)
        if kept is None:
            loss = mean_loss(sequence, self.logits(sequence.ids, sequence.rows))
            return loss, loss
        drawn = kept.draw()
        logits = self.logits(sequence.ids, [*sequence.rows, *kept.rows(drawn)])
        loss = mean_loss(sequence, logits[:learnt])
        return loss, loss + self._recipe.keep * kept.divergence(drawn, logits[learnt:])


def mean_loss(sequence: Packed, logits: Any) -> Any:
    """The mean cross-entropy of the tokens to be learnt, by the logits of the rows before them."""
    targets = torch.tensor([sequence.ids[row + 1] for row in sequence.rows])
    return torch.nn.functional.cross_entropy(logits, targets)


class _Stepper:
    """AdamW with a warm-up."""

    def __init__(self, weights: list[Any], recipe: Recipe) -> None:
        self._weights = weights
        self._recipe = recipe
        self._optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=0.0)
        warming = [(it + 1) / recipe.warmup_steps for it in range(recipe.warmup_steps)]
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: warming[step] if step < len(warming) else 1.0
        )

    def step(self, loss: Any) -> None:
        """Change the weights so that ``loss`` is less."""
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._weights, self._recipe.gradient_norm)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()


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
