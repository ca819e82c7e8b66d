"""A Hugging Face causal language model in this process: blocking calls, for a worker thread."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from mindhooks import Generated, RangeScore, ScorerError, WirePrompt

MOST_ROWS = 2048
"""Rows of logits held at once: with a vocabulary of 150,000, about 1.2 GB."""

LOGSUMEXP_ROWS = 256


class LocalModel:
    """Model and tokenizer, loaded from a folder or a Hugging Face id, in float32."""

    def __init__(self, name: str, location: str) -> None:
        self._name = name
        transformers.utils.logging.disable_progress_bar()
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(location)
            # Safetensors only: other weight files are pickles, which can run code.
            self._model: Any = AutoModelForCausalLM.from_pretrained(
                location, dtype=torch.float32, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise ScorerError(
                f"server.model: {name!r} cannot be loaded as a folder or a Hugging Face id: "
                f"{str(error).strip().splitlines()[0]}"
            ) from error
        self._model.eval()
        config = self._model.config.get_text_config()
        self._context_length: float = getattr(config, "max_position_embeddings", math.inf)
        embeddings: Any = self._model.get_input_embeddings()
        self._vocabulary: int = embeddings.num_embeddings
        self._keeps_rows = "logits_to_keep" in inspect.signature(self._model.forward).parameters

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``; special tokens in it are recognised, none is added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, special tokens included."""
        text: str = self._tokenizer.decode(list(ids))
        return text

    @torch.inference_mode()
    def score(self, prompt: WirePrompt) -> tuple[list[RangeScore], int]:
        """The prompt's ranges, and how many tokens ran through the model for them."""
        if not prompt.ranges:
            return [], 0
        tokens = prompt.tokens[: max(end for _, end in prompt.ranges)]
        self._require_fit(prompt, len(tokens))
        # The logits of row i are those of token i + 1.
        rows = sorted({i - 1 for start, end in prompt.ranges for i in range(start, end)})
        ids = torch.tensor([tokens])
        logprobs: dict[int, float] = {}
        cache = DynamicCache() if len(rows) > MOST_ROWS else None
        for start, end, wanted in _stretches(len(tokens), rows):
            logits = self._logits(ids[:, start:end], [row - start for row in wanted], cache)
            targets = ids[0, [row + 1 for row in wanted]]
            logprobs.update(zip(wanted, _logprobs(logits, targets), strict=True))
        answers = []
        for start, end in prompt.ranges:
            values = tuple(logprobs[index - 1] for index in range(start, end))
            answers.append(RangeScore(math.fsum(values), values))
        return answers, len(tokens)

    @torch.inference_mode()
    def generate(
        self,
        prompt: WirePrompt,
        max_tokens: int,
        stop: Sequence[int],
        stopped: Callable[[], bool],
    ) -> Generated:
        """Continue greedily to a token of ``stop``, the model's own end, or until ``stopped()``."""
        self._require_fit(prompt, len(prompt.tokens) + max_tokens)
        ids = torch.tensor([prompt.tokens])
        ends = {*stop, *_as_ids(self._model.generation_config.eos_token_id)}
        output = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=max_tokens,
            eos_token_id=sorted(ends) or None,
            pad_token_id=min(ends, default=0),
            stopping_criteria=[lambda so_far, _: torch.full((len(so_far),), stopped())],
        )
        spoken: list[int] = output[0, ids.shape[1] :].tolist()
        text = self._tokenizer.decode([token for token in spoken if token not in ends])
        return Generated(tuple(spoken), text)

    def _logits(self, ids: Any, rows: list[int], cache: Any) -> Any:
        """Logits of ``rows`` of ``ids``, which follow what is in ``cache``: (rows, vocabulary)."""
        keep: dict[str, Any] = {"logits_to_keep": torch.tensor(rows)} if self._keeps_rows else {}
        output = self._model(
            input_ids=ids, past_key_values=cache, use_cache=cache is not None, **keep
        )
        logits = output.logits[0]
        return logits if self._keeps_rows else logits[rows]

    def _require_fit(self, prompt: WirePrompt, length: int) -> None:
        if prompt.images:
            raise ScorerError("the local scorer takes no images: use a server that does")
        if length > self._context_length:
            raise ScorerError(
                f"{self._name}: the prompt needs {length} tokens, the model reads at most "
                f"{self._context_length}: score with a model of a longer context"
            )
        if prompt.tokens and max(prompt.tokens) >= self._vocabulary:
            raise ScorerError(
                f"{self._name}: token id {max(prompt.tokens)} is outside the model's vocabulary of "
                f"{self._vocabulary}: were token_ids made with another tokenizer?"
            )


def _stretches(length: int, rows: Sequence[int]) -> Iterator[tuple[int, int, Sequence[int]]]:
    """Cut a prompt so that no stretch has more than ``MOST_ROWS`` of the rows wanted."""
    start = 0
    for first in range(0, len(rows), MOST_ROWS):
        wanted = rows[first : first + MOST_ROWS]
        is_last = first + MOST_ROWS >= len(rows)
        end = length - 1 if is_last else wanted[-1] + 1
        yield start, end, wanted
        start = end


def _logprobs(logits: Any, targets: Any) -> list[float]:
    chosen = logits.gather(1, targets[:, None])[:, 0]
    # By blocks: the exponentials need as much memory again.
    normalisers = torch.cat([block.logsumexp(1) for block in logits.split(LOGSUMEXP_ROWS)])
    values: list[float] = (chosen - normalisers).tolist()
    return values


def _as_ids(end: int | Sequence[int] | None) -> Sequence[int]:
    if end is None:
        return ()
    return (end,) if isinstance(end, int) else end
