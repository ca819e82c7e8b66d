"""KV caches of prompts that were computed, for later prompts that begin alike.

A token's keys, values and log-probability are functions of the tokens up to it, so a prompt needs
computing only from where it departs from every earlier one. Forking a cache copies nothing: the
fork holds views of the prefix, and the model concatenates what it adds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from mindscore.prompts import common_prefix


@dataclass(frozen=True, slots=True)
class Computed:
    """A sequence that ran through the model.

    ``cache`` has an entry for each token of ``ids``, but perhaps for the last one; ``logprobs`` has
    the log-probability, in nats, of the token after each row that was asked for.
    """

    ids: tuple[int, ...]
    cache: Any
    logprobs: Mapping[int, float]

    @property
    def nbytes(self) -> int:
        """What its tensors hold, in bytes."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)


class PrefixCaches:
    """The sequences used last, as many as ``limit`` bytes hold."""

    def __init__(self, config: Any, limit: int) -> None:
        self._config = config
        self._limit = limit
        self._kept: list[Computed] = []
        self._token_bytes = 0.0
        # Sliding windows and recurrent states forget: a shorter prefix cannot be had of them.
        if not all(type(layer) is DynamicLayer for layer in self._empty().layers):
            self._limit = 0

    def fork(self, tokens: Sequence[int], rows: Sequence[int], length: int) -> Computed:
        """What is known of ``tokens``: the cache of a prefix, and log-probabilities.

        The prefix ends before the first of ``rows`` whose log-probability is not known. Where the
        sequence it is taken from and one of ``length`` tokens do not both fit in the limit, that
        sequence is given up: prompts that come in descending order of where they depart from it
        still find their prefix in the one before.
        """
        source, shared, longest = None, 0, 0
        # Of equal ones the longest: more prompts may depart from it.
        for each in sorted(self._kept, key=lambda it: -len(it.ids)):
            common = common_prefix(each.ids, tokens)
            unknown = (row for row in rows if row not in each.logprobs or row + 1 >= common)
            usable = min(next(unknown, common), common, each.cache.get_seq_length())
            if usable > longest:
                source, shared, longest = each, common, usable
        if source is not None:
            self._kept.remove(source)
            self._kept.append(source)
        self._make_room(length)
        if source is None:
            return self.empty()
        # A row's log-probability is that of the token after it.
        logprobs = {row: it for row, it in source.logprobs.items() if row + 1 < shared}
        return Computed(source.ids[:longest], self.copy(source.cache, longest), logprobs)

    def empty(self) -> Computed:
        """What is known of nothing."""
        return Computed((), self._empty(), {})

    def keep(self, computed: Computed) -> None:
        """Keep a sequence for later prompts, if it fits."""
        ids = computed.ids
        self._token_bytes = computed.nbytes / len(ids)
        if computed.nbytes > self._limit:
            return
        # What begins alike and is shorter is of no more use. For the rest fork has made room.
        self._kept = [it for it in self._kept if it.ids != ids[: len(it.ids)]]
        self._kept.append(computed)

    def copy(self, cache: Any, length: int) -> Any:
        """A cache of the first ``length`` tokens of ``cache``, which stays as it is."""
        copied = self._empty()
        for own, theirs in zip(copied.layers, cache.layers, strict=True):
            own.keys = theirs.keys[..., :length, :]
            own.values = theirs.values[..., :length, :]
            own.dtype, own.device = own.keys.dtype, own.keys.device
            own.is_initialized = True
        return copied

    def clear(self) -> None:
        """Let go of them all."""
        self._kept.clear()

    def _make_room(self, length: int) -> None:
        room = self._limit - length * self._token_bytes
        while self._kept and sum(it.nbytes for it in self._kept) > room:
            del self._kept[0]

    def _empty(self) -> Any:
        return DynamicCache(config=self._config)
