"""The evidence that a store has of one model, as the columns that advice is made of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mindscore._util.errors import UsageError
from mindscore.measure.archive_advice import ResponsePlace
from mindscore.measure.evidence import (
    Cells,
    EvidenceColumns,
    Flags,
    Floats,
    Integers,
    MemoryVersion,
    judged_cells,
)
from mindscore.store import (
    ConversationFacts,
    EvidenceArrays,
    EvidenceKind,
    MemoryText,
    Mode,
    Store,
    as_arrays,
)

COLUMNS = (
    "conversation",
    "key",
    "text_hash",
    "node_id",
    "entry_idx",
    "signed",
    "hold",
    "noise",
    "responded_at",
    "scored_at",
)
"""The columns of the store's evidence that are read."""


@dataclass(frozen=True, slots=True, eq=False)
class ArchiveEvidence:
    """The evidence of one model in one mode, and what its numbers stand for.

    ``when`` has a time for each row of ``columns``: the response's own, or that of the score where
    it is not known. ``kinds`` counts all cells in the store, also those of other models and modes.
    Of a full one, cells that a screen has estimated are among the rows where nothing was measured.
    ``unnamed`` rows name no conversation and are left out; ``early`` ones are before ``since``.
    """

    model: str
    mode: Literal["full", "incremental"]
    kinds: Sequence[EvidenceKind]
    columns: EvidenceColumns
    cells: Cells
    when: Floats
    scored_at: Floats
    unnamed: int
    early: int
    _arrays: EvidenceArrays
    _rows: Integers
    _facts: dict[str, ConversationFacts]
    _in_file: Counter[str]

    def places(self, responses: Collection[int]) -> dict[int, ResponsePlace]:
        """Return the responses of these numbers in the columns."""
        wanted = np.array(sorted(responses), np.int64)
        rows = np.flatnonzero(np.isin(self.columns.response, wanted))
        numbers, first = np.unique(self.columns.response[rows], return_index=True)
        at = self._rows[rows[first]].tolist()
        return {number: self._place(row) for number, row in zip(numbers.tolist(), at, strict=True)}

    def _place(self, row: int) -> ResponsePlace:
        names, codes, values = self._arrays.names, self._arrays.codes, self._arrays.values
        conversation = names["conversation"][codes["conversation"][row]]
        facts, when = self._facts.get(conversation), float(values["responded_at"][row])
        return ResponsePlace(
            conversation=conversation,
            title=facts.title if facts else "",
            source=facts.source if facts else "",
            node_id=names["node_id"][codes["node_id"][row]],
            entry_idx=int(values["entry_idx"][row]),
            responded_at=None if math.isnan(when) else when,
            shares_file=bool(facts and self._in_file[facts.source] > 1),
        )

    def limits(self) -> dict[tuple[str, str], float]:
        """Return the noise limit of each response, in nats, by conversation and node id.

        A response of which it is not known is not among them.
        """
        limits = np.zeros(len(self.cells.response_ids))
        # What is measured is not as wrong as estimates may be.
        is_unknown = self.cells.is_assumed | self.cells.is_estimate
        np.maximum.at(limits, self.cells.response, np.where(is_unknown, 0.0, self.cells.limit))
        known = dict(zip(self.cells.response_ids.tolist(), limits.tolist(), strict=True))
        return {
            (it.conversation, it.node_id): known[number]
            for number, it in self.places(known).items()
            if known[number]
        }

    @property
    def cell_times(self) -> Floats:
        """The time of each judged cell: as ``when`` for the columns."""
        return self.when[self.cells.rows]


