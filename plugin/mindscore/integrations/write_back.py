"""write-back: a listener that notes scores where the memories live, off until it is configured."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from mindhooks import MemoryScore, Mind, Registry, Run, hookimpl
from mindscore._util.errors import format_error
from mindscore.config.settings import AbsolutePath, parse_table
from mindscore.flows.notes import Note, NoteError, NoteTarget
from mindscore.flows.recorder import context_facts
from mindscore.integrations.cognee import CogneeNotes, CogneeOptions
from mindscore.integrations.letta.notes import LettaNotes, LettaOptions
from mindscore.integrations.mem0 import Mem0Notes, Mem0Options
from mindscore.integrations.memory_file import MemoryFileNotes
from mindscore.measure.divergence import within_noise

TABLE = "plugins.settings.write-back"


class WriteBackOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[plugins.settings.write-back]``: a table for each place; one without a table is off."""

    cognee: CogneeOptions | None = None
    letta: LettaOptions | None = None
    mem0: Mem0Options | None = None
    memory_files: list[AbsolutePath] = field(default_factory=list)


class WriteBack:
    """The plugin that notes each score where its memory lives.

    ``targets`` are places that a host has opened itself, beside those of the table. A place that
    fails keeps no note from the others; of failures that are alike, one after the other, the first
    is logged.

    Raises:
        ConfigError: the table is wrong.
    """

    def __init__(self, table: Mapping[str, Any], targets: Sequence[NoteTarget] = ()) -> None:
        options = parse_table(table, WriteBackOptions, TABLE)
        self._targets = [*targets]
        if options.cognee is not None:
            self._targets.append(CogneeNotes(options.cognee))
        if options.letta is not None:
            self._targets.append(LettaNotes(options.letta))
        if options.mem0 is not None:
            self._targets.append(Mem0Notes(options.mem0))
        if options.memory_files:
            self._targets.append(MemoryFileNotes(options.memory_files))
        self._latest: dict[NoteTarget, str | None] = {}

    @hookimpl
    async def on_score(
        self, score: MemoryScore, mind: Mind, registry: Registry, run: Run | None
    ) -> None:
        """Note what a memory did; one without a response that it could change is passed over."""
        if not (self._targets and score.divergences):
            return
        facts = await context_facts(mind, registry, run)
        note = Note(
            score.key,
            facts.text(score.key) or "",
            score.score,
            all(it.signed == 0 or within_noise(it) for it in score.divergences),
            len(score.divergences),
            run.model if run is not None else (await registry.scorer()).model,
            facts.context.id,
            time.time(),
        )
        if failures := [it for target in self._targets if (it := await self._write(target, note))]:
            raise NoteError("; ".join(failures))

    async def aclose(self) -> None:
        """Close the places."""
        for target in self._targets:
            await target.aclose()

    async def _write(self, target: NoteTarget, note: Note) -> str | None:
        """Write a note, and return why that failed unless it failed so the last time."""
        before, reason = self._latest.get(target), None
        try:
            await target.write(note)
        # Libraries of others raise anything.
        except Exception as error:
            reason = format_error(error)
        self._latest[target] = reason
        return reason if reason != before else None
