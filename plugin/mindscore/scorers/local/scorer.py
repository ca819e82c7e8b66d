"""The ``local`` scorer: a language model in this process, beside the event loop."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from mindhooks import (
    BaseScorer,
    Generated,
    KnockOut,
    ScorerError,
    ScoreResult,
    WirePrompt,
    in_thread,
)
from mindscore.config.settings import ServerSettings, parse_table
from mindscore.scorers.local.devices import CPU, Compute, choose
from mindscore.scorers.local.model_files import ModelFiles
from mindscore.scorers.local.weights import (
    LocalTokenizer,
    Stamp,
    adapter_folder,
    content_hash,
    locate,
    present,
    stamps,
)

if TYPE_CHECKING:
    from mindscore.scorers.local.model import LocalModel


T = TypeVar("T")


class LocalScorer(BaseScorer):
    """A scorer that computes one prompt at a time, in a worker thread.

    It loads its model on first use.
    """

    takes_images = False

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._settings = parse_table(table, ServerSettings, "server")
        self.model = self._settings.model
        self.adapter = self._settings.adapter or None
        self._model_files: ModelFiles | None = None
        self._loaded: LocalModel | None = None
        self._tokenizer: LocalTokenizer | None = None
        self._stamps: tuple[Stamp, ...] | None = None
        self._fingerprint: str | None = None
        self._loading = asyncio.Lock()
        self._turn = asyncio.Lock()

    @property
    def noisy(self) -> bool:  # type: ignore[override]
        """True if rounding may make a difference."""
        return self._compute is None or not self._compute.is_exact

    @property
    def reuses_prefixes(self) -> bool:  # type: ignore[override]
        """True if the model's layers keep prefixes, as far as it is known yet."""
        if self._loaded is not None:
            return self._loaded.reuses_prefixes
        files = self._files() if self._settings.cache_mb != 0 else None
        return self._settings.cache_mb != 0 and (files is None or files.keeps_prefixes)

    @property
    def device(self) -> str:  # type: ignore[override]
        """The device and the number format."""
        return str(self._compute or self._settings.device)

    @property
    def _compute(self) -> Compute | None:
        """The device and format, as far as it is known yet; ``None`` if it isn't there."""
        with suppress(ScorerError, ImportError):
            return choose(self._settings.device, self._settings.dtype, self._files)
        return None

    def _files(self) -> ModelFiles | None:
        """Return the model's files, if they are on this machine yet."""
        if self._model_files is None and (location := present(self.model)) is not None:
            self._model_files = ModelFiles(location)
        return self._model_files

    @property
    def adapter_folder(self) -> Path | None:
        """Return the folder of the adapter that the model has, or will be loaded with."""
        return adapter_folder(self.adapter) if self.adapter else None

    @property
    def vocabulary(self) -> int | None:
        """Return the number of token ids of the model, or ``None`` if it is not loaded."""
        return self._loaded.vocabulary if self._loaded else None

    async def score(self, prompts: Sequence[WirePrompt]) -> ScoreResult:
        """Return totals and values; logits are computed for the responses' rows only.

        When cancelled, it ends after the chunk of tokens that is being computed.
        """
        answers, computed = [], 0
        # One turn for all prompts of a call: calls are answered in order.
        async with self._turn:
            loaded = await self._load()
            for prompt in prompts:
                ranges, tokens = await _stoppable(loaded.score, prompt)
                answers.append(ranges)
                computed += tokens
        return ScoreResult(answers, computed)

    @property
    def knock_out(self) -> KnockOut | None:  # type: ignore[override]
        """``None`` if no tokens can be hidden from the model, as far as it is known yet."""
        if self._loaded is not None:
            return self._hide if self._loaded.hides_tokens else None
        files = self._files()
        return self._hide if files is None or files.keeps_prefixes else None

    async def _hide(
        self, prompt: WirePrompt, hidden: Sequence[Sequence[tuple[int, int]]]
    ) -> ScoreResult:
        """Return totals; when cancelled, end after the pass that is being computed."""
        async with self._turn:
            loaded = await self._load()
            return ScoreResult(*await _stoppable(loaded.knock_out, prompt, hidden))

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Continue greedily; when cancelled, end at the next token."""
        async with self._turn:
            loaded = await self._load()
            return await _stoppable(loaded.generate, prompt, max_tokens, stop)

    async def tokenize(self, text: str) -> list[int]:
        """Return the ids of ``text`` by the model's own tokenizer."""
        return await in_thread((await self._load_tokenizer()).encode, text)

    async def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, special tokens included."""
        return await in_thread((await self._load_tokenizer()).decode, ids)

    async def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Return the text of ``messages`` by the model's own chat template.

        Raises:
            ScorerError: the model has no template, or that refuses the messages.
        """
        tokenizer = await self._load_tokenizer()
        # Of few messages it takes less time than to change threads.
        return tokenizer.template.render(messages, add_generation_prompt, tools)

    @property
    def bos(self) -> tuple[int, ...]:  # type: ignore[override]
        """The id that the model's tokenizer puts before every text, once it is loaded."""
        return self._tokenizer.bos if self._tokenizer else ()

    async def fingerprint(self) -> str:
        """Return a hash of the model's and the adapter's files, and of how they are computed with.

        The model need not be loaded for it.

        Raises:
            ScorerError: a file cannot be read, or has been replaced since the model was loaded.
        """
        async with self._loading:
            if self._fingerprint is not None:
                return self._fingerprint
            found, read = await in_thread(_fingerprint, self._settings)
            if self._loaded is not None and read != self._stamps:
                raise self._replaced()
            self._fingerprint, self._stamps = found, read
            return found

    async def adopt(self, adapter: Path | None) -> None:
        """Load the model with ``adapter``, a folder in PEFT's format, or without any.

        It waits for its turn behind the calls under way; later calls wait for it. For a moment,
        both models are in memory.

        Raises:
            ScorerError: the adapter cannot be used; the model is as it was.
        """
        settings = msgspec.structs.replace(self._settings, adapter=str(adapter or ""))
        async with self._turn, self._loading:
            found = await in_thread(_stamps, settings)
            self._loaded = await in_thread(_load, settings, self._tokenizer)
            self._stamps, self._fingerprint = found, None
            self._settings, self.adapter = settings, settings.adapter or None

    async def aclose(self) -> None:
        """Free the model's memory."""
        async with self._turn:
            self._loaded = None

    async def _load(self) -> LocalModel:
        async with self._loading:
            if self._loaded is None:
                found = await in_thread(_stamps, self._settings)
                if self._fingerprint is not None and found != self._stamps:
                    self._fingerprint = None
                    raise self._replaced()
                started = time.monotonic()
                try:
                    self._loaded = await in_thread(_load, self._settings, self._tokenizer)
                except ScorerError as error:
                    error.arrived = False
                    raise
                self._stamps, self._tokenizer = found, self._loaded.tokenizer
                self.context_length = self._loaded.context_length
                self.loading_s = time.monotonic() - started
            return self._loaded

    async def _load_tokenizer(self) -> LocalTokenizer:
        """Return the tokenizer, without loading the weights for it."""
        async with self._loading:
            if self._tokenizer is None:
                self._tokenizer = await in_thread(_load_tokenizer, self._settings)
            return self._tokenizer

    def _replaced(self) -> ScorerError:
        return ScorerError(
            f"server.model: the files of {self.model!r}, or of its adapter, were replaced while "
            "the model was in use: start again"
        )


