"""Decode a server's answer, or raise an error that an operator can act on."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import msgspec

from mindhooks import ScorerError
from mindscore._util.aio import Pace

T = TypeVar("T")

LARGE_BYTES = 2**20
"""An answer from this size on is decoded only once, and in pieces where possible."""

PIECE_BYTES = 2**19
"""Size of the pieces of a long array, between which the event loop has its turn."""

EXCERPT_BYTES = 2**16
"""Size of the beginning of a body in which a reason is looked for."""

BROKEN = "the model or its number format is broken"


class Quote(Protocol):
    """Makes a short line, safe to show, of a server's words."""

    def __call__(self, text: str, *, is_cut: bool = False) -> str:
        """Return the line; ``is_cut``: the end of ``text`` is missing."""


def decode(
    url: str, raw: bytearray | memoryview, answer: type[T], quote: Quote, field: str = "$"
) -> T:
    """Return a server's JSON as the type ``answer``.

    ``field`` is the path of ``raw`` within the whole answer, as msgspec writes it.

    Raises:
        ScorerError: it is not JSON, does not fit, or has an ``error``, whatever its status was.
    """
    try:
        failure = _failure_in(raw) if len(raw) < LARGE_BYTES else None
        if failure is None:
            return msgspec.json.decode(raw, type=answer)
        text = f"the server failed: {quote(_text_of(failure))}"
    except msgspec.ValidationError as error:
        failure = _failure_in(raw)
        if failure is None:
            text = _misfit(quote(str(error).replace("`$", f"`{field}")))
        else:
            text = f"the server failed: {quote(_text_of(failure))}"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if re.search(rb"NaN|Infinity", raw):
            text = f"the answer holds NaN or Infinity: {BROKEN}"
        else:
            said = excerpt(raw, quote)
            text = f"the answer is not JSON but {said!r}; is server.base_url right?"
    # Outside, so that it has no context: the errors above may hold what the server said.
    raise ScorerError(f"{url}: {text}")


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
    """Return what ``decode`` does, of a long array, piece by piece for the event loop's sake.

    A thread would not help: decoding keeps the interpreter's lock. ``between`` matches the end of
    an entry and its comma, with the beginning of the next entry as a lookahead. A false match
    within an entry does no harm: that piece is not JSON, and the array is decoded as a whole.

    Raises:
        ScorerError: as ``decode``.
    """
    data = memoryview(raw)
    if len(data) < LARGE_BYTES or bytes(data[:1]) != b"[":
        return decode(url, data, answer, quote, field)
    decoder = msgspec.json.Decoder(answer)
    entries: list[T] = []
    start = 1
    with suppress(msgspec.MsgspecError, UnicodeDecodeError):
        while cut := between.search(data, start + PIECE_BYTES):
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
    """Return the reason in a body, or its beginning; ``is_cut``: there is more than ``raw``."""
    try:
        failure = msgspec.json.decode(raw, type=_Failure).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        failure = None
    if failure:
        return quote(_text_of(failure))
    text = bytes(raw[:EXCERPT_BYTES]).decode("utf-8", "replace")
    return quote(text, is_cut=is_cut or len(raw) > EXCERPT_BYTES)


def _text_of(failure: Any) -> str:
    message = failure.get("message") if isinstance(failure, dict) else failure
    return message if isinstance(message, str) else msgspec.json.encode(failure).decode()
