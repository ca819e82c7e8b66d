"""The conversations of a file, whatever its format, by the installed readers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from mindscore._util.errors import TranscriptError, UsageError, format_error
from mindscore._util.extensions import OWN, load_extensions
from mindscore._util.text import shortened
from mindscore.conversation.conversation import Conversation, Transcript, id_by_beginning
from mindscore.conversation.places import absence_remarks
from mindscore.readers.memories import read_memories
from mindscore.readers.source import Source
from mindscore.recognisers import MemoryFinder

GROUP = "mindscore.readers"
NATIVE = "native"

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
        """Return the file's conversations, in its order.

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


def choose_reader(source: Source, name: str | None) -> tuple[str, Reader]:
    """Return name and reader of format ``name``, or of the first that knows the file, or native.

    Raises:
        UsageError: there is no reader of that name.
        TranscriptError: the file cannot be read, or is a database that no reader knows.
    """
    readers = load_readers()
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
        raise TranscriptError(f"{source.file}: is a SQLite database of no known format")
    return NATIVE, readers[NATIVE]


def read_conversations(source: Source, format_: str, reader: Reader) -> tuple[Conversation, ...]:
    """Return the conversations of a file that ``reader`` of ``format_`` reads.

    Raises:
        TranscriptError: the file is not valid or holds no conversation, or the reader fails.
    """
    try:
        found = tuple(reader.read(source))
    except (KeyboardInterrupt, TranscriptError):
        raise
    # A reader is anybody's code.
    except BaseException as error:
        raise TranscriptError(
            f"{source.file}: reader {format_} failed: {format_error(error)}"
        ) from error
    if not all(isinstance(it, Conversation) for it in found):
        raise TranscriptError(f"{source.file}: reader {format_} did not return conversations")
    if not found:
        raise TranscriptError(f"{source.file}: holds no conversations")
    return found


NAME_CHARACTERS = 100
"""Longest name that an error shows."""
NUMBER_DIGITS = 10
"""Digits that no number of conversations has."""


class Conversations:
    """The conversations of a file; ``format`` is the name of its format.

    Raises:
        UsageError: there is no format of that name.
        TranscriptError: the file is not valid; the text names the place and the reason.
    """

    def __init__(self, file: Path, format_: str | None = None) -> None:
        source = Source(file)
        self.file = file
        self.format, reader = choose_reader(source, format_)
        self.found = read_conversations(source, self.format, reader)

    def chosen(self, which: str | None) -> Conversation:
        """Return the conversation of a name, or of a number from 1; ``None``: the only one.

        Raises:
            UsageError: no conversation matches, or several do.
        """
        listed = f"see mindscore list {self.file}"
        if which is None:
            if len(self.found) > 1:
                raise UsageError(
                    f"{self.file} holds {len(self.found):,} conversations: choose one with "
                    f"--select; {listed}"
                )
            return self.found[0]
        named = [it for it in self.found if it.name == which]
        number = int(which) if which.isdecimal() and len(which) < NUMBER_DIGITS else 0
        if not named and 0 < number <= len(self.found):
            return self.found[number - 1]
        if len(named) != 1:
            many = "no" if not named else f"{len(named):,}"
            raise UsageError(
                f"--select {shortened(which, NAME_CHARACTERS)}: {self.file} holds {many} such "
                f"conversation{'s' if named else ''}; {listed}"
            )
        return named[0]

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
        return next(self._transcripts((conversation,), memories, anywhere))

    def transcripts(
        self, memories: Mapping[str, str] | None = None, *, anywhere: bool = False
    ) -> Iterator[tuple[Conversation, Transcript]]:
        """Yield each conversation with its transcript, as ``transcript`` returns it.

        Raises:
            UsageError: memories are named for a format that marks its own.
        """
        yield from zip(self.found, self._transcripts(self.found, memories, anywhere), strict=True)

    def _transcripts(
        self,
        conversations: tuple[Conversation, ...],
        memories: Mapping[str, str] | None,
        anywhere: bool,
    ) -> Iterator[Transcript]:
        if memories is not None and self.format == NATIVE:
            raise UsageError(
                f"--memories: {self.file} is in the native format, which marks its own"
            )
        finder = MemoryFinder()
        for conversation in conversations:
            finder.known = {**conversation.memories, **(memories or {})}
            finder.anywhere = frozenset(memories or ()) if anywhere else frozenset()
            transcript = conversation.transcript(self.file, finder)
            if not transcript.id:
                transcript = replace(transcript, id=id_by_beginning(transcript.messages))
            remarks = absence_remarks(transcript, finder.known, "--memories-anywhere")
            yield replace(transcript, remarks=(*transcript.remarks, *remarks))


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
    conversations = Conversations(file, format_)
    texts = read_memories(*memories) if memories else None
    chosen = conversations.chosen(select)
    return conversations.transcript(chosen, texts, anywhere=anywhere)
