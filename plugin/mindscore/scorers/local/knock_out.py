"""Responses whose tokens do not see some of the tokens before them.

The rest of the prompt is as it was: each other token keeps the keys and values that it has with
everything there, so they are computed once. Only a response's own rows are, once for each set of
hidden spans, many of them in one pass. The rows of one response stand before the same keys, so they
are a batch of that one response to the attention; to the rest of the model they are one sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from transformers import AttentionInterface, Cache

from mindhooks import ScorerError, WirePrompt
from mindscore._util.text import one_line
from mindscore.scorers.local.attention import (
    KERNELS,
    Kernel,
    attend_pieces,
    by_definition,
    require_plain,
)
from mindscore.scorers.local.chunks import Stopped, StoppedError
from mindscore.scorers.local.devices import is_out_of_memory
from mindscore.scorers.local.forward import Forward, target_logprobs
from mindscore.scorers.local.kv_cache import Piece, PiecesLayer, looks_at_all

Span = tuple[int, int]
Spans = tuple[Span, ...]
Job = tuple[Span, Spans]
"""A response, and the spans that are hidden from it, as ``merged`` returns them."""
Values = dict[Job, tuple[float, ...]]
"""The log-probabilities of the tokens of each response, in nats."""

_ATTENTION = "mindscore_knock_out"

_TOLERANCE = 1e-3
_HALF_TOLERANCE = 0.05
"""Share of the logits' mean size by which they may differ in the check of a model."""

_HIDDEN = -3e4
"""What is added to the scores of hidden keys: finite in any format, and far below any score."""

MASK_CELLS = 2**24
"""Numbers in the masks of one pass, all of its responses together."""


def jobs(prompt: WirePrompt, hidden: Iterable[Sequence[Span]]) -> list[list[Job]]:
    """Return the job of each range of ``prompt``, for each of ``hidden``.

    Nothing is hidden in it where that makes no difference.

    Raises:
        ScorerError: a span is not within the prompt.
    """
    found = []
    for spans in hidden:
        for start, end in spans:
            if not 0 <= start <= end <= len(prompt.tokens):
                raise ScorerError(
                    f"({start}, {end}) is not a span in a prompt of {len(prompt.tokens)} tokens"
                )
        # The last row is of the token before the last: no other row sees it.
        ends = [end - 2 if start < end else 0 for start, end in prompt.ranges]
        its = zip(prompt.ranges, ends, strict=True)
        found.append([(span, merged(spans, end)) for span, end in its])
    return found


def merged(spans: Iterable[Span], end: int) -> Spans:
    """Return the tokens of ``spans`` before ``end`` as spans that do not touch, ascending."""
    found: list[Span] = []
    for start, last in sorted(spans):
        last = min(last, end)
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], last)
        elif start < last:
            found.append((start, last))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Copies:
    """Rows of one response, from ``first`` to ``last``, once for each of ``hidden``.

    All its rows are those from ``begin`` to ``end``; those before ``first`` have run before, with
    the same hidden. Each of ``hidden`` is as ``merged`` returns it.
    """

    begin: int
    first: int
    last: int
    end: int
    hidden: tuple[Spans, ...]

    def rows(self) -> Iterator[int]:
        """Yield the rows that run, copy by copy."""
        for _ in self.hidden:
            yield from range(self.first, self.last)

    def cuts(self) -> Iterator[tuple[int, int, Any]]:
        """Yield the spans before ``first`` that are seen, with what is added to their scores.

        It is (copies, tokens), or ``None`` for what every copy sees.
        """
        hidden = [merged(spans, self.first) for spans in self.hidden]
        if len(set(hidden)) == 1:
            # What none sees is left out.
            start = 0
            for first, last in (*hidden[0], (self.first, self.first)):
                if start < first:
                    yield start, first, None
                start = last
            return
        low = min(spans[0][0] for spans in hidden if spans)
        high = max(spans[-1][1] for spans in hidden if spans)
        bias = torch.zeros(len(hidden), high - low)
        for copy, spans in enumerate(hidden):
            for start, last in spans:
                bias[copy, start - low : last - low] = _HIDDEN
        for start, last, its in ((0, low, None), (low, high, bias), (high, self.first, None)):
            if start < last:
                yield start, last, its

    def own_bias(self) -> Any:
        """Return what is added to the scores among the rows, or ``None`` if they are just causal.

        It is (copies, 1, rows, rows). A token that is hidden still sees itself.
        """
        count = self.last - self.first
        if not any(spans and spans[-1][1] > self.first for spans in self.hidden):
            return None
        bias = torch.full((count, count), _HIDDEN).triu(1).repeat(len(self.hidden), 1, 1, 1)
        for copy, spans in enumerate(self.hidden):
            for start, last in spans:
                bias[copy, :, :, max(0, start - self.first) : max(0, last - self.first)] = _HIDDEN
        bias.diagonal(dim1=2, dim2=3).zero_()
        return bias


