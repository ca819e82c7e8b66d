"""Survey an archive: list its conversations without keeping them, and choose those to score."""

from __future__ import annotations

import hashlib
import heapq
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

from mindscore._util.errors import TranscriptError, UnknownFormatError, UsageError
from mindscore._util.files import STANDARD_INPUT
from mindscore._util.text import count_of
from mindscore.archive.pass_record import LINK_BYTES, response_chain, transcript_digest
from mindscore.archive.sources import ArchiveFile, Sources
from mindscore.conversation.conversation import BEGINS, Transcript
from mindscore.readers.conversations import NATIVE, Conversations, load_readers
from mindscore.readers.memories import read_memories
from mindscore.readers.source import Source
from mindscore.recognisers import MemoryFinder

NS_PER_S = 1e9
_AGE = re.compile(r"(\d{1,6})([hdw])")
_AGE_HOURS = {"h": 1, "d": 24, "w": 168}


def parse_since(text: str, now: float | None = None) -> float:
    """Return the moment, in seconds since the epoch, that ``--since`` names.

    An age, such as ``12h``, ``30d`` or ``2w``, or a date or time in ISO 8601, in UTC if it has no
    offset.

    Raises:
        UsageError: it is neither.
    """
    if age := _AGE.fullmatch(text.strip()):
        hours = int(age[1]) * _AGE_HOURS[age[2]]
        return (time.time() if now is None else now) - timedelta(hours=hours).total_seconds()
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, ValueError):
        raise UsageError(
            f"--since {text}: expected an age, such as 12h, 30d or 2w, or a date, such as "
            "2026-03-01"
        ) from None


@dataclass(frozen=True, slots=True)
class Found:
    """A conversation of an archive as the survey met it; its messages are not kept.

    ``file`` and ``number``, from 0, say where it is. ``ended_at`` is the time of its last message,
    in seconds since the epoch, or of its file, if ``by_file``.
    """

    file: int
    number: int
    id: str
    digest: bytes
    chain: bytes
    messages: int
    tokens: int
    memories: int
    ended_at: float
    by_file: bool

    @property
    def responses(self) -> int:
        """The number of its responses."""
        return len(self.chain) // LINK_BYTES

    @property
    def state(self) -> tuple[int, int, float]:
        """A number that is larger for a later state of the same conversation."""
        return self.responses, self.messages, self.ended_at


class ArchiveReader:
    """Reads the conversations of an archive, file by file.

    ``memories`` are files that name memories printed in the messages; files in the native format
    mark their own. ``only``: the memories that are asked for, if not all.
    ``given``: standard input, if it has been read.
    """

    def __init__(
        self,
        sources: Sources,
        format_: str | None = None,
        memories: Sequence[Path] = (),
        *,
        anywhere: bool = False,
        only: Collection[str] = (),
        given: Source | None = None,
    ) -> None:
        self.sources = sources
        self._only = frozenset(only)
        self._format = format_
        self._anywhere = anywhere
        self._texts = read_memories(*memories) if memories else None
        # It can be read once only.
        self._input = given or Source(STANDARD_INPUT)
        self._readers, self._finder = load_readers(), MemoryFinder()

    def transcripts(
        self, file: ArchiveFile, left_out: Callable[[int], None] = lambda _: None
    ) -> Iterator[Transcript]:
        """Yield the conversations of one file, one by one.

        ``left_out`` is called at the end with the number of records that were not valid.

        Raises:
            UnknownFormatError: it is of no known format.
            TranscriptError: it cannot be read, or holds no valid conversation.
        """
        source = self._input if file.path == STANDARD_INPUT else file.path
        conversations = Conversations(source, self._format, self._readers)
        texts = None if conversations.format == NATIVE else self._texts
        found = conversations.transcripts(texts, anywhere=self._anywhere, finder=self._finder)
        for _, transcript in found:
            yield transcript
        left_out(conversations.left_out)

    def keys(self, transcript: Transcript) -> tuple[str, ...]:
        """Return the memories of a conversation that are asked for."""
        keys = transcript.keys()
        return tuple(it for it in keys if not self._only or it in self._only)


