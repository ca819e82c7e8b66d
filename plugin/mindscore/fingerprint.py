"""Telling responses apart by what they are made of."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable


def response_hash(continuation_ids: Iterable[int]) -> str:
    """A hash of a response's token ids; with its timestamp it marks the response as trained."""
    return _digest(continuation_ids).hex()


def derived_timestamp_ns(context_ids: Iterable[int], continuation_ids: Iterable[int]) -> int:
    """A stand-in for a missing timestamp: from prompt and body, 0 to 2**63 - 1.

    Equal positions of different conversations differ, and the same response always gets the same.
    """
    digest = _digest(context_ids) + _digest(continuation_ids)
    return int.from_bytes(hashlib.sha256(digest).digest()[:8]) >> 1


def _digest(ids: Iterable[int]) -> bytes:
    return hashlib.sha256(array("q", ids).tobytes()).digest()
