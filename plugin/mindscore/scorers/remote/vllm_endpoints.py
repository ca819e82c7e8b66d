"""The endpoints of vLLM that return log-probabilities of a prompt."""

from __future__ import annotations

import base64
import io
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from msgspec import Raw, Struct

from mindhooks import RangeScore, ScorerError, WirePrompt
from mindscore._util.aio import Pace
from mindscore.http.answers import MISSING, Quote, decode, decode_in_pieces
from mindscore.http.client import WireClient
from mindscore.scorers.remote import answers
from mindscore.scorers.remote.priority import PrioritySender

GENERATE = "/inference/v1/generate"
COMPLETIONS = "/v1/completions"

CHUNK_TOKENS = 2**14
"""Tokens whose values are read at once; then the event loop has its turn."""

NOT_WANTED = -1
HINT = "speculative decoding and some backends leave prompts out: start vLLM without them"


class Reply(NamedTuple):
    """The scores of a prompt, and what the server says of its tokens."""

    scores: list[RangeScore]
    usage: answers.TokenUsage | None


class Endpoint(Protocol):
    """A way of asking for the log-probabilities of a prompt."""

    path: str

    async def ask(self, prompt: WirePrompt, caching: Mapping[str, Any]) -> Reply:
        """Return the answer for one prompt.

        ``caching`` has ``cache_salt``, and ``skip_reading_prefix_cache``: whether vLLM is to run
        all of the prompt through the model.

        Raises:
            UnfitError: the server's answer does not fit.
            ScorerError: it failed.
        """


class UnfitError(ScorerError):
    """The server computed something, as ``usage`` says, and its answer does not fit."""

    def __init__(self, message: str, usage: answers.TokenUsage | None) -> None:
        super().__init__(message)
        self.usage = usage


class NoRowsError(UnfitError):
    """The server accepted the request and answered without rows."""


class _Answer(Struct):
    prompt_token_id_logprobs: str | None = None
    prompt_logprobs: Raw = MISSING
    usage: answers.TokenUsage | None = None


class _Generate(ABC):
    """``/inference/v1/generate``, which vLLM has with ``--enable-scale-out``."""

    path = GENERATE

    def __init__(self, client: WireClient, model: str, sender: PrioritySender) -> None:
        self._client = client
        self._model = model
        self._sender = sender

    async def ask(self, prompt: WirePrompt, caching: Mapping[str, Any]) -> Reply:
        """Return the answer for one prompt."""
        first = min(start for start, _ in prompt.ranges)
        await self._client.pace.yield_to_loop()
        body = {
            "model": self._model,
            "token_ids": prompt.tokens,
            "stream": False,
            "cache_salt": caching["cache_salt"],
            "sampling_params": {
                "max_tokens": 1,
                "temperature": 0,
                "detokenize": False,
                "skip_reading_prefix_cache": caching["skip_reading_prefix_cache"],
                **self._asked(prompt, first),
            },
        }
        answer = await self._sender.post(self.path, body, _Answer, answers.room_for(prompt))
        await self._client.pace.yield_to_loop()
        where = f"{self._client.base_url}{self.path}"
        try:
            scores = await self._scores(where, prompt, first, answer)
        except NoRowsError:
            raise
        except ScorerError as error:
            raise UnfitError(str(error), answer.usage) from error
        return Reply(scores, answer.usage)

    @abstractmethod
    def _asked(self, prompt: WirePrompt, first: int) -> dict[str, Any]:
        """Return what is asked for, from the token ``first`` on."""

    @abstractmethod
    async def _scores(
        self, where: str, prompt: WirePrompt, first: int, answer: _Answer
    ) -> list[RangeScore]:
        """Return the scores of ``answer``."""