async def _stoppable(work: Callable[..., T], *arguments: Any) -> T:
    """Run ``work`` in a thread; its last argument is a function that says when to stop."""
    stopped = threading.Event()
    working = asyncio.create_task(in_thread(work, *arguments, stopped.is_set))
    try:
        return await asyncio.shield(working)
    finally:
        stopped.set()
        await asyncio.wait({working})
        # Retrieved, so that asyncio does not log it: nobody waits for it any more.
        working.exception()


@contextmanager
def _explaining() -> Iterator[None]:
    """Say which packages to install, and which of a model's files cannot be read."""
    try:
        yield
    except ImportError as error:
        raise ScorerError(
            f"the local scorer needs torch and transformers ({error}); "
            "install them with: pip install 'mindscore[local]'"
        ) from error
    except OSError as error:
        raise ScorerError(f"server.model: a file cannot be read: {error}") from error


def _load(settings: ServerSettings, tokenizer: LocalTokenizer | None) -> LocalModel:
    with _explaining():
        from mindscore.scorers.local.model import LocalModel

        tokenizer = tokenizer or _load_tokenizer(settings)
        adapter = str(adapter_folder(settings.adapter)) if settings.adapter else ""
        compute = _choose(settings, tokenizer.location)
        return LocalModel(tokenizer, compute, settings.cache_mb, adapter)


def _choose(settings: ServerSettings, location: str) -> Compute:
    return choose(settings.device, settings.dtype, lambda: ModelFiles(location))


def _load_tokenizer(settings: ServerSettings) -> LocalTokenizer:
    with _explaining():
        return LocalTokenizer(settings.model, locate(settings.model))


def _stamps(settings: ServerSettings) -> tuple[Stamp, ...]:
    with _explaining():
        adapters = [adapter_folder(settings.adapter)] if settings.adapter else []
        return stamps([Path(locate(settings.model)), *(it for it in adapters if it.is_dir())])


def _fingerprint(settings: ServerSettings) -> tuple[str, tuple[Stamp, ...]]:
    with _explaining():
        found = _stamps(settings)
        versions = [importlib.metadata.version(name) for name in ("torch", "transformers")]
        compute = _choose(settings, locate(settings.model))
        # An accelerator's kernels add up in another order; so do those of another product.
        format_ = compute.dtype if compute.kind == CPU else str(compute)
        facts = ("local", content_hash(found), bool(settings.adapter), format_, versions)
        return hashlib.sha256(msgspec.json.encode(facts)).hexdigest(), found
