"""A Hugging Face causal language model in this process: blocking calls, for a worker thread."""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import partial
from typing import Any, Literal

import torch
import transformers
from transformers import AutoModelForCausalLM

from mindhooks import Generated, RangeScore, ScorerError, WirePrompt
from mindscore.scorers.local import attention, devices
from mindscore.scorers.local.chunks import Chunks, Stopped, StoppedError, longest_in_chunks
from mindscore.scorers.local.devices import Compute
from mindscore.scorers.local.forward import Forward, scored_rows, target_logprobs
from mindscore.scorers.local.knock_out import Job, KnockOut, Span, Values, jobs
from mindscore.scorers.local.kv_cache import CachedSequence, PrefixCaches, looks_at_all
from mindscore.scorers.local.model_files import ModelFiles
from mindscore.scorers.local.room import Room
from mindscore.scorers.local.weights import LocalTokenizer, naming_model, with_adapter

CHUNK_TOKENS = 1024
"""Tokens that run through the model at once (prefill chunk), where the device asks for no more.

It can be stopped between chunks."""

MAX_CACHE_FAILURES = 2
"""Prompts in a row that fail with KV caches, and succeed without, before they are given up."""

REMEMBERED_PROMPTS = 64
"""Prompts that are known again, where the repeat of one measures the noise."""

_TRIED = "The quick brown fox jumps over the lazy dog, and the lazy dog does not mind at all."
_TOLERANCE = 0.05
"""Share of the logits' mean size: a wrong attention is far off, bfloat16 by 0.02."""

_logger = logging.getLogger("mindscore")


