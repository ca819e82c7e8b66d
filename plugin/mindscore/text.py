"""Text from conversations, files and servers, made safe to show."""

from __future__ import annotations

import unicodedata

# Control and format characters (bidi marks among them), surrogates, private use, line separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def printable(text: str) -> str:
    """``text`` with every character that a terminal would not show as itself escaped."""
    return "".join(_escape(c) if unicodedata.category(c) in _HIDDEN else c for c in text)


def one_line(text: str, width: int) -> str:
    """``text`` in at most ``width`` characters of one line."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= width else line[: width - 1] + "…"


def shortened(text: str, width: int, tail: int = 7) -> str:
    """``text``, made printable, in at most ``width`` characters: its beginning and its end."""
    line = printable(text)
    return line if len(line) <= width else f"{line[: width - tail - 1]}…{line[-tail:]}"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
