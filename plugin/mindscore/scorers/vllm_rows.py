"""vLLM's ``/inference/v1/generate``: log-probabilities of chosen tokens, row by row."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

from msgspec import Struct

from mindhooks import ScorerError, WirePrompt
from mindscore.scorers.batches import Answer
from mindscore.scorers.completions import Usage
from mindscore.scorers.prompt_logprobs import expect_entries, range_scores
from mindscore.scorers.wire import WireClient

PATH = "/inference/v1/generate"
NOT_WANTED = -1


class NoRowsError(ScorerError):
    """The server took the request and answered without rows."""


class _Rows(Struct):
    prompt_token_id_logprobs: str | None = None
    usage: Usage | None = None


class RowsEndpoint:
    """Asks for the rows from the first range on, each with the prompt's own token or with none.

    ``skip_reading_prefix_cache`` is left as it is: without it vLLM may drop rows that it takes
    from its cache.
    """

    def __init__(self, client: WireClient, model: str, priority: int) -> None:
        self._client = client
        self._model = model
        self._priority = priority

    async def ask(self, prompt: WirePrompt) -> Answer:
        """One prompt's answer.

        Raises:
            NoRowsError: the server answered without rows.
            ScorerError: it failed, or its rows don't fit.
        """
        first = min(start for start, _ in prompt.ranges)
        wanted = {index for start, end in prompt.ranges for index in range(start, end)}
        body = {
            "model": self._model,
            "token_ids": prompt.tokens,
            "stream": False,
            # As in the settings: to vLLM too, larger is later.
            "priority": self._priority,
            "sampling_params": {
                "max_tokens": 1,
                "temperature": 0,
                "detokenize": False,
                # Row i is of the token at prompt_logprob_start + i + 1.
                "prompt_logprob_start": first - 1,
                "prompt_logprob_token_ids": [
                    [prompt.tokens[index] if index in wanted else NOT_WANTED]
                    for index in range(first, len(prompt.tokens))
                ],
            },
        }
        answer = await self._client.post(PATH, body, _Rows)
        field = f"{self._client.base_url}{PATH}: prompt_token_id_logprobs"
        if answer.prompt_token_id_logprobs is None:
            raise NoRowsError(f"{field}: is null")
        values = _column(field, answer.prompt_token_id_logprobs)
        expect_entries(field, len(prompt.tokens) - first, len(values), "update vLLM")
        scores = range_scores(
            lambda index: f"{field}: row {index}", prompt.ranges, values, first=first
        )
        # To score a prompt, vLLM runs all of it through the model.
        computed = answer.usage.computed(unless_said=0) if answer.usage else None
        return Answer(scores, computed)


def _column(field: str, encoded: str) -> list[float]:
    """The one column of the table in an ``.npy`` file."""
    import numpy as np

    try:
        data = base64.b64decode(encoded, validate=True)
        table: Any = np.load(io.BytesIO(data), allow_pickle=False)
    except (binascii.Error, ValueError, EOFError, OSError) as error:
        raise ScorerError(
            f"{field}: is no table of numbers ({type(error).__name__}); update vLLM"
        ) from error
    if table.dtype.kind != "f" or table.ndim != 2 or table.shape[1] != 1:
        raise ScorerError(
            f"{field}: expected a table of numbers with 1 column, "
            f"got {table.dtype} of shape {table.shape}; update vLLM"
        )
    column: list[float] = table[:, 0].tolist()
    return column
