"""The ``vllm`` scorer: a stock vLLM server, its log-probabilities of prompts."""

from __future__ import annotations

import asyncio
import base64
import importlib
import io
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from msgspec import Raw, Struct

from mindhooks import Generated, RangeScore, ScorerError, WirePrompt, in_thread
from mindscore._util.aio import Pace
from mindscore.http.answers import MISSING, Quote
from mindscore.http.client import StatusError, UnavailableError, WireClient
from mindscore.scorers.remote import answers
from mindscore.scorers.remote.priority import PrioritySender
from mindscore.scorers.remote.rendering import RenderingScorer

log = logging.getLogger("mindscore")
T = TypeVar("T")

PATH = "/inference/v1/generate"
NOT_WANTED = -1


class NoRowsError(ScorerError):
    """The server accepted the request and answered without rows."""


class _Rows(Struct):
    prompt_token_id_logprobs: str | None = None
    usage: answers.TokenUsage | None = None


class RowsEndpoint:
    """Asks for rows from the first range on, each with the prompt's own token or with none.

    ``skip_reading_prefix_cache`` is left as it is: without it vLLM may drop rows that it takes
    from its cache.
    """

    def __init__(self, client: WireClient, model: str, sender: PrioritySender) -> None:
        self._client = client
        self._model = model
        self._sender = sender

    async def ask(self, prompt: WirePrompt) -> answers.Answer:
        """Return the answer for one prompt.

        Raises:
            NoRowsError: the server answered without rows.
            ScorerError: it failed, or its rows don't fit.
        """
        first = min(start for start, _ in prompt.ranges)
        await self._client.pace.yield_to_loop()
        body = {
            "model": self._model,
            "token_ids": prompt.tokens,
            "stream": False,
            "sampling_params": {
                "max_tokens": 1,
                "temperature": 0,
                "detokenize": False,
                # Row i is of the token at prompt_logprob_start + i + 1.
                "prompt_logprob_start": first - 1,
                "prompt_logprob_token_ids": _asked_for(prompt, first),
            },
        }
        answer = await self._sender.post(PATH, body, _Rows, answers.room_for(prompt))
        field = f"{self._client.base_url}{PATH}: prompt_token_id_logprobs"
        if answer.prompt_token_id_logprobs is None:
            raise NoRowsError(f"{field}: is null")
        await self._client.pace.yield_to_loop()
        values = _column(field, answer.prompt_token_id_logprobs)
        answers.expect_entries(field, len(prompt.tokens) - first, len(values), "update vLLM")
        scores = answers.range_scores(
            lambda index: f"{field}: row {index}", prompt.ranges, values, first=first
        )
        # To score a prompt, vLLM runs all of it through the model.
        computed = answer.usage.computed(default_cached=0) if answer.usage else None
        return answers.Answer(scores, computed)


def _asked_for(prompt: WirePrompt, first: int) -> Raw:
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


COMPLETIONS = "/v1/completions"
FIRST_WITH_ROWS = (0, 32)
"""The first version whose ``/inference/v1/generate`` scores rows of a choice."""

CHUNK_TOKENS = 2**14
"""Tokens whose values are read at once; then the event loop has its turn."""


class ServerVersion(Struct):
    """The version that a server says it is of."""

    version: str


class _Entry(Struct, gc=False):
    logprob: float


Rows = list[dict[int, _Entry] | None]

_BETWEEN_ROWS = re.compile(rb"\}\s*,(?=\s*\{\s*\"\d+\"\s*:\s*\{)")


class _PromptChoice(answers.Choice):
    prompt_logprobs: Raw = MISSING


class _PromptCompletion(Struct):
    choices: list[_PromptChoice]
    usage: answers.TokenUsage | None = None


