"""The part that is left to measure of a conversation that an earlier pass has begun, or scored."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mindhooks import Context, MemoryScore, MindCommand
from mindscore.archive.pass_record import PassFingerprint, closed_memories, last_fingerprint
from mindscore.config.settings import Settings
from mindscore.measure.memories import text_hashes
from mindscore.store import KnownScore, Pass, Store
from mindscore.store.scores import latest_times


@dataclass(frozen=True, slots=True)
class Past:
    """The facts that the store has of one conversation.

    ``known`` is the record of the last pass, and ``scores`` are those of its memories, the oldest
    first. ``rows`` are those of the matrix; ``None``: the flow reads them from its own store.
    """

    known: Pass | None = None
    scores: Sequence[KnownScore] = ()
    rows: Sequence[MemoryScore] | None = None


async def read_past(
    store: Store, known: Pass | None, model: str, conversation: str, command: str, *, rows: bool
) -> Past:
    """Return what ``command`` needs of the past; ``rows``: also what a flow reads by itself.

    Raises:
        StoreError: the store cannot be read.
    """
    if command == MindCommand.SCORE:
        return Past(known, await store.known_scores(model, conversation))
    if command == MindCommand.SCORE_FULL and rows:
        return Past(known, rows=list((await store.rows(model, conversation)).values()))
    return Past(known)


@dataclass(frozen=True, slots=True)
class Remainder:
    """The part that is left to measure of one conversation.

    ``fingerprint`` is that of the pass that begins, or goes on; ``options`` are those of
    memory-scoring. ``keys``: the memories that are left, of which there may be none.
    """

    fingerprint: PassFingerprint
    keys: tuple[str, ...]
    options: dict[str, Any]


def begin(
    known: Pass | None, content: str, conditions: str, *, measure_again: bool
) -> PassFingerprint:
    """Return the fingerprint of a pass that begins now, or goes on from an unfinished one."""
    now = PassFingerprint(content, conditions, begun_at=time.time())
    last = None if measure_again else last_fingerprint(known, {conditions} - {""})
    if known is None or last is None:
        return now
    now = replace(now, count=last.count, prefix=last.prefix)
    goes_on = known.error is not None and last.content == content
    return replace(now, begun_at=last.begun_at) if goes_on else now


def remainder(
    fingerprint: PassFingerprint,
    context: Context,
    keys: Collection[str],
    command: str,
    scores: Sequence[KnownScore],
    settings: Settings,
    *,
    measure_again: bool,
) -> Remainder:
    """Return what is left, of the memories ``keys``.

    Of the matrix, rows that are stored are taken by the flow itself. Of ``score``, a memory is left
    out that was scored since the pass began, and one whose window of responses was complete when
    the conversation was scored last, and is sent as it was then.
    """
    if command != MindCommand.SCORE or measure_again:
        resume = command == MindCommand.SCORE_FULL and not measure_again
        return Remainder(fingerprint, tuple(keys), {"resume": resume})
    last = latest_times(scores, text_hashes(context))
    done = {key for key, when in last.items() if when >= fingerprint.begun_at}
    if fingerprint.is_prefix_of(context):
        window = settings.memory.response_window
        done |= last.keys() & closed_memories(context, fingerprint.count, window)
    left = tuple(key for key in keys if key not in done)
    return Remainder(fingerprint, left, {"only": list(left)})
