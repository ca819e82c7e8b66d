"""KV caches of earlier prompts, for later prompts that begin alike.

A token's keys, values and log-probability are functions of the tokens up to it, so a prompt needs
computing only from where it departs from every earlier one. Forking a cache copies nothing: the
fork holds views of the prefix, and what the model adds stands beside it, in a piece of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from mindscore.measure.prompts import common_prefix

NAME = "mindscore_causal"

_UNSUPPORTED = ("softcap", "s_aux", "position_bias", "sliding_window")


def is_available() -> bool:
    """Return whether this torch has the kernel."""
    return hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")


def attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Any, None]:
    """Return the causal attention of the last tokens of a sequence.

    ``query`` is (batch, heads, new tokens, size). ``key`` and ``value`` are (batch, groups of
    heads, tokens, size), of the new tokens where ``key.before`` has the pieces before them, else of
    all. The result is (batch, new tokens, heads, size).

    Raises:
        NotImplementedError: the model asks for more than plain causal attention.
    """
    del module
    if attention_mask is not None or any(more.get(name) is not None for name in _UNSUPPORTED):
        raise NotImplementedError("only plain causal attention")
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    batch, heads, new, size = query.shape
    groups, cached = key.shape[1], key.shape[2] - new
    before = getattr(key, "before", [(key[:, :, :cached], value[:, :, :cached])] if cached else ())
    key_new, value_new = (
        it[:, :, cached:].repeat_interleave(heads // groups, dim=1) for it in (key, value)
    )
    output, norm = kernel(query, key_new, value_new, 0.0, True, scale=scaling)
    # Heads that share keys are stacked, so that cached keys are not copied for each.
    stacked = query.reshape(batch, groups, heads // groups * new, size)
    for keys, values in before:
        found, its_norm = kernel(stacked, keys, values, 0.0, False, scale=scaling)
        its_norm = its_norm.reshape(norm.shape)
        share = torch.sigmoid(its_norm - norm)[..., None].to(output.dtype)
        output = torch.lerp(output, found.reshape(output.shape), share)
        norm = torch.logaddexp(norm, its_norm)
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attend)


Piece = tuple[Any, Any]
"""Keys and values of some tokens, each (1, groups of heads, tokens, size)."""


class PiecesLayer(DynamicLayer):
    """One layer's keys and values in pieces; new keys have those before as ``before``.

    ``joins``: pieces are joined at once, for an attention that does not look at ``before``.
    """

    def __init__(self, joins: bool, pieces: Iterable[Piece] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._joins = joins
        self.pieces = list(pieces)

    def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> Piece:
        """Add new tokens, and return the keys and values for the attention."""
        before = self.pieces
        self.pieces = [*before, (key_states, value_states)]
        if self._joins:
            self.pieces = [self.joined()]
            return self.pieces[0]
        # The model passes the tensor on as it is: the attention finds the others by it.
        key_states.before = before
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Return the number of tokens."""
        return sum(keys.shape[-2] for keys, _ in self.pieces)

    def joined(self) -> Piece:
        """Return all keys and values in one piece."""
        keys, values = (torch.cat(list(parts), dim=-2) for parts in zip(*self.pieces, strict=True))
        return keys, values

    def first(self, length: int) -> Iterator[Piece]:
        """Yield views of the first ``length`` tokens."""
        for keys, values in self.pieces:
            if length > 0:
                yield keys[..., :length, :], values[..., :length, :]
            length -= keys.shape[-2]


@dataclass(frozen=True, slots=True)
class CachedSequence:
    """A sequence that ran through the model.

    ``cache`` has an entry for each token of ``ids``, the last one perhaps excepted; ``logprobs``
    has the log-probability, in nats, of the token after each row that was asked for.
    """

    ids: tuple[int, ...]
    cache: Any
    logprobs: Mapping[int, float]


