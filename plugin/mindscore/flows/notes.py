"""Notes on what a memory did, for the place where it lives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from mindhooks import MindhooksError


@dataclass(frozen=True, slots=True)
class Note:
    """The effect of a memory in one run, as it is noted beside the memory.

    ``nats`` is the score, the largest divergence over ``responses`` responses; ``is_noise``: none
    of them is beyond noise. ``scored_at`` is in seconds since the epoch.
    """

    key: str
    text: str
    nats: float
    is_noise: bool
    responses: int
    model: str
    conversation: str
    scored_at: float

    @property
    def fields(self) -> dict[str, str | float | int | bool]:
        """The note as flat metadata, which every store can filter by."""
        when = datetime.fromtimestamp(self.scored_at, UTC).isoformat(timespec="seconds")
        return {
            "mindscore_nats": round(self.nats, 4),
            "mindscore_within_noise": self.is_noise,
            "mindscore_responses": self.responses,
            "mindscore_model": self.model,
            "mindscore_conversation": self.conversation,
            "mindscore_scored_at": when,
        }

    def is_of(self, text: str) -> bool:
        """Return whether ``text`` is the memory's but for white space."""
        return text.split() == self.text.split()


class NoteError(MindhooksError):
    """A note that was not written; the text says why and what to do."""


class NoteTarget(Protocol):
    """A place where memories live. It never changes a memory's text, and deletes none."""

    async def write(self, note: Note) -> None:
        """Write ``note`` beside its memory, in place of an earlier one.

        Raises:
            NoteError: there is no such memory, or it has another text by now.
        """

    async def aclose(self) -> None:
        """Close what was opened."""
