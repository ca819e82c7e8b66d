"""What to do with each memory of an archive, and how sure that is."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

from mindscore.config.settings import AdviseSettings
from mindscore.measure.evidence import EvidenceColumns, MemoryEvidence


class Verdict(StrEnum):
    """What to do with a memory."""

    KEEP = "keep"
    DROP = "drop"
    MERGE = "merge"
    HARMFUL = "harmful"
    NOT_ENOUGH_EVIDENCE = "not enough evidence"


class Basis(StrEnum):
    """How it is known that two memories say the same, the surest first.

    Confirmed: both were removed together, and were missed. Hold: either alone supports the same
    responses, and neither is missed. Text: they read alike, and nothing was measured.
    """

    CONFIRMED = "confirmed"
    HOLD = "hold"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Another memory that says the same.

    Of the ``supported`` responses that the memory supports alone, the other does its work in
    ``shared``. By text, both are 0 and ``similarity`` is that of the words, from 0 to 1.
    """

    key: str
    basis: Basis
    shared: int = 0
    supported: int = 0
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class Advice:
    """The verdict on one memory, what it rests on, and the evidence of its earlier texts.

    ``merge_with`` is the key of the memory to keep instead. Where there is not enough evidence,
    ``more_conversations`` and ``more_responses`` say how many more would probably do, ``None``
    where more of the same would not.
    """

    key: str
    verdict: Verdict
    reason: str
    evidence: MemoryEvidence
    duplicates: tuple[Duplicate, ...] = ()
    merge_with: str | None = None
    more_conversations: int | None = None
    more_responses: int | None = None
    older: tuple[MemoryEvidence, ...] = ()


def advise(
    columns: EvidenceColumns,
    settings: AdviseSettings,
    confirmed: Iterable[Collection[str]] = (),
) -> list[Advice]:
    """Return the advice on each memory's current text, in order of first mention.

    ``confirmed`` are groups of keys that were removed together and missed: ``RedundantGroup.keys``.
    The same evidence has the same advice, in whatever order its rows come.
    """
    raise NotImplementedError
