"""Decode a server's answer, or raise an error that an operator can act on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import msgspec

from mindhooks import ScorerError
from mindscore._util.aio import Pace

T = TypeVar("T")

LARGE_BYTES = 2**20
"""An array from this size on is decoded in pieces."""

PIECE_BYTES = 2**19
"""Size of the pieces of a long array, between which the event loop has its turn."""

MAX_CUTS = 4
"""Places at which a piece may end: text within an entry may look like the end of one."""

EXCERPT_BYTES = 2**16
"""Size of the beginning of a body in which a reason is looked for."""

BROKEN = "the model or its number format is broken"


class Quote(Protocol):
    """Makes a short line, safe to show, of a server's words."""

    def __call__(self, text: str, *, is_cut: bool = False) -> str:
        """Return the line; ``is_cut``: the end of ``text`` is missing."""


def decode(
    url: str,
    raw: bytearray | memoryview,
    answer: type[T],
    quote: Quote,
    field: str = "$",
    first: int = 0,
) -> T:
    """Return a server's JSON as the type ``answer``.

    ``field`` is the path of ``raw`` within the whole answer, as msgspec writes it. Where ``raw`` is
    a piece of an array, ``first`` is the index of its first entry.

    Raises:
        ScorerError: it is not JSON, does not fit, or has an ``error``, whatever its status was.
    """
    try:
        # A server that fails says so in few words; to read much twice takes too long.
        failure = _failure_in(raw) if len(raw) < LARGE_BYTES else None
        if failure is None:
            return msgspec.json.decode(raw, type=answer)
        text = f"the server failed: {quote(failure)}"
    except msgspec.ValidationError as error:
        text = _misfit(quote(_with_path(str(error), field, first)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if _is_at_no_number(raw, error):
            text = f"the answer holds NaN or Infinity: {BROKEN}"
        else:
            said = excerpt(raw, quote)
            text = f"the answer is not JSON but {said!r}; is server.base_url right?"
    # Outside, so that it has no context: the errors above may hold what the server said.
    raise ScorerError(f"{url}: {text}")


def _with_path(text: str, field: str, first: int) -> str:
    """Return msgspec's ``text`` with the path of the whole answer."""
    text = re.sub(r"`\$\[(\d+)\]", lambda it: f"`$[{first + int(it[1])}]", text)
    if field != "$" and "`$" not in text:
        text += f" - at `{field}`"
    return text.replace("`$", f"`{field}")


def _is_at_no_number(raw: bytearray | memoryview, error: Exception) -> bool:
    """Return whether decoding failed at a NaN or Infinity."""
    found = re.search(r"\(byte (\d+)\)", str(error))
    at = int(found[1]) if found else 0
    return re.match(rb"NaN|Infinity", bytes(raw[at : at + 8])) is not None


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
    expected: int,
) -> list[T]:
    """Return what ``decode`` does, of a long array, piece by piece for the event loop's sake.

    A thread would not help: decoding keeps the interpreter's lock. ``between`` matches the end of
    an entry and its comma, with the beginning of the next entry as a lookahead. A false match
    within an entry does no harm: that piece is not JSON, and a longer one is tried.

    Raises:
        ScorerError: as ``decode``, or there are many more than the ``expected`` entries.
    """
    data = memoryview(raw)
    if len(data) < LARGE_BYTES or bytes(data[:1]) != b"[":
        return decode(url, data, answer, quote, field)
    decoder = msgspec.json.Decoder(answer)
    entries: list[T] = []
    start = 1
    while start < len(data):
        for piece, end in _cut(data, start, between):
            with suppress(msgspec.MsgspecError, UnicodeDecodeError):
                entries += decoder.decode(piece)
                start = end
                break
        else:
            # It fails again, and says why.
            return decode(url, memoryview(piece), answer, quote, field, first=len(entries))
        if len(entries) > expected:
            raise ScorerError(
                f"{url}: {field.removeprefix('$.')}: expected {expected} entries, got more: "
                "does server.scorer fit this server?"
            )
        await pace.yield_to_loop()
    return entries


def _cut(data: memoryview, start: int, between: re.Pattern[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield what may be the next piece, as an array, and its end, the shortest first."""
    end = start
    for _ in range(MAX_CUTS):
        # No entry is so long that none ends here.
        most = end + 2 * PIECE_BYTES
        cut = between.search(data, end + PIECE_BYTES, most)
        if cut is None:
            # The last, which has the array's own end.
            yield b"[%b" % bytes(data[start:most]), len(data)
            return
        end = cut.end()
        yield b"[%b]" % bytes(data[start : cut.start() + 1]), end


MISSING = msgspec.Raw(b"null")
"""Stands for a field that the server leaves out or sets to null."""


class _Failure(msgspec.Struct):
    error: msgspec.Raw = MISSING


def _failure_in(raw: bytearray | memoryview) -> str | None:
    """Return what an answer says in its ``error``; ``None`` if it has none."""
    with suppress(msgspec.ValidationError):
        error = msgspec.json.decode(raw, type=_Failure).error
        return None if error == MISSING else _text_of(memoryview(error))
    return None


def excerpt(raw: bytearray | memoryview, quote: Quote, *, is_cut: bool = False) -> str:
    """Return the reason in a body, or its beginning; ``is_cut``: there is more than ``raw``."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        if len(raw) <= EXCERPT_BYTES and (failure := _failure_in(raw)):
            return quote(failure)
    text = bytes(raw[:EXCERPT_BYTES]).decode("utf-8", "replace")
    return quote(text, is_cut=is_cut or len(raw) > EXCERPT_BYTES)


def _text_of(error: memoryview) -> str:
    """Return the text of an ``error``, or of its ``message``, else its JSON."""
    failure: Any = None
    if len(error) <= EXCERPT_BYTES:
        with suppress(RecursionError):
            failure = msgspec.json.decode(error)
    message = failure.get("message") if isinstance(failure, dict) else failure
    if isinstance(message, str):
        return message
    return bytes(error[:EXCERPT_BYTES]).decode("utf-8", "replace")