def chunked(jobs: Iterable[Job], most: int) -> Iterator[tuple[Copies, ...]]:
    """Yield copies that run in one pass, of ``most`` rows and ``MASK_CELLS`` at most.

    A response with more rows runs in several passes, alone.
    """
    chunk: list[Copies] = []
    room, cells = most, MASK_CELLS
    for (start, end), its in groupby(sorted(jobs), key=lambda job: job[0]):
        hidden = tuple(spans for _, spans in its)
        begin, last = start - 1, end - 1
        if last - begin > most:
            for spans in hidden:
                for first in range(begin, last, most):
                    yield (Copies(begin, first, min(first + most, last), last, (spans,)),)
            continue
        while hidden:
            fitting = min(room // (last - begin), cells // last)
            # One copy has no mask but among its rows.
            if fitting or not chunk:
                taken, hidden = hidden[: max(1, fitting)], hidden[max(1, fitting) :]
                chunk.append(Copies(begin, begin, last, last, taken))
                room -= len(taken) * (last - begin)
                cells -= len(taken) * last
            else:
                yield tuple(chunk)
                chunk, room, cells = [], most, MASK_CELLS
    if chunk:
        yield tuple(chunk)


# -- the model's layers and their attention -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Block:
    """Copies as the attention sees them.

    ``cuts`` are the number of a piece, the tokens of it that are seen, and what is added to their
    scores, (copies, 1, 1, tokens); ``own_bias`` is as ``Copies`` has it.
    """

    copies: int
    rows: int
    cuts: Sequence[tuple[int, slice, Any]]
    own_bias: Any

    def pieces(self, pieces: Sequence[Piece]) -> Iterator[tuple[Any, Any, Any]]:
        """Yield what is seen of the keys and values before the rows."""
        for number, tokens, bias in self.cuts:
            keys, values = pieces[number]
            its = None if bias is None else bias.to(keys.device)
            yield keys[..., tokens, :], values[..., tokens, :], its

    def unpacked(self, packed: Any) -> Any:
        """Return (1, heads, copies x rows, size) as (copies, heads, rows, size)."""
        return packed.unflatten(2, (self.copies, self.rows))[0].transpose(0, 1)


class _Layer(PiecesLayer):
    """One layer's keys and values before the rows that run, and those of the rows."""

    blocks: tuple[Kernel, Sequence[_Block]]

    def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> Piece:
        """Keep the rows' keys and values, and hand them on with those before them."""
        key_states.blocks, key_states.before = self.blocks, self.pieces
        self.pieces = [*self.pieces, (key_states, value_states)]
        return key_states, value_states


def attend_blocks(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Any, None]:
    """Return the attention of each of ``key.blocks`` to what it sees, side by side.

    ``query``, ``key`` and ``value`` are (1, heads or groups of heads, new tokens, size), and the
    result (1, new tokens, heads, size).

    Raises:
        NotImplementedError: the model asks for more than plain causal attention.
    """
    del module
    require_plain(attention_mask, more)
    kernel, blocks = key.blocks
    counts = [block.copies * block.rows for block in blocks]
    found = []
    packed = (it.split(counts, 2) for it in (query, key, value))
    for block, *parts in zip(blocks, *packed, strict=True):
        asks, keys, values = (block.unpacked(it) for it in parts)
        bias = None if block.own_bias is None else block.own_bias.to(query.device)
        seen = block.pieces(key.before)
        its = attend_pieces(kernel, asks, keys, values, seen, scaling, bias)
        found.append(its.transpose(1, 2).flatten(0, 1))
    return torch.cat(found)[None], None


AttentionInterface.register(_ATTENTION, attend_blocks)


# -- passes through the model ---------------------------------------------------------------------


class KnockOut:
    """The log-probabilities of responses that do not see some tokens, by one model.

    ``refusal`` says why the model cannot give them, as far as it is known yet.
    """

    def __init__(self, model: Any, forward: Forward, *, caches_are_right: bool) -> None:
        self._model = model
        self._forward = forward
        self._is_checked = False
        self.refusal: str | None = None
        if not looks_at_all(model.config):
            self.refusal = "not each of its layers looks at all tokens"
        elif not caches_are_right:
            self.refusal = "its KV cache cannot be used"
        elif not forward.takes_positions:
            self.refusal = "it cannot be told the positions of tokens"

    def require(self, tokens: Sequence[int], empty: Callable[[], Any]) -> None:
        """Compute some ``tokens`` both ways, at first use; ``empty()`` returns an empty cache.

        Raises:
            ScorerError: the model cannot hide tokens, or the results differ.
        """
        try:
            if self.refusal is None and not self._is_checked:
                self._check(tokens, empty())
                self._is_checked = True
        except Exception as error:
            if is_out_of_memory(error):
                raise
            # A model may raise anything at an attention that it does not know.
            self.refusal = f"its attention cannot be replaced: {one_line(repr(error), 200)}"
        if self.refusal is not None:
            refused = ScorerError(
                f"no tokens can be hidden from this model's responses ({self.refusal}): remove "
                "memories from the prompt instead"
            )
            refused.arrived = False
            raise refused

    def _check(self, tokens: Sequence[int], cache: Any) -> None:
        """Compare rows from which nothing, and all before them, is hidden with plain passes."""
        rows = len(tokens) // 3
        chunk = [Copies(it, it, it + rows, it + rows, ((), ((0, it),))) for it in (rows, 2 * rows)]
        whole = self._forward.logits(tokens, range(len(tokens)), None)
        expected = []
        for copies in chunk:
            first, last = copies.first, copies.last
            positions = self._forward.tensor(range(first, last))
            alone = self._forward.logits(
                tokens[first:last], range(rows), None, position_ids=positions
            )
            expected += [whole[first:last], alone]
        self._forward.logits(tokens, (), cache)
        found = self.logits(tokens, _layers(cache.layers, chunk), chunk).split(rows)
        is_exact = self._model.dtype in (torch.float32, torch.float64)
        tolerance = _TOLERANCE if is_exact else _HALF_TOLERANCE
        for what, its, right in zip(("nothing", "everything") * 2, found, expected, strict=True):
            if not (its - right).abs().mean() <= tolerance * right.abs().mean():
                self.refusal = f"with {what} hidden, its values are not the right ones"
                return

    def values(
        self,
        tokens: Sequence[int],
        prompt: Sequence[PiecesLayer],
        jobs: Iterable[Job],
        most: int,
        stopped: Stopped,
    ) -> Iterator[Values]:
        """Yield the values of the tokens of each response in nats, pass by pass.

        ``prompt`` has the keys and values of ``tokens``. A pass has ``most`` rows at most.

        Raises:
            StoppedError: ``stopped()`` between two passes.
        """
        layers: list[_Layer] = []
        values: list[float] = []
        for chunk in chunked(jobs, most):
            if stopped():
                raise StoppedError
            if chunk[0].first == chunk[0].begin:
                layers, values = _layers(prompt, chunk), []
            targets = [tokens[row + 1] for copies in chunk for row in copies.rows()]
            values += target_logprobs(self.logits(tokens, layers, chunk), targets)
            found: Values = {}
            at = 0
            for copies in chunk:
                length = copies.end - copies.begin
                for hidden in copies.hidden if copies.last == copies.end else ():
                    span = copies.begin + 1, copies.end + 1
                    found[span, hidden] = tuple(values[at : at + length])
                    at += length
            yield found

    def logits(
        self, tokens: Sequence[int], layers: Sequence[_Layer], chunk: Sequence[Copies]
    ) -> Any:
        """Return the logits of the rows of ``chunk``, (rows, vocabulary), in one pass."""
        usual = self._model.config._attn_implementation
        kernel = KERNELS.get(usual, by_definition)
        lengths = [keys.shape[-2] for keys, _ in layers[0].pieces]
        blocks = [_block(copies, lengths, self._model.dtype) for copies in chunk]
        for layer in layers:
            layer.blocks = kernel, blocks
        rows = [row for copies in chunk for row in copies.rows()]
        try:
            self._model.set_attn_implementation(_ATTENTION)
            return self._forward.logits(
                [tokens[row] for row in rows],
                range(len(rows)),
                Cache(layers=list(layers)),
                position_ids=self._forward.tensor(rows),
            )
        finally:
            self._model.set_attn_implementation(usual)


def _layers(prompt: Iterable[PiecesLayer], chunk: Sequence[Copies]) -> list[_Layer]:
    length = max(copies.begin for copies in chunk)
    return [_Layer(False, layer.first(length)) for layer in prompt]


def _block(copies: Copies, lengths: Sequence[int], dtype: Any) -> _Block:
    cuts = []
    for start, last, bias in copies.cuts():
        begin = 0
        for number, length in enumerate(lengths):
            first, until = max(start, begin), min(last, begin + length)
            if first < until:
                its = None
                if bias is not None:
                    its = _aligned(bias[:, None, None, first - start : until - start].to(dtype))
                cuts.append((number, slice(first - begin, until - begin), its))
            begin += length
    own_bias = copies.own_bias()
    if own_bias is not None:
        own_bias = _aligned(own_bias.to(dtype))
    return _Block(len(copies.hidden), copies.last - copies.first, cuts, own_bias)


def _aligned(bias: Any) -> Any:
    """Return ``bias`` with each row at an address that is as round as CUDA's kernels need it."""
    width = bias.shape[-1]
    return torch.nn.functional.pad(bias, (0, -width % 16))[..., :width]
