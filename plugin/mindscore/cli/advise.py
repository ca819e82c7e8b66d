"""``mindscore advise``: which memories to keep, and what dropping the others costs."""

from __future__ import annotations

import asyncio
import csv
import io
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mindscore._util.aio import share_one_arena
from mindscore._util.errors import TranscriptError, UsageError
from mindscore._util.files import write_files
from mindscore._util.text import count_of, harmless_json, printable
from mindscore.archive.advise import archive_advice
from mindscore.archive.evidence import ArchiveEvidence
from mindscore.cli.advise_options import AdviseOptions
from mindscore.cli.interruption import DONE, FAILED, run_until_interrupted
from mindscore.config.file import Configuration
from mindscore.display.advice import show_advice
from mindscore.display.advice_documents import COLUMNS, advice_document, advice_rows
from mindscore.display.screen import Screen, new_console, own_output, write_json
from mindscore.measure.archive_advice import ArchiveAdvice, Receipt
from mindscore.pages.environment import environment
from mindscore.report.archive_page import archive_page
from mindscore.store.store import require_regular

if TYPE_CHECKING:
    from mindscore.conversation.conversation import Transcript

NOTHING_PROPOSED = "nothing is proposed to be dropped: --verify has nothing to measure"


def run_advise(options: AdviseOptions) -> int:
    """Print the advice, write the files that were asked for, and return the exit status."""
    options.check()
    configuration = options.load()
    since = None
    if options.since is not None:
        from mindscore.archive.survey import parse_since

        since = parse_since(options.since)
    outputs = {"--csv": options.csv, "--html": options.html, "--write": options.write}
    _check_outputs(options, outputs)
    if options.html is not None:
        # Before anything is measured: it may not be installed.
        environment("mindscore.report")
    screen = Screen("reading the evidence …" if not options.verify else "loading the model …")
    with screen, own_output():
        advice, evidence = asyncio.run(archive_advice(configuration.settings, options.model, since))
        if options.verify and evidence is not None:
            if advice.proposed:
                receipt = _verify(options, configuration, advice, evidence, screen)
                advice = replace(advice, receipt=receipt, stale="")
            else:
                advice = replace(advice, remarks=(*advice.remarks, NOTHING_PROPOSED))
    written = {}
    if options.csv is not None:
        written[options.csv] = _csv(advice)
    if options.html is not None:
        written[options.html] = archive_page(advice).encode("utf-8", "replace")
    if options.write is not None:
        written[options.write] = _keys(advice, options.write)
    if written:
        _write(written)
    if options.diff:
        _show_diffs(options.diff, advice, screen)
    elif options.json:
        write_json(advice_document(advice))
    else:
        show_advice(new_console(), advice)
    if options.verify and advice.receipt is not None and not advice.receipt.is_complete:
        return FAILED
    return DONE


def _verify(
    options: AdviseOptions,
    configuration: Configuration,
    advice: ArchiveAdvice,
    evidence: ArchiveEvidence,
    screen: Screen,
) -> Receipt:
    # All that reads conversations is imported only where they are read.
    from mindscore.archive.sources import Sources
    from mindscore.archive.survey import ArchiveReader, Survey, chosen_transcripts
    from mindscore.archive.verify import verified

    share_one_arena()
    reader = ArchiveReader(
        Sources(options.paths),
        options.format,
        options.memories,
        anywhere=options.memories_anywhere,
    )
    survey = Survey(reader)
    chosen = survey.select()
    unread = list(survey.failed)

    def transcripts() -> Iterator[Transcript]:
        for _, transcript in chosen_transcripts(reader, survey.files, chosen):
            if isinstance(transcript, TranscriptError):
                if str(transcript) not in unread:
                    unread.append(str(transcript))
            else:
                yield transcript

    kept = 0

    def count() -> None:
        nonlocal kept
        kept += 1

    activity = screen.activity("verify: what is proposed, removed together")
    with activity:
        return run_until_interrupted(
            lambda: verified(
                advice,
                evidence,
                configuration.tables,
                transcripts,
                max_tokens=options.max_tokens,
                activity=activity,
                unread=unread,
                kept=count,
            ),
            lambda: ": what was measured is kept, and the same command goes on" * bool(kept),
        )


def _check_outputs(options: AdviseOptions, outputs: Mapping[str, Path | None]) -> None:
    """Refuse files that cannot be written or are read, before anything is measured."""
    read = [it for it in (*options.paths, *options.memories, *options.diff) if it.is_file()]
    for name, file in outputs.items():
        if file is None:
            continue
        require_regular(file)
        if not file.parent.is_dir():
            raise UsageError(f"{name} {file}: there is no folder {file.parent}")
        if file.exists() and any(file.samefile(other) for other in read):
            raise UsageError(f"{name} {file}: that file is read: nothing of yours is changed")


def _write(contents: Mapping[Path, bytes]) -> None:
    try:
        write_files(contents)
    except OSError as error:
        names = ", ".join(map(str, contents))
        raise UsageError(f"{names}: cannot be written: {error.strerror or error}") from None


def _csv(advice: ArchiveAdvice) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(advice_rows(advice))
    return text.getvalue().encode("utf-8", "replace")


def _keys(advice: ArchiveAdvice, file: Path) -> bytes:
    """Return the keys to drop: JSON if the file is called so, else one a line with its reason."""
    its = advice.removable
    if file.suffix.lower() == ".json":
        fields = ("key", "verdict", "reason", "merge_with")
        listed = [{name: getattr(it, name) for name in fields} for it in its]
        return msgspec.json.format(harmless_json(msgspec.json.encode(listed)), indent=1) + b"\n"
    lines = [f"{printable(it.key)}  # {it.verdict}: {printable(it.reason)}" for it in its]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _show_diffs(files: list[Path], advice: ArchiveAdvice, screen: Screen) -> None:
    """Print one unified diff of all files; what it cannot say goes to standard error."""
    from mindscore.archive.memory_diff import memory_diff

    for file in files:
        diff = memory_diff(file, advice.removable)
        sys.stdout.write(diff.text)
        for remark in diff.remarks:
            screen.complain(f"{file}: {remark}")
        screen.complain(
            f"{file}: {count_of(len(diff.keys), 'memory', 'memories')} of "
            f"{len(advice.removable):,} would go; nothing was changed"
        )