class Survey:
    """The conversations that an archive holds, each once, in the order of its files.

    ``progress`` is called with the number of files and of conversations so far.

    Raises:
        TranscriptError: a file that the user named cannot be read, or is of no known format.
    """

    def __init__(
        self,
        reader: ArchiveReader,
        progress: Callable[[int, int], None] = lambda _files, _conversations: None,
    ) -> None:
        self.files: list[ArchiveFile] = []
        self.failed: list[str] = []
        """Why files of a folder, and folders in it, could not be read."""
        self.left_out: Counter[str] = Counter()
        """Conversations that are left out, by the reason."""
        self.remarks: dict[str, None] = {}
        self._by_id: dict[str, list[Found]] = {}
        self._reader = reader
        self._numbered = 0
        reader.sources.check()
        for file in reader.sources.named:
            # Before the others: whatever is wrong with what the user named is said at once.
            next(reader.transcripts(file), None)
        self.records_left_out = 0
        """Records that were not valid."""
        for file in reader.sources:
            self._add(file)
            progress(len(self.files), len(self._by_id))
        self.failed += reader.sources.passed_over.unreadable

    def _add(self, file: ArchiveFile) -> None:
        self.files.append(file)
        number = len(self.files) - 1
        try:
            for at, transcript in enumerate(self._reader.transcripts(file, self._leave_out)):
                keys = self._reader.keys(transcript)
                self._admit(_found(file.path, number, at, transcript, len(keys)))
        except UnknownFormatError:
            if file.is_named:
                raise
            self._reader.sources.passed_over.unknown += 1
        except TranscriptError as error:
            if file.is_named:
                raise
            self.failed.append(str(error))

    def _leave_out(self, records: int) -> None:
        self.records_left_out += records

    def _admit(self, found: Found) -> None:
        """Take a conversation in, unless it, or a later state of it, is there already."""
        kin = self._by_id.setdefault(found.id, [])
        for at, known in enumerate(kin):
            if known.digest == found.digest:
                self.left_out["found twice"] += 1
                return
            if found.chain.startswith(known.chain) or known.chain.startswith(found.chain):
                self.left_out["an earlier state of another"] += 1
                if found.state > known.state:
                    kin[at] = replace(found, id=known.id)
                return
        if kin:
            found = replace(found, id=f"{found.id}-{len(kin) + 1}")
            self._numbered += not found.id.startswith(BEGINS)
        kin.append(found)

    @property
    def found(self) -> Iterator[Found]:
        """The conversations, in the order of their files."""
        every = (it for kin in self._by_id.values() for it in kin)
        return iter(sorted(every, key=lambda it: (it.file, it.number)))

    def select(
        self, since: float | None = None, sample: int | None = None, seed: int = 0
    ) -> list[Found]:
        """Return the conversations to score; the others are counted in ``left_out``.

        Those that ended at ``since`` or later, and have a memory and a response. Of them a
        ``sample``: with the same ``seed``, the same conversations of whatever files.
        """
        chosen, by_file = [], 0
        for it in self.found:
            if since is not None and it.ended_at < since:
                self.left_out["before --since"] += 1
            elif not it.memories:
                self.left_out["without memories"] += 1
            elif not it.responses:
                self.left_out["without responses"] += 1
            else:
                chosen.append(it)
                by_file += it.by_file
        if since is not None and by_file:
            self.remarks[
                f"{count_of(by_file, 'conversation')} without times: --since goes by their files'"
            ] = None
        if self._numbered:
            self.remarks[
                f"{count_of(self._numbered, 'conversation')} with the id of another: numbered"
            ] = None
        if sample is None or sample >= len(chosen):
            return chosen
        self.left_out["not in the sample"] += len(chosen) - sample
        kept = heapq.nsmallest(sample, chosen, key=lambda it: _lot(seed, it.id))
        return sorted(kept, key=lambda it: (it.file, it.number))


def _found(path: Path, file: int, number: int, transcript: Transcript, memories: int) -> Found:
    times = [it.timestamp_ns for it in transcript.messages if it.timestamp_ns is not None]
    ended_at = max(times) / NS_PER_S if times else _modified(path)
    return Found(
        file=file,
        number=number,
        id=transcript.id,
        digest=transcript_digest(transcript),
        chain=response_chain(transcript),
        messages=len(transcript.messages),
        tokens=sum(len(it.text) for it in transcript.messages) // 4,
        memories=memories,
        ended_at=ended_at,
        by_file=not times,
    )


def _modified(path: Path) -> float:
    try:
        return time.time() if path == STANDARD_INPUT else path.stat().st_mtime
    except OSError:
        return time.time()


def _lot(seed: int, id_: str) -> bytes:
    """Return what decides whether a conversation is in the sample: it alone, not its place."""
    drawn = f"{seed} {id_}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(drawn, digest_size=16).digest()


def chosen_transcripts(
    reader: ArchiveReader, files: Sequence[ArchiveFile], chosen: Iterable[Found]
) -> Iterator[tuple[Found, Transcript | TranscriptError]]:
    """Read the ``chosen`` conversations again, in order; each has the id that the survey gave it.

    In place of one that can be read no more is the reason.
    """
    for file, found in groupby(chosen, key=lambda it: it.file):
        wanted = {it.number: it for it in found}
        refusal = TranscriptError(f"{files[file].path}: the conversation is not in it any more")
        try:
            for number, transcript in enumerate(reader.transcripts(files[file])):
                if it := wanted.pop(number, None):
                    yield it, replace(transcript, id=it.id)
                if not wanted:
                    break
        except TranscriptError as error:
            refusal = error
        for it in wanted.values():
            yield it, refusal
