"""Hermes' own files of memories as they would be without the entries that are proposed to go."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from mindscore._util.text import count_of, one_line, printable
from mindscore.archive.advise import archive_advice
from mindscore.archive.memory_diff import MemoryDiff, memory_diff
from mindscore.config.settings import Settings
from mindscore.display.advice import UNCHANGED
from mindscore.measure.archive_advice import ArchiveAdvice
from mindscore.measure.verdicts import Verdict

FILES = ("MEMORY.md", "USER.md")
TEXT_WIDTH = 60


def prune_text(settings: Settings, folder: Path) -> str:
    """Say which entries could go, why, and how the files in ``folder`` would change.

    Raises:
        MindhooksError: the store or a file cannot be read.
    """
    advice, _ = asyncio.run(archive_advice(settings))
    if not advice.advice:
        return "No memory has been measured yet: hermes mind score."
    files = [folder / name for name in FILES]
    diffs = [memory_diff(file, advice.removable) for file in files if file.exists()]
    return "\n".join(map(printable, _lines(advice, diffs)))


def _lines(advice: ArchiveAdvice, diffs: list[MemoryDiff]) -> Iterator[str]:
    keys = {key for diff in diffs for key in diff.keys}
    going = [it for it in advice.removable if it.key in keys]
    tokens = sum(advice.tokens_a_turn(it) or 0.0 for it in going)
    judged = count_of(len(advice.advice), "memory", "memories")
    yield (
        f"By {advice.model}, on {count_of(advice.responses, 'response')} of "
        f"{count_of(advice.conversations, 'session')}: of {judged}, "
        f"{count_of(len(going), 'entry', 'entries')} could go, {tokens:,.0f} tokens a turn."
    )
    for it in going:
        text = it.evidence.version.text or it.key
        yield f"  {it.verdict}  {one_line(text, TEXT_WIDTH)}: {it.reason}"
    harmful = advice.of(Verdict.HARMFUL)
    if harmful:
        yield f"Look at {count_of(len(harmful), 'memory', 'memories')} first, which harm:"
    for it in harmful:
        text = it.evidence.version.text or it.key
        yield f"  {one_line(text, TEXT_WIDTH)}: {it.reason}"
    unsure = advice.of(Verdict.NOT_ENOUGH_EVIDENCE)
    if unsure:
        yield f"Of {count_of(len(unsure), 'memory', 'memories')} there is not enough evidence yet."
    for diff in diffs:
        yield from diff.text.splitlines()
        yield from diff.remarks
    yield f"{UNCHANGED} This is a dry run; drop entries yourself, or ask Hermes to."