async def read_evidence(
    store: Store, model: str | None, since: float | None
) -> ArchiveEvidence | None:
    """Return the evidence of ``model``, or of the one that has measured the most; ``None``: none.

    Full evidence is read if there is any, else incremental. ``since``: only of responses that were
    given then or later, or scored then where their own time is not known; seconds since the epoch.

    Raises:
        UsageError: there is none of ``model``.
        StoreError: the store cannot be read.
    """
    kinds = await store.evidence_kinds()
    chosen = _chosen(kinds, model)
    if chosen is None:
        return None
    model, mode = chosen
    modes: list[Mode] = [mode]
    if mode == "full" and any((it.model, it.mode) == (model, "estimate") for it in kinds):
        modes.append("estimate")
    columns_read = (*COLUMNS, *(("mode",) if len(modes) > 1 else ()))
    arrays = await as_arrays(store.evidence(model, mode=modes, columns=columns_read))
    texts = {(it.key, it.text_hash): it for it in await store.memory_texts()}
    facts = {it.conversation: it for it in await store.conversations()}
    if not len(arrays):
        return None
    values, codes = arrays.values, arrays.codes
    own = values["responded_at"]
    when = np.where(np.isfinite(own), own, values["scored_at"])
    is_named = _is_named(arrays)
    is_late = when >= (-math.inf if since is None else since)
    is_estimate = _is_estimate(arrays)
    is_used = ~(is_estimate & _is_measured_too(arrays))
    rows = np.flatnonzero(is_named & is_late & is_used)
    conversation = codes["conversation"][rows].astype(np.int64)
    node_ids = max(1, len(arrays.names["node_id"]))
    # A node's id is its conversation's own: another may have the same.
    _, response = np.unique(conversation * node_ids + codes["node_id"][rows], return_inverse=True)
    signed = values["signed"][rows]
    versions, memory = _versions(arrays, rows, texts, signed, values["scored_at"][rows])
    columns = EvidenceColumns(
        versions=versions,
        memory=memory,
        conversation=conversation,
        response=response.astype(np.int64),
        signed=signed,
        hold=values["hold"][rows],
        noise=values["noise"][rows],
        time=own[rows],
        estimated=is_estimate[rows],
    )
    return ArchiveEvidence(
        model=model,
        mode=mode,
        kinds=kinds,
        columns=columns,
        cells=judged_cells(columns),
        when=when[rows],
        scored_at=values["scored_at"][rows],
        unnamed=int((~is_named & is_used).sum()),
        early=int((is_named & ~is_late & is_used).sum()),
        _arrays=arrays,
        _rows=rows,
        _facts=facts,
        _in_file=Counter(it.source for it in facts.values()),
    )


def _chosen(
    kinds: Sequence[EvidenceKind], model: str | None
) -> tuple[str, Literal["full", "incremental"]] | None:
    """Return the model and the mode of the evidence to read: full rather than incremental."""
    known = sorted({it.model for it in kinds})
    if model is not None and model not in known:
        listed = f"; there is some of {', '.join(known)}" if known else ""
        raise UsageError(f"no evidence of model {model!r} is kept{listed}")
    if model is None:
        totals = {name: sum(it.cells for it in kinds if it.model == name) for name in known}
        model = max(known, key=lambda name: totals[name], default=None)
    if model is None:
        return None
    is_full = any(it.model == model and it.mode != "incremental" for it in kinds)
    return model, "full" if is_full else "incremental"


def _is_estimate(arrays: EvidenceArrays) -> Flags:
    """Return the rows that a screen has estimated."""
    if "mode" not in arrays.codes:
        return np.zeros(len(arrays), bool)
    is_one = np.array([name == "estimate" for name in arrays.names["mode"]], bool)
    found: Flags = is_one[arrays.codes["mode"]]
    return found


def _is_measured_too(arrays: EvidenceArrays) -> Flags:
    """Return the rows that another one follows about the same memory, text and response.

    They are in order of these and then of their modes: it is the measured one of an estimate's.
    """
    names = ("conversation", "key", "text_hash", "node_id")
    found = np.zeros(len(arrays), bool)
    found[:-1] = np.all([(it := arrays.codes[name])[1:] == it[:-1] for name in names], axis=0)
    return found


def _is_named(arrays: EvidenceArrays) -> Flags:
    names = arrays.names["conversation"]
    named = np.array([bool(name) for name in names], bool)
    is_named: Flags = named[arrays.codes["conversation"]]
    return is_named


def _versions(
    arrays: EvidenceArrays,
    rows: Integers,
    texts: dict[tuple[str, str], MemoryText],
    signed: Floats,
    scored_at: Floats,
) -> tuple[list[MemoryVersion], Integers]:
    """Return the texts of the memories, and which of them each row is about."""
    keys, hashes = arrays.names["key"], arrays.names["text_hash"]
    pairs = arrays.codes["key"][rows].astype(np.int64) * len(hashes)
    pairs += arrays.codes["text_hash"][rows]
    pairs, memory = np.unique(pairs, return_inverse=True)
    contexts = np.bincount(memory, np.isfinite(signed) & (signed != 0), len(pairs))
    last = np.full(len(pairs), -np.inf)
    np.maximum.at(last, memory, scored_at)
    versions = []
    for at, pair in enumerate(pairs.tolist()):
        key, text_hash = keys[pair // len(hashes)], hashes[pair % len(hashes)]
        known: Any = texts.get((key, text_hash))
        versions.append(
            MemoryVersion(
                key=key,
                text_hash=text_hash,
                tokens=known.tokens if known else None,
                contexts=int(contexts[at]),
                last_seen=known.last_seen if known else float(last[at]),
                text=known.text if known else None,
            )
        )
    return versions, memory.astype(np.int64)
