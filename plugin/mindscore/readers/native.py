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
    """A conversation whose file says itself what is a memory: nothing else is looked for."""

    told: Transcript

    def transcript(self, file: Path, finder: MemoryFinder) -> Transcript:
        """What the file says."""
        del file, finder
        return self.told


class NativeReader:
    """Reads one message a line: the format that is assumed where no other is detected."""

    name = "native"

    def detects(self, source: Source) -> bool:
        """Whether the first line is such a message."""
        first = source.first
        return (
            isinstance(first, dict)
            and {"role", "content"} <= first.keys()
            and "messages" not in first
        )

    def read(self, source: Source) -> list[Conversation]:
        """The one conversation.

        Raises:
            TranscriptError: names the file, the line and the reason.
        """
        told = read_transcript(source.file, source.content)
        return [NativeConversation(name=source.file.stem, messages=(), told=told)]
