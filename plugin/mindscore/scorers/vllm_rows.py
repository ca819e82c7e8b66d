"""vLLM's ``/inference/v1/generate``: log-probabilities of chosen tokens, row by row."""

from __future__ import annotations

import base64
import io

from msgspec import Raw, Struct

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
        await self._client.pace.step()
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
                "prompt_logprob_token_ids": _asked_for(prompt, first),
            },
        }
        answer = await self._client.post(PATH, body, _Rows)
        field = f"{self._client.base_url}{PATH}: prompt_token_id_logprobs"
        if answer.prompt_token_id_logprobs is None:
            raise NoRowsError(f"{field}: is null")
        await self._client.pace.step()
        values = _column(field, answer.prompt_token_id_logprobs)
        expect_entries(field, len(prompt.tokens) - first, len(values), "update vLLM")
        scores = range_scores(
            lambda index: f"{field}: row {index}", prompt.ranges, values, first=first
        )
        # To score a prompt, vLLM runs all of it through the model.
        computed = answer.usage.computed(unless_said=0) if answer.usage else None
        return Answer(scores, computed)


def _asked_for(prompt: WirePrompt, first: int) -> Raw:
    """One row for each token from ``first`` on: the token, or none."""
    ids = [NOT_WANTED] * (len(prompt.tokens) - first)
    for start, end in prompt.ranges:
        ids[start - first : end - first] = prompt.tokens[start:end]
    # Not as lists: so many of them keep the garbage collector, and so the event loop, busy.
    return Raw(f"[[{'],['.join(map(str, ids))}]]".encode())


def _column(field: str, encoded: str) -> list[float]:
    """The one column of the table in an ``.npy`` file."""
    import numpy as np
    from numpy.lib import format as npy

    try:
        file = io.BytesIO(base64.b64decode(encoded, validate=True))
        if npy.read_magic(file) != (1, 0):
            raise ValueError("of another version")
        shape, _, kind = npy.read_array_header_1_0(file)
    # For a header that is none, numpy raises whatever its parsers do.
    except Exception as error:
        wrong = type(error).__name__
    else:
        data = file.read()
        # Before there is an array: of the shape that is said, it may be any size.
        is_column = kind.kind == "f" and shape == (len(data) // kind.itemsize, 1)
        if is_column and len(data) % kind.itemsize == 0:
            column: list[float] = np.frombuffer(data, kind).tolist()
            return column
        wrong = f"{len(shape)} dimensions of type {kind.kind!r}, {len(data)} bytes"
    raise ScorerError(f"{field}: is no table of numbers in 1 column ({wrong}); update vLLM")
