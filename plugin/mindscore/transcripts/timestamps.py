"""ISO 8601 timestamps to nanoseconds since the epoch."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

# Python itself keeps six digits of a fraction, and drops the rest without a word.
_FRACTION = re.compile(r"(.*[T ]\d\d:?\d\d:?\d\d)[.,](\d+)([^.,]*)")
_LONGEST = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_timestamp(text: str) -> int:
    """Nanoseconds since the epoch; nine fractional digits are kept, no offset means UTC.

    Raises:
        ValueError: not an ISO 8601 timestamp, or outside 64-bit nanoseconds (1677 to 2262).
    """
    if len(text) > _LONGEST:
        raise ValueError(f"{text[:_LONGEST]!r}… is not an ISO 8601 timestamp")
    fraction = _FRACTION.fullmatch(text)
    nanoseconds = int(fraction[2][:9].ljust(9, "0")) if fraction else 0
    whole = fraction[1] + fraction[3] if fraction else text
    try:
        if "." in whole or "," in whole:
            raise ValueError("a fraction of something else than a second")
        moment = datetime.fromisoformat(whole)
    except ValueError:
        raise ValueError(f"{text!r} is not an ISO 8601 timestamp") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    microseconds = (moment - _EPOCH) // timedelta(microseconds=1)
    stamp = microseconds * 1000 + nanoseconds
    if not -(2**63) <= stamp < 2**63:
        raise ValueError(f"{text!r} is outside 64-bit nanoseconds (the years 1677 to 2262)")
    return stamp
