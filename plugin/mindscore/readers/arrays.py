"""Look at the JSON values of a file without reading all of it, or past damage."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from mindscore._util.encodings import without_lone_surrogates
from mindscore._util.files import decode

PEEKED = 20
"""Lines, or items of an array, that are looked at to tell a format."""

_ARRAY = re.compile(rb"\s*\[")
_BETWEEN = re.compile(r"[ \t\r\n]*")


def is_array(raw: bytes) -> bool:
    """Return true if ``raw`` begins as an array of JSON does."""
    return _ARRAY.match(raw) is not None


def peek(raw: bytes) -> Any:
    """Return the JSON value in ``raw``, or the first items of an array; ``None`` if it is none."""
    try:
        if is_array(raw):
            split = msgspec.json.decode(raw, type=list[msgspec.Raw])
            return [decode(bytes(it)) for it in split[:PEEKED]]
        return decode(raw)
    except (RecursionError, ValueError):
        repaired, _ = without_lone_surrogates(raw)
    found: list[Any] = []
    try:
        if not is_array(repaired):
            return decode(repaired)
        found += islice(items(repaired), PEEKED)
    except (RecursionError, ValueError):
        pass
    return found or None


def items(raw: bytes) -> Iterator[Any]:
    """Yield the items of a JSON array one by one.

    Raises:
        ValueError: what follows is no item, or the array has no end.
    """
    text, decoder = raw.decode("utf-8", "replace"), json.JSONDecoder()
    at, separator = text.index("[") + 1, ""
    while True:
        at = _after_space(text, at)
        if text.startswith("]", at):
            return
        if separator:
            if not text.startswith(separator, at):
                raise ValueError("expected a comma or the array's end")
            at = _after_space(text, at + 1)
        value, at = decoder.raw_decode(text, at)
        separator = ","
        yield value


def _after_space(text: str, at: int) -> int:
    between = _BETWEEN.match(text, at)
    return between.end() if between else at
