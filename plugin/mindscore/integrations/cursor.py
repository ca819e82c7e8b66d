"""Cursor: transcripts of its agent, a message a line, as they are publicly described."""

from __future__ import annotations

from mindscore.conversation.conversation import Conversation
from mindscore.readers import Reading, Source

NOT_RECORDED = (
    "Cursor records neither its system prompt, nor the definitions of the tools, nor what they "
    "returned: the scores are of a reconstructed context"
)


class CursorReader:
    """Reads ``~/.cursor/projects/*/agent-transcripts/**/*.jsonl``; the file's name is the id."""

    def detects(self, source: Source) -> bool:
        """Return true if the first line is such a message."""
        first = source.first
        if not isinstance(first, dict) or first.get("role") not in ("user", "assistant"):
            return False
        message = first.get("message")
        return isinstance(message, dict) and "content" in message and "content" not in first

    def read(self, source: Source) -> list[Conversation]:
        """Return the conversation.

        Raises:
            TranscriptError: nothing in the file can be read.
        """
        reading = Reading(source)
        for where, line in source.objects():
            if line.get("type") == "turn_ended":
                continue
            with reading.leaving_out(where):
                message = line.get("message")
                if not isinstance(message, dict):
                    raise ValueError(f"expected a message, got a line of type {line.get('type')}")
                reading.add(where, {"role": line.get("role"), "content": message.get("content")})
        reading.require_messages()
        return [reading.conversation(source.file.stem, [NOT_RECORDED], id_=source.file.stem)]
