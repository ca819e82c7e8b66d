"""The conversations of a file, whatever its format, by the installed readers."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from mindhooks import Role
from mindscore._util.errors import TranscriptError, UnknownFormatError, UsageError, format_error
from mindscore._util.extensions import OWN, load_extensions
from mindscore._util.text import count_of, shortened
from mindscore.conversation.conversation import Conversation, Transcript, id_by_beginning
from mindscore.conversation.places import absence_remarks
from mindscore.readers.memories import read_memories
from mindscore.readers.native import nearly_native
from mindscore.readers.source import Source
from mindscore.recognisers import MemoryFinder

GROUP = "mindscore.readers"
NATIVE = "native"

T = TypeVar("T")

_END: Any = object()

log = logging.getLogger("mindscore")


@runtime_checkable
class Reader(Protocol):
    """A reader of one format, brought through the entry-point group ``mindscore.readers``.

    The entry point's name is the format's, for ``--format``. It names a class or function that is
    called without arguments, or the reader itself: an object, or a module with the two functions.
    """

    def detects(self, source: Source) -> bool:
        """Return true if the file is of this format, by its shape and not by its name.

        An exception counts as false, and is logged.
        """

    def read(self, source: Source) -> Iterable[Conversation]:
        """Return the file's conversations, in its order; or yield them, so that none is kept.

        A record that is not valid is left out: by ``source.read_each``, or ``source.leaving_out``.
        Each one's ``remarks`` tell an operator what the format does not record. ``Reading`` gathers
        messages and remarks, ``source.refuse`` raises errors that name the place.

        Raises:
            TranscriptError: names the file, the record's place and the reason.
        """


def load_readers() -> dict[str, Reader]:
    """Return the installed readers by name, in the order they are asked: others' before our own.

    One that cannot be loaded, or whose name is taken, is logged and left out.
    """
    own: dict[str, Reader] = {}
    others: dict[str, Reader] = {}
    for it in load_extensions(GROUP):
        error = it.error
        if error is None and not isinstance(it.loaded, Reader):
            error = "it does not have the methods detects(source) and read(source)"
        if error is not None:
            log.warning("reader %s of %s was skipped: %s", it.name, it.distribution, error)
        else:
            (own if it.distribution == OWN else others)[it.name] = it.loaded
    return {**others, **own}


def choose_reader(
    source: Source, name: str | None, readers: Mapping[str, Reader] | None = None
) -> tuple[str, Reader]:
    """Return name and reader of format ``name``, or of the first that knows the file.

    ``readers`` are the installed ones, for who reads many files.

    It is native if it is nearly so: that reader names the line that is not valid.

    Raises:
        UsageError: there is no reader of that name.
        TranscriptError: the file cannot be read, or no reader knows it.
    """
    readers = load_readers() if readers is None else readers
    if name is not None:
        if name not in readers:
            known = ", ".join(readers)
            raise UsageError(f"--format {name}: there is no such format; there are {known}")
        return name, readers[name]
    refusal: TranscriptError | None = None
    for format_, reader in readers.items():
        try:
            if reader.detects(source):
                return format_, reader
        except KeyboardInterrupt:
            raise
        except TranscriptError as error:
            # Another may know the file; else this says why it is not read.
            refusal = refusal or error
        # A reader is anybody's code.
        except BaseException as error:
            log.warning("reader %s was passed over: %s", format_, format_error(error))
    if refusal is not None:
        raise refusal
    if source.is_sqlite:
        raise UnknownFormatError(f"{source.file}: is a SQLite database of no known format")
    native = readers[NATIVE]
    if not source.content.strip() or nearly_native(source):
        return NATIVE, native
    known, why = ", ".join(sorted(readers)), ""
    if source.first is None:
        try:
            source.whole()
        except TranscriptError as error:
            why = f" ({str(error).removeprefix(f'{source.file}, ')})"
    raise UnknownFormatError(f"{source.file}: is of no known format{why}; known are: {known}")


def read_conversations(source: Source, format_: str, reader: Reader) -> Iterator[Conversation]:
    """Yield the conversations of a file that ``reader`` of ``format_`` reads, one by one.

    What was left out before one is among its remarks, and what was left out after the last is
    among those of the last.

    Raises:
        TranscriptError: the file is not valid or holds no conversation, or the reader fails.
    """

    def attempt(step: Callable[[], T]) -> T:
        try:
            return step()
        except (KeyboardInterrupt, TranscriptError):
            raise
        # A reader is anybody's code.
        except BaseException as error:
            raise TranscriptError(
                f"{source.file}: reader {format_} failed: {format_error(error)}"
            ) from error

    reading = attempt(lambda: iter(reader.read(source)))
    last: Conversation | None = None
    while (found := attempt(lambda: next(reading, _END))) is not _END:
        if not isinstance(found, Conversation):
            raise TranscriptError(f"{source.file}: reader {format_} did not return conversations")
        if last is not None:
            yield last
        last = _with_remarks(found, source.damage.take_remarks())
        if source.selected.name is not None:
            # What follows is not read only to say that something was left out there.
            yield last
            last = None
    if last is not None:
        yield _with_remarks(last, source.damage.take_remarks())
    elif source.selected.name is None:
        source.refuse_empty("holds no conversations")


def _with_remarks(conversation: Conversation, remarks: list[str]) -> Conversation:
    if not remarks:
        return conversation
    return replace(conversation, remarks=(*conversation.remarks, *remarks))


NAME_CHARACTERS = 100
"""Longest name that an error shows."""


class Conversations:
    """The conversations of a file, read one by one; ``format`` is the name of its format.

    Raises:
        UsageError: there is no format of that name.
        TranscriptError: no conversation of the file is valid; the text names place and reason.
    """

    def __init__(
        self,
        file: Path | Source,
        format_: str | None = None,
        readers: Mapping[str, Reader] | None = None,
    ) -> None:
        self._source = file if isinstance(file, Source) else Source(file)
        self.file = self._source.file
        self.format, self._reader = choose_reader(self._source, format_, readers)
        reading = self._read()
        self._first = next(reading)
        self._begun: Iterator[Conversation] | None = chain((self._first,), reading)

    def _read(self) -> Iterator[Conversation]:
        return read_conversations(self._source, self.format, self._reader)

    def __iter__(self) -> Iterator[Conversation]:
        """Yield the conversations; none is kept.

        Raises:
            TranscriptError: the file is not valid.
        """
        reading, self._begun = self._begun, None
        return self._read() if reading is None else reading

    @cached_property
    def found(self) -> tuple[Conversation, ...]:
        """All conversations."""
        return tuple(self)

    @property
    def left_out(self) -> int:
        """The records that were not valid, of what has been read."""
        return self._source.damage.records

    def chosen(self, which: str | None) -> Conversation:
        """Return the conversation of a name, or of a number from 1; ``None``: the only one.

        It reads on until no other can be meant.

        Raises:
            UsageError: no conversation matches, or several do.
        """
        listed = f"see mindscore list {self.file}"
        if which is None:
            reading = iter(self)
            only = next(reading)
            others = sum(1 for _ in reading)
            if others:
                raise UsageError(
                    f"{self.file} holds {others + 1:,} conversations: choose one with --select; "
                    f"{listed}"
                )
            return only
        selected = self._source.selected
        selected.name = which
        try:
            named, numbered = self._matching(which, selected.number)
        finally:
            selected.name = None
        if not named and numbered is not None:
            return numbered
        if len(named) != 1:
            many = f"{len(named):,}" if named else "no"
            raise UsageError(
                f"--select {shortened(which, NAME_CHARACTERS)}: {self.file} holds {many} such "
                f"conversation{'s' if named else ''}{self._without()}; {listed}"
            )
        return named[0]

    def _without(self) -> str:
        left_out = count_of(self.left_out, "record")
        return f" ({left_out} left out as not valid)" if self.left_out else ""

    def _matching(self, name: str, number: int) -> tuple[list[Conversation], Conversation | None]:
        """Return the conversations called ``name``, and the one of that number."""
        named: list[Conversation] = []
        numbered: Conversation | None = None
        for at, conversation in enumerate(self, start=1):
            if conversation.name == name:
                named.append(conversation)
                # Its name and its number both mean it.
                if at == number:
                    break
            elif at == number:
                numbered = conversation
        return named, numbered

    def transcript(
        self,
        conversation: Conversation,
        memories: Mapping[str, str] | None = None,
        *,
        anywhere: bool = False,
    ) -> Transcript:
        """Return the transcript of one conversation, with the memories that ``memories`` names too.

        ``anywhere``: those are looked for in what the user typed, too.

        Raises:
            UsageError: memories are named for a format that marks its own.
        """
        self._check(memories)
        number = 0
        if not conversation.id and conversation.name != self._first.name:
            numbers = _Numbers()
            for it in self:
                number = numbers.of(it)
                if it.name == conversation.name:
                    break
        return self._transcript(conversation, number, MemoryFinder(), memories, anywhere)

    def transcripts(
        self,
        memories: Mapping[str, str] | None = None,
        *,
        anywhere: bool = False,
        finder: MemoryFinder | None = None,
    ) -> Iterator[tuple[Conversation, Transcript]]:
        """Yield each conversation with its transcript, as ``transcript`` returns it.

        ``finder``: one that other files were read with, which has the recognisers loaded.

        Raises:
            UsageError: memories are named for a format that marks its own.
        """
        self._check(memories)
        finder, numbers = finder or MemoryFinder(), _Numbers()
        for conversation in self:
            number = numbers.of(conversation)
            yield conversation, self._transcript(conversation, number, finder, memories, anywhere)

    def _check(self, memories: Mapping[str, str] | None) -> None:
        if memories is not None and self.format == NATIVE:
            raise UsageError(
                f"--memories: {self.file} is in the native format, which marks its own"
            )

    def _transcript(
        self,
        conversation: Conversation,
        number: int,
        finder: MemoryFinder,
        memories: Mapping[str, str] | None,
        anywhere: bool,
    ) -> Transcript:
        finder.known = {**conversation.memories, **(memories or {})}
        finder.anywhere = frozenset(memories or ()) if anywhere else frozenset()
        transcript = conversation.transcript(self.file, finder)
        if not transcript.id:
            begun = id_by_beginning(transcript.messages)
            transcript = replace(transcript, id=f"{begun}-{number + 1}" if number else begun)
        remarks = absence_remarks(transcript, finder.known, "--memories-anywhere")
        return replace(transcript, remarks=(*transcript.remarks, *remarks))


class _Numbers:
    """The numbers of a file's conversations that begin alike, have no id, and go on differently.

    Records of one conversation as it grew have the same number: the responses of one begin those
    of the other.
    """

    def __init__(self) -> None:
        self._counts = Counter[str]()
        self._tips = dict[bytes, int]()
        self._known = dict[bytes, int]()

    def of(self, conversation: Conversation) -> int:
        """Return the number of the file's next conversation, from 0."""
        begun = "" if conversation.id else id_by_beginning(conversation.messages)
        prefixes = list(_prefixes(begun, conversation))
        if not prefixes:
            return 0
        whole = prefixes[-1]
        tip = next((prefix for prefix in prefixes[::-1] if prefix in self._tips), None)
        if tip is not None:
            # It goes on from a shorter record.
            number = self._tips[whole] = self._tips.pop(tip)
        elif whole in self._known:
            number = self._known[whole]
        else:
            number = self._tips[whole] = self._counts[begun]
            self._counts[begun] += 1
        for prefix in prefixes:
            self._known.setdefault(prefix, number)
        return number


def _prefixes(begun: str, conversation: Conversation) -> Iterator[bytes]:
    """Yield a hash of the responses up to each, where the conversation ``begun`` has no id."""
    digest = hashlib.sha256(begun.encode())
    for message in conversation.messages if begun else ():
        if message.role == Role.ASSISTANT:
            digest.update(hashlib.sha256(message.text.encode("utf-8", "surrogatepass")).digest())
            yield digest.digest()


def read_chosen(
    file: Path,
    format_: str | None,
    select: str | None,
    memories: Sequence[Path] = (),
    *,
    anywhere: bool = False,
) -> Transcript:
    """Read the conversation of ``file`` that ``select`` names, with the memories of other files.

    Raises:
        UsageError: there is no such conversation, or no such format.
        TranscriptError: a file cannot be read, or is not valid.
    """
    texts = read_memories(*memories, transcript=file) if memories else None
    conversations = Conversations(file, format_)
    chosen = conversations.chosen(select)
    return conversations.transcript(chosen, texts, anywhere=anywhere)
