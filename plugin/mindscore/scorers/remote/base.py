"""What the scorers of stock model servers share."""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct

from mindhooks import Generated, RangeScore, ScorerError, WirePrompt
from mindscore.config.settings import ServerSettings, parse_table
from mindscore.http.answers import decode_in_pieces
from mindscore.http.client import WireClient, checked_address
from mindscore.scorers.remote.batches import Answer, Batcher, to_scores
from mindscore.scorers.remote.prompt_logprobs import refuse_images, scored_part
from mindscore.scorers.tokenizer import FileTokenizer


class Choice(Struct):
    """What is said of one prompt; ``index`` says of which."""

    index: int


C = TypeVar("C", bound=Choice)


class _Details(Struct):
    cached_tokens: int | None = None


class Usage(Struct):
    """What a request took."""

    prompt_tokens: int | None = None
    prompt_tokens_details: _Details | None = None

    def computed(self, *, unless_said: int | None) -> int | None:
        """Tokens that ran through the model.

        ``unless_said`` is how many were cached where the server doesn't say; ``None``: not known.
        """
        details = self.prompt_tokens_details
        said = details.cached_tokens if details is not None else None
        cached = unless_said if said is None else said
        known = self.prompt_tokens is not None and cached is not None
        return max(0, (self.prompt_tokens or 0) - (cached or 0)) if known else None


class Tokens(Struct):
    """What ``/tokenize`` answers, wherever there is one."""

    tokens: list[int]


class Text(Struct):
    """The text of ids: ``prompt``, as vLLM and mindscore call it, or ``text``, as SGLang does."""

    prompt: str | None = None
    text: str | None = None


async def detokenize(client: WireClient, ids: Sequence[int], more: Mapping[str, Any]) -> str:
    """The text of ``ids``, special tokens included, by the server's ``/detokenize``.

    Raises:
        ScorerError: the server has no such path, or says something else.
    """
    body = {**more, "tokens": ids, "skip_special_tokens": False}
    answer = await client.post("/detokenize", body, Text)
    found = answer.prompt if answer.prompt is not None else answer.text
    if found is None:
        raise ScorerError(
            f"{client.base_url}/detokenize: prompt: is missing: set server.tokenizer to the "
            "model's tokenizer.json"
        )
    return found


class _Continuation(Struct):
    text: str
    token_ids: tuple[int, ...] | None = None


class _Completion(Struct):
    choices: list[_Continuation]


def in_order(where: str, choices: Sequence[C], count: int) -> list[C]:
    """The choices of ``count`` prompts by index.

    Raises:
        ScorerError: there is not one for each.
    """
    ordered = sorted(choices, key=lambda it: it.index)
    if (got := [choice.index for choice in ordered]) != list(range(count)):
        raise ScorerError(
            f"{where}: choices: asked for {count} prompts, got indexes {got[: count + 1]}; "
            "does server.scorer fit this server?"
        )
    return ordered


async def complete(
    client: WireClient,
    path: str,
    model: str,
    tokens: Sequence[int],
    *,
    max_tokens: int,
    stop: Sequence[int],
    more: Mapping[str, Any],
) -> Generated:
    """Greedy, from token ids; the answer's ids where the server returns them.

    ``more`` is what the request holds besides.

    Raises:
        ScorerError: the server does not generate.
    """
    body = {
        "model": model,
        "prompt": tokens,
        "max_tokens": max_tokens,
        "temperature": 0,
        "stop_token_ids": list(stop),
        "return_token_ids": True,
        **more,
    }
    answer = await client.post(path, body, _Completion)
    if not answer.choices:
        raise ScorerError(f"{client.base_url}{path}: choices: is empty; does the server generate?")
    choice = answer.choices[0]
    return Generated(choice.token_ids, choice.text)


T = TypeVar("T")

MISSING = Raw(b"null")
"""Stands for a field that the server leaves out or has nothing in."""


class Address(NamedTuple):
    """A server's root, and the path below it of what is OpenAI-style."""

    root: str
    api: str


def address(base_url: str) -> Address:
    """``base_url`` taken apart; it may be given with or without the ``/v1`` at its end.

    One with another path is the OpenAI-style address itself.

    Raises:
        ConfigError: it is no address of a server.
    """
    given = checked_address(base_url)
    root = given.removesuffix("/v1")
    is_bare = not urlsplit(given).path.strip("/")
    return Address(root, "/v1" if is_bare or root != given else "")


def client_of(settings: ServerSettings) -> WireClient:
    """A client whose paths go behind the server's root.

    Raises:
        ConfigError: ``server.base_url`` is no address, or the API key cannot be read.
    """
    root = address(settings.base_url).root
    return WireClient(msgspec.structs.replace(settings, base_url=root))


class RemoteScorer(ABC):
    """Scores through a ``Batcher``; each kind of server says how to ask and how to read."""

    # What else is in a server's batch, and in its cache, changes the last digits.
    noisy = True
    self_tested = True
    batch_size = 8
    reuses_prefixes: bool | None = None

    _text_fields: tuple[str, ...] = ("prompt",)
    """What the text to tokenise is called."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._settings = parse_table(table, ServerSettings, "server")
        self._client = client_of(self._settings)
        self.model = self._settings.model
        file = self._settings.tokenizer
        self._tokenizer = FileTokenizer(Path(file)) if file else None
        self._batcher = Batcher(self._ask, size=self.batch_size, slots=self._settings.concurrency)

    async def score(self, prompts: Sequence[WirePrompt]) -> list[list[RangeScore]]:
        """Totals and values; prompts that are asked for at the same time share requests."""
        wanted = [scored_part(prompt) for prompt in prompts if prompt.ranges]
        for prompt in wanted:
            refuse_images(prompt)
        asked = [self._batcher.ask(prompt) for prompt in wanted]
        try:
            answers = await asyncio.gather(*asked)
        finally:
            for future in asked:
                future.cancel()
        remaining = iter(answers)
        return to_scores([next(remaining) if it.ranges else Answer([], 0) for it in prompts])

    @abstractmethod
    async def _ask(self, prompts: Sequence[WirePrompt]) -> Sequence[Answer]:
        """One answer per prompt, from one request where the server takes lists."""

    @abstractmethod
    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Greedy, from token ids."""

    async def tokenize(self, text: str) -> list[int]:
        """By ``server.tokenizer`` where it is set, else by the server."""
        if self._tokenizer is not None:
            return await self._tokenizer.tokenize(text)
        named = dict.fromkeys(self._text_fields, text)
        body = {"model": self.model, **named, "add_special_tokens": False}
        return (await self._client.post("/tokenize", body, Tokens)).tokens

    async def detokenize(self, ids: Sequence[int]) -> str:
        """By ``server.tokenizer`` where it is set, else by the server; special tokens included."""
        if self._tokenizer is not None:
            return await self._tokenizer.detokenize(ids)
        return await detokenize(self._client, ids, {"model": self.model})

    async def _decoded(
        self, where: str, field: str, raw: Raw, kind: type[list[T]], between: re.Pattern[bytes]
    ) -> list[T] | None:
        """The long array ``raw``, which ``field`` of the answer holds; ``None`` for none."""
        if raw == MISSING:
            return None
        await self._client.pace.yield_to_loop()
        # To msgspec, the answer is ``$``, and of an array in it ``$`` is that array.
        path = f"${field}" if field.startswith("[") else f"$.{field}"
        client = self._client
        return await decode_in_pieces(where, raw, kind, between, client.quote, path, client.pace)

    async def aclose(self) -> None:
        """End what is under way and close the session."""
        await self._batcher.aclose()
        await self._client.aclose()
