"""The damage of a file: the records left out, and the characters replaced."""

from __future__ import annotations

from mindscore._util.errors import TranscriptError
from mindscore._util.text import count_of

NAMED_RECORDS = 5
"""Most records that one remark names."""


class FileDamage:
    """The records of a file that are left out, and the characters replaced, for remarks."""

    def __init__(self) -> None:
        self.first: TranscriptError | None = None
        """The error of the first record that was left out."""
        self.records = 0
        """Records left out so far."""
        self._named: list[str] = []
        self._unsaid = 0
        self._characters = 0

    def leave_out(self, record: str, error: TranscriptError) -> None:
        """Count a record that is left out; ``record`` is its place and the reason."""
        self.first = self.first or error
        self.records += 1
        self._unsaid += 1
        if len(self._named) < NAMED_RECORDS:
            self._named.append(record)

    def replace(self, characters: int) -> None:
        """Count halves of surrogate pairs that were replaced."""
        self._characters += characters

    def take_remarks(self) -> list[str]:
        """Return a line on each kind of damage that was found since the last call."""
        remarks = []
        if self._unsaid:
            more = self._unsaid - len(self._named)
            named = [*self._named, *([f"{more:,} more"] if more else [])]
            are = "is" if self._unsaid == 1 else "are"
            found = f"{count_of(self._unsaid, 'record')} that {are} not valid"
            remarks.append(f"left out: {found}: {'; '.join(named)}")
        if self._characters:
            found = count_of(self._characters, "lone surrogate")
            remarks.append(f"replaced by U+FFFD: {found}, which no tokenizer can read")
        self._named, self._unsaid, self._characters = [], 0, 0
        return remarks
