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
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from mindscore.measure.prompts import common_prefix

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
        self._shared = len(self.pieces)

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

    def join_new(self) -> None:
        """Join the pieces that are this layer's own: an accelerator is faster with few."""
        if len(self.pieces) > self._shared + 1:
            own = PiecesLayer(self._joins, self.pieces[self._shared :])
            self.pieces = [*self.pieces[: self._shared], own.joined()]

    def first(self, length: int) -> Iterator[Piece]:
        """Yield views of the first ``length`` tokens."""
        for keys, values in self.pieces:
            if length > 0:
                yield keys[..., :length, :], values[..., :length, :]
            length -= keys.shape[-2]


def looks_at_all(config: Any) -> bool:
    """Return whether each layer of a model looks at all tokens.

    Sliding windows and recurrent states forget: no shorter prefix can be taken from them.
    """
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)


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

    ``joins``: the model's attention needs keys and values in one piece. ``joins_new``: those of a
    sequence that no other has are joined before it is kept.
    """

    def __init__(self, config: Any, limit: int, *, joins: bool, joins_new: bool = False) -> None:
        self._config = config
        self._joins = joins
        self._joins_new = joins_new
        self._kept: list[CachedSequence] = []
        self._token_bytes = 0.0
        self._is_plain = looks_at_all(config)
        self._layers = len(DynamicCache(config=config).layers)
        self._limit = limit if self._is_plain else 0

    @property
    def keeps(self) -> bool:
        """True if any sequence is kept."""
        return self._limit > 0

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
        for layer in computed.cache.layers if self._joins_new else ():
            layer.join_new()
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

    def clear(self, limit: int | None = None) -> bool:
        """Free them all, and return whether there were any; from here on, keep ``limit`` bytes."""
        had = bool(self._kept)
        self._kept.clear()
        if limit is not None:
            self._limit = min(self._limit, limit)
        return had

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
    each = {(it.device, it.data_ptr()): it.nbytes() for it in storages}
    return sum(each.values())


def _tensors(computed: Iterable[CachedSequence]) -> Iterator[Any]:
    for each in computed:
        for layer in each.cache.layers:
            for piece in layer.pieces:
                yield from piece