class LocalModel:
    """The model whose ``tokenizer`` this is, loaded from the same folder to a device.

    ``cache_mb`` is what KV caches of earlier prompts may take, ``"auto"`` by what is free.
    ``adapter`` is the folder of a LoRA adapter, or empty.
    """

    def __init__(
        self,
        tokenizer: LocalTokenizer,
        compute: Compute,
        cache_mb: int | Literal["auto"],
        adapter: str = "",
    ) -> None:
        self.tokenizer = tokenizer
        self._name = tokenizer.name
        self._compute = compute
        self._model = self._load(adapter)
        config = self._model.config.get_text_config()
        self.context_length: int | None = getattr(config, "max_position_embeddings", None)
        embeddings: Any = self._model.get_input_embeddings()
        self.vocabulary: int = embeddings.num_embeddings
        self._forward = Forward(self._model)
        self._cache_mb = cache_mb
        self._cache_failures = 0
        self._asked: deque[int] = deque(maxlen=REMEMBERED_PROMPTS)
        row_bytes = self.vocabulary * self._model.dtype.itemsize
        self._longest_in_chunks = longest_in_chunks(config)
        self._chunks = Chunks(compute.chunk_tokens(CHUNK_TOKENS), row_bytes)
        self._caching = self._choose_attention()
        places = self._forward.devices
        self._room = Room(self._name, compute, places, cache_mb, self._chunks, self._caches)
        self._knock_out = KnockOut(self._model, self._forward, caches_are_right=self._caching)

    @property
    def reuses_prefixes(self) -> bool:
        """True if a prompt is computed from where it departs from an earlier one."""
        return self._caching and self._caches.keeps

    @property
    def hides_tokens(self) -> bool:
        """False if it is known that ``knock_out`` is not possible."""
        return self._knock_out.refusal is None

    def _load(self, adapter: str) -> Any:
        transformers.utils.logging.disable_progress_bar()
        compute, location = self._compute, self.tokenizer.location
        where = devices.placement(compute, ModelFiles(location).nbytes(compute.dtype))
        with naming_model(self._name):
            # Safetensors only: other weight files are pickles, which can run code.
            model: Any = AutoModelForCausalLM.from_pretrained(
                location,
                dtype=getattr(torch, compute.dtype),
                use_safetensors=True,
                trust_remote_code=False,
                **where,
            )
        if adapter:
            model = with_adapter(model, adapter)
        return model.eval()

    @torch.inference_mode()
    def _choose_attention(self) -> bool:
        """Use the fastest attention with right logits behind a cache, and return whether one has.

        Right are the logits without a cache: some models keep none, or none that can be forked.
        """
        ids = self._forward.tensor(self.tokenizer.encode(_TRIED))
        # The last third has two pieces before it.
        thirds = ids.tensor_split(3, dim=1)
        plain = self._model(input_ids=ids, use_cache=False).logits[:, -thirds[-1].shape[1] :]
        usual = self._model.config._attn_implementation
        room = devices.cache_bytes(self._cache_mb, self._forward.devices)
        # Only the usual has a mask, which may be all that tells a layer what to forget.
        is_plain = looks_at_all(self._model.config)
        faster = attention.choices(self._compute.kind, self._compute.dtype) if is_plain else ()
        for name in (*faster, usual):
            try:
                self._model.set_attn_implementation(name)
                self._caches = PrefixCaches(
                    self._model.config,
                    room,
                    joins=name == usual,
                    joins_new=self._compute.kind != devices.CPU,
                )
                cache = self._caches.empty().cache
                for part in thirds:
                    output = self._model(
                        input_ids=part, use_cache=True, **{self._forward.cache_name: cache}
                    )
            # A model may raise anything at an attention that it does not know.
            except Exception as error:
                _logger.debug("%s: attention %s: %r", self._name, name, error)
                continue
            if (output.logits - plain).abs().mean() <= _TOLERANCE * plain.abs().mean():
                return True
        self._model.set_attn_implementation(usual)
        _logger.info("%s: every prompt is computed in full: its cache cannot be used", self._name)
        return False

    @torch.inference_mode()
    def score(self, prompt: WirePrompt, stopped: Stopped) -> tuple[list[RangeScore], int]:
        """Return the scores of the prompt's ranges, and the number of tokens computed for them.

        Raises:
            StoppedError: ``stopped()`` between two chunks.
        """
        if not prompt.ranges:
            return [], 0
        self._require_fit(prompt, max(end for _, end in prompt.ranges))
        rows = scored_rows(prompt)
        work = partial(self._logprobs, prompt.tokens, rows, stopped)
        logprobs, computed = self._room.run(work, len(prompt.tokens))
        scores: dict[tuple[int, int], RangeScore] = {}
        room = len(rows)
        for start, end in dict.fromkeys(prompt.ranges):
            if stopped():
                raise StoppedError
            values = tuple(logprobs[index - 1] for index in range(start, end))
            room -= len(values)
            # Of ranges that overlap in more than the prompt's tokens, the totals alone are kept.
            scores[start, end] = RangeScore(math.fsum(values), values if room >= 0 else None)
        return [scores[span] for span in prompt.ranges], computed

    @torch.inference_mode()
    def knock_out(
        self, prompt: WirePrompt, hidden: Sequence[Sequence[Span]], stopped: Stopped
    ) -> tuple[list[list[RangeScore]], int]:
        """Return totals and values of the prompt's ranges without the tokens ``hidden`` from each.

        There is a list for each of ``hidden``. Other tokens than a response's keep the keys and
        values that they have with everything there. The second result is the number of tokens
        computed, the prompt's own included where they were not cached.

        Raises:
            ScorerError: the model cannot hide tokens; or a span is not within the prompt.
            StoppedError: ``stopped()`` between two chunks.
        """
        if not prompt.ranges:
            return [[] for _ in hidden], 0
        length = max(end for _, end in prompt.ranges)
        self._require_fit(prompt, length)
        if length > self._longest_in_chunks:
            refused = ScorerError(
                f"{self._name}: no tokens can be hidden in a prompt of {length} tokens: the model "
                f"turns positions otherwise beyond {self._longest_in_chunks:.0f}"
            )
            refused.arrived = False
            raise refused
        asked = jobs(prompt, hidden)
        tried = self.tokenizer.encode(_TRIED)
        check = partial(self._knock_out.require, tried, lambda: self._caches.empty().cache)
        self._room.run(check, len(tried))
        values: Values = {}
        work = partial(self._hide, prompt, {job for its in asked for job in its}, values, stopped)
        computed = self._room.run(work, length)
        computed += sum(end - start for (start, end), spans in values if spans)
        scores = {job: RangeScore(math.fsum(its), its) for job, its in values.items()}
        return [[scores[job] for job in its] for its in asked], computed

    def _hide(self, prompt: WirePrompt, asked: Set[Job], values: Values, stopped: Stopped) -> int:
        """Add what ``values`` lack, and return the number of the prompt's tokens computed."""
        tokens, end = prompt.tokens, max(end for _, end in prompt.ranges) - 1
        # Of the others, no log-probability with everything there is needed.
        plain = [span for span, spans in asked if not spans]
        rows = sorted({index - 1 for span in plain for index in range(*span)})
        known, computed = self._advance(tokens[: end + 1], end, rows, end, stopped, repeats=False)
        for span in plain:
            values[span, ()] = tuple(known.logprobs[index - 1] for index in range(*span))
        left, most = asked - values.keys(), self._chunks.most_rows
        for found in self._knock_out.values(tokens, known.cache.layers, left, most, stopped):
            values |= found
        return computed

    @torch.inference_mode()
    def generate(
        self, prompt: WirePrompt, max_tokens: int, stop: Sequence[int], stopped: Stopped
    ) -> Generated:
        """Continue greedily to a token of ``stop``, the model's own end, or until ``stopped()``.

        It also ends where the model's context does, with a logged warning.

        Raises:
            StoppedError: ``stopped()`` before the first token.
        """
        self._require_fit(prompt, len(prompt.tokens) + 1)
        work = partial(self._continue, prompt, max_tokens, stop, stopped)
        return self._room.run(work, len(prompt.tokens) + max_tokens)

    def _continue(
        self, prompt: WirePrompt, max_tokens: int, stop: Sequence[int], stopped: Stopped
    ) -> Generated:
        asked, room = max_tokens, (self.context_length or math.inf) - len(prompt.tokens)
        max_tokens = int(min(asked, room))
        before_last = prompt.tokens[:-1]
        cache = self._prefilled(before_last, len(prompt.tokens) + max_tokens, stopped)
        ids = self._forward.tensor(prompt.tokens)
        ends = {*stop, *_as_ids(self._model.generation_config.eos_token_id)}
        output = self._model.generate(
            ids,
            **{self._forward.cache_name: cache},
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=max_tokens,
            eos_token_id=sorted(ends) or None,
            pad_token_id=min(ends, default=0),
            stopping_criteria=[
                lambda so_far, _: torch.full((len(so_far),), stopped(), device=so_far.device)
            ],
        )
        spoken: list[int] = output[0, ids.shape[1] :].tolist()
        if len(spoken) == max_tokens < asked and spoken[-1] not in ends:
            _logger.warning(
                "%s: a text was cut off after %d of %d tokens: the model reads at most %d",
                *(self._name, max_tokens, asked, self.context_length),
            )
        text = self.tokenizer.decode([token for token in spoken if token not in ends])
        return Generated(tuple(spoken), text)

    def _logprobs(
        self, tokens: Sequence[int], rows: Sequence[int], stopped: Stopped
    ) -> tuple[Mapping[int, float], int]:
        """Return the log-probability of the token after each row, and the tokens computed."""
        end, failure = rows[-1] + 1, None
        is_whole = end > self._longest_in_chunks
        if self._caching and not is_whole:
            try:
                found, computed = self._advance(tokens[: end + 1], end, rows, end, stopped)
                self._cache_failures = 0
                return found.logprobs, computed
            except Exception as error:
                if _is_final(error):
                    raise
                failure = self._set_aside(error)
        logprobs, computed = dict[int, float](), 0
        size = self._chunks.most_rows
        for first in range(0, len(rows), size):
            wanted = rows[first : first + size]
            last = end if is_whole else wanted[-1] + 1
            logprobs.update(self._run(None, tokens, 0, last, wanted, stopped))
            computed += last
        self._blame_caches(failure)
        return logprobs, computed

    def _prefilled(self, tokens: Sequence[int], length: int, stopped: Stopped) -> Any:
        """Return the cache of ``tokens``, to grow to ``length``, or ``None`` without caches."""
        if self._caching and tokens and length <= self._longest_in_chunks:
            try:
                found, _ = self._advance(tokens, len(tokens), (), length, stopped)
                return self._caches.to_continue(found.cache)
            except Exception as error:
                if _is_final(error):
                    raise
                self._set_aside(error)
        return None

    def _set_aside(self, error: Exception) -> Exception:
        """Free the caches after ``error``, which models raise at a cache that is not their own."""
        _logger.info("%s: a prompt is computed without KV caches: %r", self._name, error)
        self._caches.clear()
        return error

    def _blame_caches(self, failure: Exception | None) -> None:
        """Do without caches if prompts fail with them, time after time, and succeed without."""
        if failure is not None:
            self._cache_failures += 1
        if self._cache_failures >= MAX_CACHE_FAILURES and self._caching:
            _logger.info("%s: no KV caches from here on: %r", self._name, failure)
            self._caching = False

    def _advance(
        self,
        tokens: Sequence[int],
        end: int,
        rows: Sequence[int],
        length: int,
        stopped: Stopped,
        *,
        repeats: bool = True,
    ) -> tuple[CachedSequence, int]:
        """Compute ``tokens`` up to ``end``, from the end of the cached prefix, in chunks.

        Return the sequence, which will grow to ``length`` tokens, and the tokens computed.
        ``repeats``: what is asked again is computed again, to measure the noise.
        """
        known = self._caches.fork(tokens, rows, length)
        start, size = len(known.ids), self._chunks.tokens
        is_noisy = repeats and bool(rows) and not self._compute.is_exact
        # Kept or not.
        asked = hash((tuple(tokens), tuple(rows))) if is_noisy else None
        if start >= end and asked is None:
            return known, 0
        if start >= end or asked in self._asked:
            # Other chunks are rounded otherwise.
            known, start, size = self._caches.empty(), 0, max(1, min(size, end) // 3)
        logprobs = dict(known.logprobs)
        for first, last in self._chunks.split(start, end, rows, size):
            wanted = rows[bisect_left(rows, first) : bisect_left(rows, last)]
            logprobs.update(self._run(known.cache, tokens, first, last, wanted, stopped))
            if known.cache.get_seq_length() != last:
                raise RuntimeError("the model does not keep its state in the cache it is given")
        computed = CachedSequence(tuple(tokens), known.cache, logprobs)
        self._caches.keep(computed)
        if asked is not None:
            self._asked.append(asked)
        return computed, end - start

    def _run(
        self,
        cache: Any,
        tokens: Sequence[int],
        start: int,
        end: int,
        rows: Sequence[int],
        stopped: Stopped,
    ) -> Iterable[tuple[int, float]]:
        """Run ``tokens`` from ``start`` to ``end``; return each row with its log-probability."""
        if stopped():
            raise StoppedError
        logits = self._forward.logits(tokens[start:end], [row - start for row in rows], cache)
        return zip(rows, target_logprobs(logits, [tokens[row + 1] for row in rows]), strict=True)

    def _require_fit(self, prompt: WirePrompt, length: int) -> None:
        if prompt.images:
            raise ScorerError("the local scorer takes no images: use a server that does")
        if length > (self.context_length or math.inf):
            too_long = ScorerError(
                f"{self._name}: the prompt needs {length} tokens, the model reads at most "
                f"{self.context_length}: score with a model of a longer context"
            )
            too_long.arrived = False
            raise too_long
        extremes = (min(prompt.tokens), max(prompt.tokens)) if prompt.tokens else ()
        for token in extremes:
            if not 0 <= token < self.vocabulary:
                raise ScorerError(
                    f"{self._name}: token id {token} is outside the model's vocabulary of "
                    f"{self.vocabulary}: were token_ids made with another tokenizer?"
                )


def _is_final(error: Exception) -> bool:
    """Return whether to compute without caches would not help against ``error``."""
    return isinstance(error, StoppedError) or devices.is_out_of_memory(error)


def _as_ids(end: int | Sequence[int] | None) -> Sequence[int]:
    if end is None:
        return ()
    return (end,) if isinstance(end, int) else end