class RowsEndpoint(_Generate):
    """Asks for rows from the first range on, each with the prompt's own token or with none.

    That is for vLLM's V2 model runner. If it takes more from its cache than what is before the
    first row, it answers without rows.
    """

    def _asked(self, prompt: WirePrompt, first: int) -> dict[str, Any]:
        return {
            # Row i is of the token at prompt_logprob_start + i + 1.
            "prompt_logprob_start": first - 1,
            "prompt_logprob_token_ids": _rows_of(prompt, first),
        }

    async def _scores(
        self, where: str, prompt: WirePrompt, first: int, answer: _Answer
    ) -> list[RangeScore]:
        field = f"{where}: prompt_token_id_logprobs"
        if answer.prompt_token_id_logprobs is None:
            raise NoRowsError(f"{field}: is null", answer.usage)
        values = _column(field, answer.prompt_token_id_logprobs)
        answers.expect_entries(field, len(prompt.tokens) - first, len(values), "update vLLM")
        return answers.range_scores(
            lambda index: f"{field}: row {index}", prompt.ranges, values, first=first
        )


def _rows_of(prompt: WirePrompt, first: int) -> Raw:
    """Return one row for each token from ``first`` on, as JSON: the token, or none."""
    ids = [NOT_WANTED] * (len(prompt.tokens) - first)
    for start, end in prompt.ranges:
        ids[start - first : end - first] = prompt.tokens[start:end]
    # Not as lists: so many of them keep the garbage collector, and so the event loop, busy.
    return Raw(f"[[{'],['.join(map(str, ids))}]]".encode())


