"""A base class for the scorers of model servers."""

from __future__ import annotations

import asyncio
import hashlib
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct

from mindhooks import (
    BaseScorer,
    Generated,
    ScorerError,
    ScoreResult,
    ScorerUnavailable,
    WirePrompt,
    in_thread,
)
from mindscore.config.settings import ServerSettings, TokenId, parse_table
from mindscore.conversation.template import NoTemplateError, RenderChat
from mindscore.http.addresses import checked_address
from mindscore.http.answers import MISSING, decode_in_pieces
from mindscore.http.client import SMALL_ANSWER_BYTES, WireClient
from mindscore.scorers.remote.answers import (
    BETWEEN_IDS,
    BYTES_BY_NEW_TOKEN,
    BYTES_BY_TEXT,
    BYTES_BY_TOKEN,
    Answer,
    require_ids,
    room_for,
)
from mindscore.scorers.tokenizer import tokenizer_of

T = TypeVar("T")


class _Tokens(Struct):
    tokens: Raw = MISSING


class _Text(Struct):
    """The text of ids: ``prompt``, as vLLM and mindscore call it, or ``text``, as SGLang does."""

    prompt: str | None = None
    text: str | None = None


class _Continuation(Struct):
    text: str
    token_ids: Raw = MISSING


class _TextCompletion(Struct):
    choices: list[_Continuation]


class Address(NamedTuple):
    """A server's root, and the path below it of its OpenAI-style API."""

    root: str
    api: str


def address(base_url: str) -> Address:
    """Return ``base_url`` taken apart; it may be given with or without ``/v1`` at its end.

    One with another path is the OpenAI-style address itself.

    Raises:
        ConfigError: it is not the address of a server.
    """
    given = checked_address(base_url)
    root = given.removesuffix("/v1")
    is_bare = not urlsplit(given).path.strip("/")
    return Address(root, "/v1" if is_bare or root != given else "")


def client_of(settings: ServerSettings, *secrets: str) -> WireClient:
    """Return a client whose paths go behind the server's root; it never shows ``secrets``.

    Raises:
        ConfigError: ``server.base_url`` is no address, or the API key cannot be read.
    """
    root = address(settings.base_url).root
    return WireClient(msgspec.structs.replace(settings, base_url=root), *secrets)


class _ServedModel(Struct):
    """The facts that a server tells of its weights; only mindscore has a fingerprint."""

    id: str
    root: str | None = None
    parent: str | None = None
    revision: str | None = None
    fingerprint: str | None = None


class _ServedModels(Struct):
    data: list[_ServedModel]


