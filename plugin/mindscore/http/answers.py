"""From the bytes that a server answers to a type, or to an error that an operator can act on."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import msgspec

from mindhooks import ScorerError
from mindscore._util.aio import Pace

T = TypeVar("T")

LARGE = 2**20
"""Bytes of an answer from which on it is decoded only once, and where that helps in pieces."""

PIECE = 2**19
"""Bytes of a long array that are decoded in one go; then the event loop has its turn."""

SAID = 2**16
"""Bytes of a body that are looked at for what it says."""

BROKEN = "the model or its number format is broken"


class Quote(Protocol):
    """Makes a short line, safe to show, of what a server said; ``is_cut``: its end is missing."""

    def __call__(self, text: str, *, is_cut: bool = False) -> str:
        """The line."""


def decode(
    url: str, raw: bytearray | memoryview, answer: type[T], quote: Quote, field: str = "$"
) -> T:
    """A server's JSON as ``answer``; an ``error`` in it is raised, whatever the status was.

    ``field`` is what of the answer ``raw`` is, as msgspec writes it.
    """
    try:
        failure = _failure_in(raw) if len(raw) < LARGE else None
        if failure is None:
            return msgspec.json.decode(raw, type=answer)
        told = f"the server failed: {quote(_text_of(failure))}"
    except msgspec.ValidationError as error:
        failure = _failure_in(raw)
        if failure is None:
            told = _misfit(quote(str(error).replace("`$", f"`{field}")))
        else:
            told = f"the server failed: {quote(_text_of(failure))}"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if re.search(rb"NaN|Infinity", raw):
            told = f"the answer holds NaN or Infinity: {BROKEN}"
        else:
            said = excerpt(raw, quote)
            told = f"the answer is not JSON but {said!r}; is server.base_url right?"
    # Outside, so that it has no context: the errors above may hold what the server said.
    raise ScorerError(f"{url}: {told}")


def _misfit(said: str) -> str:
    if "out of range" in said:
        return f"{said}: not finite: {BROKEN}"
    return f"unexpected answer: {said}; does server.scorer fit this server?"


async def decode_in_pieces(
    url: str,
    raw: msgspec.Raw,
    answer: type[list[T]],
    between: re.Pattern[bytes],
    quote: Quote,
    field: str,
    pace: Pace,
) -> list[T]:
    """As ``decode``, a long array piece by piece, so that the event loop goes on in between.

    In a thread it would not: decoding keeps the interpreter's lock.

    ``between`` finds the end of an entry, its comma, and the beginning of another entry, the last
    of which it does not consume. What it takes for that within an entry, or within a string, does
    no harm: then a piece is no JSON, and the array is decoded as a whole.
    """
    data = memoryview(raw)
    if len(data) < LARGE or bytes(data[:1]) != b"[":
        return decode(url, data, answer, quote, field)
    decoder = msgspec.json.Decoder(answer)
    entries: list[T] = []
    start = 1
    with suppress(msgspec.MsgspecError, UnicodeDecodeError):
        while cut := between.search(data, start + PIECE):
            entries += decoder.decode(b"[%b]" % bytes(data[start : cut.start() + 1]))
            start = cut.end()
            await pace.yield_to_loop()
        entries += decoder.decode(b"[%b" % bytes(data[start:]))
        return entries
    return decode(url, data, answer, quote, field)


class _Failure(msgspec.Struct):
    error: Any = None


def _failure_in(raw: bytearray | memoryview) -> Any:
    with suppress(msgspec.ValidationError):
        return msgspec.json.decode(raw, type=_Failure).error
    return None


def excerpt(raw: bytearray | memoryview, quote: Quote, *, is_cut: bool = False) -> str:
    """What a body says, or the beginning of it; ``is_cut``: there is more than ``raw``."""
    try:
        failure = msgspec.json.decode(raw, type=_Failure).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        failure = None
    if failure:
        return quote(_text_of(failure))
    text = bytes(raw[:SAID]).decode("utf-8", "replace")
    return quote(text, is_cut=is_cut or len(raw) > SAID)


def _text_of(failure: Any) -> str:
    message = failure.get("message") if isinstance(failure, dict) else failure
    return message if isinstance(message, str) else msgspec.json.encode(failure).decode()
