"""Text from conversations, files and servers, made safe to show."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime

# Control and format characters (bidi marks among them), surrogates, private use, line separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


LINE = 500
"""Longest line of an error, in characters."""


def printable(text: str) -> str:
    """Return ``text`` with every character escaped that a terminal would not show as itself."""
    return text.translate(_PLAIN)


def one_line(text: str, width: int) -> str:
    """Return ``text`` as one line of at most ``width`` characters."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= width else line[: width - 1] + "…"


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number and its noun, such as ``1 call`` and ``1,200 calls``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def moment_text(seconds: float) -> str:
    """Return a time since the epoch in local time, to the minute."""
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
    except _NO_MOMENT:
        return "at an unknown time"


def moment_ago(seconds: float) -> str:
    """Return a time since the epoch in local time, and how long ago it was, in one unit."""
    passed, ago = time.time() - seconds, ", just now"
    if iso_utc(seconds) is None or passed < 0:
        return moment_text(seconds)
    for length, unit in ((60, "minute"), (3600, "hour"), (24 * 3600, "day")):
        if passed >= length:
            ago = f", {count_of(int(passed // length), unit)} ago"
    return f"{moment_text(seconds)}{ago}"


def iso_utc(seconds: float) -> str | None:
    """Return a time since the epoch as ISO 8601, in UTC; ``None`` for one that no clock shows."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except _NO_MOMENT:
        return None


_NO_MOMENT = (OverflowError, ValueError, OSError)
"""Raised for a number of seconds that is no time."""


def shortened(text: str, width: int, tail: int = 7) -> str:
    """Return beginning and end of ``text``, printable, in at most ``width`` characters."""
    line = printable(text)
    return line if len(line) <= width else f"{line[: width - tail - 1]}…{line[-tail:]}"


def harmless_json(document: bytes) -> bytes:
    """Return the JSON document, of one line, with characters that are not printable escaped.

    A terminal shows it and does nothing else.
    """
    return document.decode().translate(_JSON).encode()


def harmless_toml(document: str) -> str:
    """Return the TOML document, its strings of one line each, with the same escapes as TOML's."""
    return "\n".join(line.translate(_TOML) for line in document.split("\n"))


class _Escapes(dict[int, str]):
    """The text for each code point, found on first use."""

    def __init__(self, escape: Callable[[str], str]) -> None:
        super().__init__()
        self._escape = escape

    def __missing__(self, code: int) -> str:
        character = chr(code)
        hidden = unicodedata.category(character) in _HIDDEN
        return self.setdefault(code, self._escape(character) if hidden else character)


def _utf16_escape(character: str) -> str:
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{units[index : index + 4]}" for index in range(0, len(units), 4))


_PLAIN = _Escapes(lambda character: character.encode("unicode_escape").decode())
_JSON = _Escapes(_utf16_escape)
_TOML = _Escapes(lambda character: f"\\U{ord(character):08x}")