class RemoteScorer(BaseScorer):
    """A scorer that asks a server, one prompt a request, ``server.concurrency`` at once."""

    # A server's last digits depend on the other requests in its batch, and on its cache.
    noisy = True
    self_tested = True
    # A stock server expands an image's placeholder, and so moves positions.
    takes_images = False

    _text_fields: tuple[str, ...] = ("prompt",)
    """Names under which ``/tokenize`` is sent its text."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._settings = parse_table(table, ServerSettings, "server")
        self._client = self._make_client(self._settings)
        self.model = self._settings.model
        self._facts: tuple[_ServedModel | None] | None = None
        self._tokenizer = tokenizer_of(self._settings.tokenizer)

    async def fingerprint(self) -> str | None:
        """Return a hash of the server's address and of what it tells of its model.

        ``None``: the server swaps adapters, and does not tell which it has.
        """
        if self._facts is None:
            self._facts = (await self._served(),)
        [said] = self._facts
        if self.swaps_adapters and (said is None or said.fingerprint is None):
            return None
        facts = (type(self).__name__, self._settings.base_url, self.model, said)
        return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()

    async def _served(self) -> _ServedModel | None:
        """Return the server's entry for the model, or ``None`` where it lists none."""
        listed = await self._listed()
        named = [it for it in listed if it.id == self.model or len(listed) == 1]
        return named[0] if named else None

    async def served_models(self) -> tuple[str, ...]:
        """Return the names of the models that the server lists, none where it lists none."""
        return tuple(it.id for it in await self._listed())

    async def _listed(self) -> list[_ServedModel]:
        try:
            return (await self._client.get(self._models_path(), _ServedModels)).data
        except ScorerUnavailable:
            raise
        except ScorerError:
            return []

    def _models_path(self) -> str:
        return address(self._settings.base_url).api + "/models"

    def _make_client(self, settings: ServerSettings) -> WireClient:
        return client_of(settings)

    async def score(self, prompts: Sequence[WirePrompt]) -> ScoreResult:
        """Return totals and, where the server gives them, values; without ranges, ask nothing."""
        tasks = [asyncio.create_task(self._ask(it)) for it in prompts if it.ranges]
        try:
            answers = iter(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        found = [next(answers) if prompt.ranges else Answer([], 0) for prompt in prompts]
        computed = [it.computed for it in found if it.computed is not None]
        total = sum(computed) if len(computed) == len(found) else None
        return ScoreResult([it.scores for it in found], total)

    async def _post(self, path: str, body: Mapping[str, Any], answer: type[T], room: int) -> T:
        """Post ``body``; no answer of over ``room`` bytes is read."""
        return await self._client.post(path, body, answer, max_bytes=room)

    @abstractmethod
    async def _ask(self, prompt: WirePrompt) -> Answer:
        """Return the server's answer for ``prompt``, which has ranges."""

    async def tokenize(self, text: str) -> list[int]:
        """Return ids by ``server.tokenizer`` where it is set, else by the server.

        Raises:
            ScorerError: neither can; the text says what to do.
        """
        if self._tokenizer is not None:
            return await self._tokenizer.tokenize(text)
        try:
            return await self._tokenize(text)
        except ScorerUnavailable:
            raise
        except ScorerError as error:
            raise ScorerError(
                f"{error}; a server need not tokenise: set server.tokenizer to the model's "
                "tokenizer.json, or give token_ids in the transcript"
            ) from error

    async def _tokenize(self, text: str, add_special_tokens: bool = False) -> list[int]:
        named = dict.fromkeys(self._text_fields, text)
        length = len(text.encode("utf-8", "surrogatepass"))
        return await self._token_ids({**named, "add_special_tokens": add_special_tokens}, length)

    async def _token_ids(self, body: Mapping[str, Any], length: int) -> list[int]:
        """Return the ids that ``/tokenize`` has for ``body``, whose texts have ``length`` bytes.

        Raises:
            ScorerError: it has none.
        """
        sent = {"model": self.model, **body}
        room = SMALL_ANSWER_BYTES + BYTES_BY_TEXT * length
        answer = await self._client.post("/tokenize", sent, _Tokens, max_bytes=room)
        where = f"{self._client.base_url}/tokenize"
        ids = await self._decoded(where, "tokens", answer.tokens, list[TokenId], BETWEEN_IDS, room)
        if ids is None:
            raise ScorerError(f"{where}: tokens: is missing; does server.scorer fit this server?")
        return ids

    @property
    def bos(self) -> tuple[int, ...]:  # type: ignore[override]
        """The ids that ``server.tokenizer`` puts before every text."""
        return () if self._tokenizer is None else self._tokenizer.bos

    @property
    def render_chat(self) -> RenderChat | None:  # type: ignore[override]
        """Renders messages by the model's own chat template."""
        return self._render_texts

    async def _render_texts(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Return the text of ``messages``, whose contents are texts.

        Raises:
            ScorerError: they have images as parts. A server may fail at an image's marker without
                the image: vLLM before 0.20 ends.
        """
        if not all(isinstance(it["content"], str) for it in messages):
            raise ScorerError("a server is sent no marker of an image that is left out")
        return await self._render_chat(messages, add_generation_prompt, tools)

    async def _render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Return the text of ``messages`` by the template beside ``server.tokenizer``.

        Raises:
            NoTemplateError: there is none.
            ScorerError: it refuses the messages.
        """
        template = self._tokenizer.template if self._tokenizer is not None else None
        if template is None:
            raise NoTemplateError(
                "the model's chat template is not known; set server.tokenizer to the folder of its "
                "tokenizer.json and chat_template.jinja or tokenizer_config.json"
            )
        return await in_thread(template.render, messages, add_generation_prompt, tools)

    async def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, special tokens included.

        Raises:
            ScorerError: there is no ``server.tokenizer``, and the server cannot do it.
        """
        if self._tokenizer is not None:
            return await self._tokenizer.detokenize(ids)
        body = {"model": self.model, "tokens": ids, "skip_special_tokens": False}
        room = SMALL_ANSWER_BYTES + BYTES_BY_TOKEN * len(ids)
        answer = await self._client.post("/detokenize", body, _Text, max_bytes=room)
        text = answer.text if answer.prompt is None else answer.prompt
        if text is None:
            raise ScorerError(
                f"{self._client.base_url}/detokenize: prompt: is missing: set server.tokenizer to "
                "the model's tokenizer.json"
            )
        return text

    async def _complete(
        self,
        path: str,
        prompt: WirePrompt,
        max_tokens: int,
        stop: Sequence[int],
        more: Mapping[str, Any],
    ) -> Generated:
        """Continue ``prompt`` greedily by an OpenAI-style ``path``; ``more`` joins the body.

        Raises:
            ScorerError: the server does not generate.
        """
        body = {
            "model": self.model,
            "prompt": prompt.tokens,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stop_token_ids": list(stop),
            "return_token_ids": True,
            **more,
        }
        room = room_for(prompt) + BYTES_BY_NEW_TOKEN * max_tokens
        answer = await self._post(path, body, _TextCompletion, room)
        if not answer.choices:
            raise ScorerError(
                f"{self._client.base_url}{path}: choices: is empty; does the server generate?"
            )
        choice = answer.choices[0]
        where, field = f"{self._client.base_url}{path}", "choices[0].token_ids"
        return await self._generated(where, field, choice.token_ids, choice.text, max_tokens)

    async def _generated(
        self, where: str, field: str, raw: Raw, text: str, max_tokens: int
    ) -> Generated:
        """Return a text that was generated, with its ids: the answer's ``field``, ``raw``."""
        ids = await self._decoded(where, field, raw, list[TokenId], BETWEEN_IDS, max_tokens)
        require_ids(f"{where}: {field}", ids, text)
        return Generated(None if ids is None else tuple(ids), text)

    async def _decoded(
        self,
        where: str,
        field: str,
        raw: Raw,
        kind: type[list[T]],
        between: re.Pattern[bytes],
        expected: int,
    ) -> list[T] | None:
        """Return the long array ``raw``, the answer's ``field``; ``None`` for none."""
        if raw == MISSING:
            return None
        await self._client.pace.yield_to_loop()
        client = self._client
        # In msgspec's paths ``$`` is the answer; of an array that is decoded alone, the array.
        return await decode_in_pieces(
            where, raw, kind, between, client.quote, f"$.{field}", client.pace, expected
        )

    async def aclose(self) -> None:
        """Close the session; requests under way fail."""
        await self._client.aclose()
