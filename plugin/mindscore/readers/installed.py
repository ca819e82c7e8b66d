"""The installed readers, and the one that knows a file."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from mindscore._util.errors import TranscriptError, UsageError, format_error
from mindscore._util.extensions import OWN, load_extensions
from mindscore.conversation.conversation import Conversation
from mindscore.readers.source import Source

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
