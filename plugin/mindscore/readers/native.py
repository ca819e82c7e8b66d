"""mindscore's own format, which marks its memories itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mindscore.conversation.conversation import Conversation, Transcript
from mindscore.conversation.native import read_transcript
from mindscore.readers.source import Source
from mindscore.recognisers import MemoryFinder


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeConversation(Conversation):
    """A conversation whose file marks its memories: nothing else is looked for."""

    marked: Transcript

    def transcript(self, file: Path, finder: MemoryFinder) -> Transcript:
        """Return the transcript that the file holds."""
        del file, finder
        return self.marked


class NativeReader:
    """Reads one message a line: the format that is assumed if no other is detected."""

    def detects(self, source: Source) -> bool:
        """Return true if the first line is such a message."""
        first = source.first
        return (
            isinstance(first, dict)
            and {"role", "content"} <= first.keys()
            and "messages" not in first
        )

    def read(self, source: Source) -> list[Conversation]:
        """Return the one conversation.

        Raises:
            TranscriptError: names the file, the line and the reason.
        """
        marked = read_transcript(source.file, source.content)
        return [NativeConversation(source.file.stem, marked.messages, marked=marked)]