class PrefixCaches:
    """The most recently used sequences, as many as ``limit`` bytes hold.

    ``joins``: the model's attention needs keys and values in one piece.
    """

    def __init__(self, config: Any, limit: int, joins: bool) -> None:
        self._config = config
        self._joins = joins
        self._kept: list[CachedSequence] = []
        self._token_bytes = 0.0
        layers = DynamicCache(config=config).layers
        # Sliding windows and recurrent states forget: no shorter prefix can be taken from them.
        self._is_plain = all(type(layer) is DynamicLayer for layer in layers)
        self._layers = len(layers)
        self._limit = limit if self._is_plain else 0

    def fork(self, tokens: Sequence[int], rows: Sequence[int], length: int) -> CachedSequence:
        """Return the longest usable cached prefix of ``tokens``, with its log-probabilities.

        The prefix ends before the first of ``rows`` whose log-probability is not known. The result
        will grow to ``length`` tokens: if those do not fit in the limit beside the sequence that
        the prefix is taken from, that sequence is dropped. Prompts in descending order of where
        they depart from it still find their prefix in the one before.
        """
        source, shared, longest = None, 0, 0
        # Of equal matches the longest sequence: more prompts may depart from it.
        for each in sorted(self._kept, key=lambda it: -len(it.ids)):
            common = common_prefix(each.ids, tokens)
            unknown = (row for row in rows if row not in each.logprobs or row + 1 >= common)
            usable = min(next(unknown, common), common, each.cache.get_seq_length())
            if usable > longest:
                source, shared, longest = each, common, usable
        if source is not None:
            self._kept.remove(source)
            self._kept.append(source)
        self._make_room(length - longest)
        if source is None:
            return self.empty()
        # A row's log-probability is that of the token after it.
        logprobs = {row: it for row, it in source.logprobs.items() if row + 1 < shared}
        is_kept = any(it is source for it in self._kept)
        take = self._view if is_kept else self._take_over
        cache = take(source.cache, longest)
        return CachedSequence(source.ids[:longest], cache, logprobs)

    def empty(self) -> CachedSequence:
        """Return an empty cache."""
        cache: Any = DynamicCache(config=self._config)
        if self._is_plain:
            cache = Cache(layers=[PiecesLayer(self._joins) for _ in range(self._layers)])
        return CachedSequence((), cache, {})

    def keep(self, computed: CachedSequence) -> None:
        """Keep a sequence for later prompts, if it fits."""
        if self._limit == 0:
            return
        ids, tensors = computed.ids, list(_tensors([computed]))
        self._token_bytes = sum(it.nbytes for it in tensors) / computed.cache.get_seq_length()
        # A sequence that is a prefix of this one is of no more use. For the rest fork made room.
        kept = [it for it in self._kept if it.ids != ids[: len(it.ids)]]
        if _nbytes([*kept, computed]) <= self._limit:
            self._kept = [*kept, computed]

    def to_continue(self, cache: Any) -> Any:
        """Return a copy of ``cache`` in one piece, to grow token by token."""
        if not self._is_plain:
            return cache
        whole = DynamicCache(config=self._config)
        for number, layer in enumerate(cache.layers):
            whole.update(*layer.joined(), number)
        return whole

    def clear(self) -> None:
        """Free them all."""
        self._kept.clear()

    def _make_room(self, length: int) -> None:
        room = self._limit - length * self._token_bytes
        while self._kept and _nbytes(self._kept) > room:
            del self._kept[0]

    def _view(self, cache: Any, length: int) -> Any:
        layers: list[Any] = [PiecesLayer(self._joins, it.first(length)) for it in cache.layers]
        return Cache(layers=layers)

    def _take_over(self, cache: Any, length: int) -> Any:
        """Take ownership of the first ``length`` tokens of ``cache`` and free the rest."""
        layers: list[Any] = []
        for layer in cache.layers:
            pieces = [(keys.clone(), values.clone()) for keys, values in layer.first(length)]
            layer.pieces.clear()
            layers.append(PiecesLayer(self._joins, pieces))
        return Cache(layers=layers)


def _nbytes(computed: Iterable[CachedSequence]) -> int:
    """Return the memory of their tensors, in bytes; memory that they share counts once."""
    storages = [tensor.untyped_storage() for tensor in _tensors(computed)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _tensors(computed: Iterable[CachedSequence]) -> Iterator[Any]:
    for each in computed:
        for layer in each.cache.layers:
            for piece in layer.pieces:
                yield from piece