def _column(field: str, encoded: str) -> list[float]:
    """Return the one column of the table in an ``.npy`` file.

    Raises:
        ScorerError: it is no such file, or its table has another shape.
    """
    import numpy as np
    from numpy.lib import format as npy

    try:
        file = io.BytesIO(base64.b64decode(encoded, validate=True))
        if npy.read_magic(file) != (1, 0):
            raise ValueError("of another version")
        shape, _, kind = npy.read_array_header_1_0(file)
    # For a broken header numpy raises whatever its parsers do.
    except Exception as error:
        wrong = type(error).__name__
    else:
        data = file.read()
        # Checked before there is an array: the shape in the header may be of any size.
        is_column = kind.kind == "f" and shape == (len(data) // kind.itemsize, 1)
        if is_column and len(data) % kind.itemsize == 0:
            column: list[float] = np.frombuffer(data, kind).tolist()
            return column
        wrong = f"{len(shape)} dimensions of type {kind.kind!r}, {len(data)} bytes"
    raise ScorerError(f"{field}: is not a table of numbers in 1 column ({wrong}); update vLLM")


class _Entry(Struct, gc=False):
    logprob: float


_Rows = list[dict[int, _Entry] | None]

_BETWEEN_ROWS = re.compile(rb"\}\s*,(?=\s*\{\s*\"-?\d+\"\s*:\s*\{)")


class EntriesEndpoint(_Generate):
    """Asks for an entry for each token, of which those from the first range on are read.

    That is for vLLM's V1 model runner. The entries of what it takes from its cache are memory that
    nothing was written to: any ids, any values. The V2 runner leaves them out.
    """

    def _asked(self, prompt: WirePrompt, first: int) -> dict[str, Any]:
        del prompt, first
        return {"prompt_logprobs": 0}

    async def _scores(
        self, where: str, prompt: WirePrompt, first: int, answer: _Answer
    ) -> list[RangeScore]:
        client, tokens, field = self._client, prompt.tokens, "prompt_logprobs"
        if answer.prompt_logprobs == MISSING:
            raise NoRowsError(f"{where}: {field}: is null", answer.usage)
        entries = await decode_in_pieces(
            where,
            answer.prompt_logprobs,
            list[Raw],
            _BETWEEN_ROWS,
            client.quote,
            f"$.{field}",
            client.pace,
            len(tokens),
        )
        cached = answer.usage.cached if answer.usage is not None else None
        # The first of those that are left is null.
        is_short = cached is not None and 0 < cached < first and len(entries) < len(tokens)
        left_out = cached if cached is not None and is_short else 0
        expected = len(tokens) - left_out
        answers.expect_entries(f"{where}: {field}", expected, len(entries), HINT)
        rows: _Rows = []
        for start in range(first - left_out, len(entries), CHUNK_TOKENS):
            await client.pace.yield_to_loop()
            written = b"[%b]" % b",".join(entries[start : start + CHUNK_TOKENS])
            rows += decode(where, memoryview(written), _Rows, client.quote, f"$.{field}", start)
        return await _scores(f"{where}: {field}", prompt, rows, first, client.quote, client.pace)


class _PromptChoice(answers.Choice):
    prompt_logprobs: Raw = MISSING


class _PromptCompletion(Struct):
    choices: list[_PromptChoice]
    usage: answers.TokenUsage | None = None


class CompletionsEndpoint:
    """Asks ``/v1/completions``, which every vLLM has, for an entry for each token of a prompt.

    It runs all of the prompt through the model, and takes no word on its cache.
    """

    path = COMPLETIONS

    def __init__(self, client: WireClient, model: str, sender: PrioritySender) -> None:
        self._client = client
        self._model = model
        self._sender = sender

    async def ask(self, prompt: WirePrompt, caching: Mapping[str, Any]) -> Reply:
        """Return the answer for one prompt."""
        del caching
        client, tokens = self._client, prompt.tokens
        await client.pace.yield_to_loop()
        body = {
            "model": self._model,
            "prompt": tokens,
            "prompt_logprobs": 0,
            "max_tokens": 1,
            "temperature": 0,
        }
        room = answers.room_for(prompt)
        answer = await self._sender.post(self.path, body, _PromptCompletion, room)
        where, field = f"{client.base_url}{self.path}", "choices[0].prompt_logprobs"
        choice, rows = answers.only_choice(where, answer.choices), None
        if choice.prompt_logprobs != MISSING:
            await client.pace.yield_to_loop()
            rows = await decode_in_pieces(
                where,
                choice.prompt_logprobs,
                _Rows,
                _BETWEEN_ROWS,
                client.quote,
                f"$.{field}",
                client.pace,
                len(tokens),
            )
            answers.expect_entries(f"{where}: {field}", len(tokens), len(rows), HINT)
        await client.pace.yield_to_loop()
        return Reply(
            await _scores(
                f"{where}: {field}", prompt, rows and rows[1:], 1, client.quote, client.pace
            ),
            answer.usage,
        )


async def _scores(
    field: str, prompt: WirePrompt, rows: _Rows | None, start: int, quote: Quote, pace: Pace
) -> list[RangeScore]:
    """Return the scores from the rows of ``prompt.tokens[start:]``."""
    if rows is None:
        raise ScorerError(
            f"{field}: is missing: the server returns no log-probabilities of the prompt; "
            f"{HINT}, or use another scorer"
        )
    found: list[float] = []
    for first in range(0, len(rows), CHUNK_TOKENS):
        part = rows[first : first + CHUNK_TOKENS]
        tokens = prompt.tokens[start + first : start + first + CHUNK_TOKENS]
        try:
            found += [row[token].logprob for token, row in zip(tokens, part, strict=True)]  # type: ignore[index]
        except (KeyError, TypeError):
            raise _misfit(field, start + first, tokens, part, quote) from None
        # Freeing a hundred thousand entries takes its time too.
        rows[first : first + CHUNK_TOKENS] = [None] * len(part)
        del part
        await pace.yield_to_loop()
    return answers.range_scores(
        lambda index: f"{field}[{index + start}]", prompt.ranges, found, first=start
    )


def _misfit(
    field: str, first: int, tokens: Sequence[int], rows: _Rows, quote: Quote
) -> ScorerError:
    """Return the error for the first of ``rows``, from ``first`` on, that is not of its token."""
    index, row, token = next(
        (first + at, row, token)
        for at, (row, token) in enumerate(zip(rows, tokens, strict=True))
        if row is None or token not in row
    )
    if row is None:
        return ScorerError(f"{field}[{index}]: is null: only the first may be; {HINT}")
    said = quote(str(next(iter(row), "none")))
    return answers.wrong_id(f"{field}[{index}]", token, said)
