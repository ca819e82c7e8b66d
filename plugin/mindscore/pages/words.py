"""Two texts, word by word."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

Kind = Literal["same", "removed", "added"]

# A word or a mark, with the white space after it: alone, a blank would be found everywhere.
_WORD = re.compile(r"\w+\s*|[^\w\s]\s*|\s+")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text: in both, in the first alone, or in the second alone."""

    kind: Kind
    text: str


def word_diff(before: str, after: str) -> list[Piece]:
    """What leads from one text to the other.

    Those that are ``"same"`` or ``"removed"`` make up ``before``, in order; those that are
    ``"same"`` or ``"added"`` make up ``after``.
    """
    old, new = _WORD.findall(before), _WORD.findall(after)
    pieces: list[Piece] = []
    for _, i, j, k, n in SequenceMatcher(None, old, new).get_opcodes():
        if old[i:j] == new[k:n]:
            pieces.append(Piece("same", "".join(old[i:j])))
            continue
        if i < j:
            pieces.append(Piece("removed", "".join(old[i:j])))
        if k < n:
            pieces.append(Piece("added", "".join(new[k:n])))
    return pieces