class VLLMScorer(RenderingScorer):
    """A scorer by ``/inference/v1/generate`` where it is offered, else by ``/v1/completions``.

    The former answers for the wanted tokens alone; the latter, which every vLLM has, for each token
    of the prompt. The first prompt shows which it is.
    """

    # To score a prompt, vLLM runs all of it through the model.
    reuses_prefixes = False

    def __init__(self, table: Mapping[str, Any]) -> None:
        super().__init__(table)
        # As in the settings, a larger priority is served later.
        self._sender = PrioritySender(self._client, self._settings.priority)
        self._rows = RowsEndpoint(self._client, self.model, self._sender)
        self._has_rows: bool | None = None
        self._learning = asyncio.Lock()

    async def _ask(self, prompt: WirePrompt) -> answers.Answer:
        answers.refuse_images(prompt)
        prompt = answers.scored_part(prompt)
        if not await self._offers_rows():
            return await self._by_completions(prompt)
        try:
            return await self._rows.ask(prompt)
        except (StatusError, NoRowsError) as error:
            # If this is refused too, the prompt is at fault, and not the endpoint.
            answer = await self._by_completions(prompt)
            self._go_without_rows(error)
            return answer

    def _go_without_rows(self, error: ScorerError) -> None:
        if self._has_rows:
            why = f"HTTP {error.status}" if isinstance(error, StatusError) else "no rows"
            url = f"{self._client.base_url}{PATH}"
            log.info("%s is not offered (%s): using %s", url, why, COMPLETIONS)
        self._has_rows = False

    async def _offers_rows(self) -> bool:
        async with self._learning:
            if self._has_rows is None:
                try:
                    version = (await self._client.get("/version", ServerVersion)).version
                except UnavailableError as error:
                    # A gateway may fail at all paths but /v1, so the prompt goes there meanwhile.
                    if error.status is None:
                        raise
                    return False
                except ScorerError:
                    version = ""
                number = re.match(r"v?(\d+)\.(\d+)", version)
                is_new = number and (int(number[1]), int(number[2])) >= FIRST_WITH_ROWS
                self._has_rows = bool(is_new) and await in_thread(_has_numpy)
        return self._has_rows

    async def _by_completions(self, prompt: WirePrompt) -> answers.Answer:
        await self._client.pace.yield_to_loop()
        body = {
            "model": self.model,
            "prompt": prompt.tokens,
            "prompt_logprobs": 0,
            "max_tokens": 1,
            "temperature": 0,
        }
        answer = await self._post(COMPLETIONS, body, _PromptCompletion, answers.room_for(prompt))
        where, field = f"{self._client.base_url}{COMPLETIONS}", "choices[0].prompt_logprobs"
        choice = answers.only_choice(where, answer.choices)
        rows = await self._decoded(
            where, field, choice.prompt_logprobs, Rows, _BETWEEN_ROWS, len(prompt.tokens)
        )
        client = self._client
        await client.pace.yield_to_loop()
        scores = await _scores(f"{where}: {field}", prompt, rows, client.quote, client.pace)
        # Where usage has no details, nothing was cached: see reuses_prefixes.
        return answers.Answer(
            scores, answer.usage.computed(default_cached=0) if answer.usage else None
        )

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Continue greedily by ``/v1/completions``."""
        answers.refuse_images(prompt)
        return await self._complete(COMPLETIONS, prompt, max_tokens, stop, {})

    async def _post(self, path: str, body: Mapping[str, Any], answer: type[T], room: int) -> T:
        return await self._sender.post(path, body, answer, room)


def _has_numpy() -> bool:
    # Imported in a thread: it takes a tenth of a second.
    with suppress(ImportError):
        importlib.import_module("numpy")
        return True
    return False


async def _scores(
    field: str, prompt: WirePrompt, rows: Rows | None, quote: Quote, pace: Pace
) -> list[RangeScore]:
    hint = "speculative decoding and some backends leave prompts out: start vLLM without them"
    if rows is None:
        raise ScorerError(
            f"{field}: is missing: the server returns no log-probabilities of the prompt; "
            f"{hint}, or use another scorer"
        )
    answers.expect_entries(field, len(prompt.tokens), len(rows), hint)
    found: list[float] = []
    for first in range(1, len(rows), CHUNK_TOKENS):
        part = rows[first : first + CHUNK_TOKENS]
        tokens = prompt.tokens[first : first + CHUNK_TOKENS]
        try:
            found += [row[token].logprob for token, row in zip(tokens, part, strict=True)]  # type: ignore[index]
        except (KeyError, TypeError):
            raise _misfit(field, first, tokens, part, quote, hint) from None
        # Freeing a hundred thousand entries takes its time too.
        rows[first : first + CHUNK_TOKENS] = [None] * len(part)
        del part
        await pace.yield_to_loop()
    return answers.range_scores(
        lambda index: f"{field}[{index + 1}]", prompt.ranges, found, first=1
    )


def _misfit(
    field: str, first: int, tokens: Sequence[int], rows: Rows, quote: Quote, hint: str
) -> ScorerError:
    """Return the error for the first of ``rows``, from ``first`` on, that is not of its token."""
    index, row, token = next(
        (first + at, row, token)
        for at, (row, token) in enumerate(zip(rows, tokens, strict=True))
        if row is None or token not in row
    )
    if row is None:
        return ScorerError(f"{field}[{index}]: is null: only the first may be; {hint}")
    said = quote(str(next(iter(row), "none")))
    return answers.wrong_id(f"{field}[{index}]", token, said)
