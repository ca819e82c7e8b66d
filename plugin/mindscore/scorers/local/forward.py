"""Forward passes of a model, and the log-probabilities in their logits."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from mindhooks import WirePrompt

LOGSUMEXP_ROWS = 256


class Forward:
    """Passes of ``model``, of transformers, wherever its weights are."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._takes = inspect.signature(model.forward).parameters
        # The second in transformers before 5.24.
        self.cache_name = "cache" if "cache" in self._takes else "past_key_values"
        self._device = model.get_input_embeddings().weight.device
        # Of weights that are on none, accelerate has hold.
        self.devices = sorted({str(it.device) for it in model.parameters()} - {"meta"})

    @property
    def takes_positions(self) -> bool:
        """True if a pass may be told the positions of its tokens."""
        return "position_ids" in self._takes

    def tensor(self, numbers: Sequence[int]) -> Any:
        """Return whole numbers as a batch of one on the device of the embeddings."""
        return torch.tensor([numbers], dtype=torch.long, device=self._device)

    def logits(self, tokens: Sequence[int], rows: Sequence[int], cache: Any, **more: Any) -> Any:
        """Run ``tokens`` behind ``cache``, and return the logits of ``rows``, (rows, vocabulary).

        ``rows`` are indices in ``tokens``; ``more`` are further arguments of the model.
        """
        wanted: Any = list(rows)
        if len(self.devices) == 1:
            wanted = self.tensor(wanted)[0]
        # Else a list, which has no device: accelerate would send it to that of the first layers.
        keeps_rows = "logits_to_keep" in self._takes
        keep = {"logits_to_keep": wanted} if keeps_rows else {}
        output = self._model(
            input_ids=self.tensor(tokens),
            use_cache=cache is not None,
            **{self.cache_name: cache},
            **keep,
            **more,
        )
        return output.logits[0] if keeps_rows else output.logits[0, wanted]


def target_logprobs(logits: Any, targets: Sequence[int]) -> list[float]:
    """Return the log-probability, in nats, of the target of each row of ``logits``."""
    if not targets:
        return []
    indices = torch.tensor(targets, device=logits.device)
    chosen = logits.gather(1, indices[:, None])[:, 0].float()
    # By blocks: the exponentials need as much memory again.
    blocks = logits.split(LOGSUMEXP_ROWS)
    normalisers = torch.cat([block.float().logsumexp(1) for block in blocks])
    found: list[float] = (chosen - normalisers).tolist()
    return found


def scored_rows(prompt: WirePrompt) -> list[int]:
    """Return the rows whose logits tell the tokens of the prompt's ranges: i for token i + 1."""
    wanted = bytearray(len(prompt.tokens))
    for start, end in prompt.ranges:
        wanted[start:end] = b"\1" * (end - start)
    return [index - 1 for index, is_wanted in enumerate(wanted) if is_wanted]
