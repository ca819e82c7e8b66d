"""From the bytes that a server answers to a type, or to an error that an operator can act on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from mindhooks import ScorerError

T = TypeVar("T")
Quote = Callable[[str], str]

LARGE = 2**20
"""Bytes of an answer from which on it is decoded beside the event loop, and only once."""


def decode(url: str, raw: bytes, answer: type[T], quote: Quote) -> T:
    """A server's JSON as ``answer``; an ``error`` in it is raised, whatever the status was."""
    try:
        if len(raw) < LARGE:
            _raise_failure_in(url, raw, quote)
        return msgspec.json.decode(raw, type=answer)
    except msgspec.ValidationError as error:
        _raise_failure_in(url, raw, quote)
        if "out of range" in str(error):
            said = quote(str(error))
            raise ScorerError(
                f"{url}: {said}: not finite: the model or its number format is broken"
            ) from None
        raise ScorerError(
            f"{url}: unexpected answer: {quote(str(error))}; does server.scorer fit this server?"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if b"NaN" in raw or b"Infinity" in raw:
            raise ScorerError(
                f"{url}: the answer holds NaN or Infinity: the model or its number format is broken"
            ) from None
        raise ScorerError(
            f"{url}: the answer is not JSON but {excerpt(raw, quote)!r}; is server.base_url right?"
        ) from None


class _Failure(msgspec.Struct):
    error: Any = None


def _raise_failure_in(url: str, raw: bytes, quote: Quote) -> None:
    with suppress(msgspec.ValidationError):
        if (failure := msgspec.json.decode(raw, type=_Failure).error) is not None:
            raise ScorerError(f"{url}: the server failed: {quote(_text_of(failure))}")


def excerpt(raw: bytes, quote: Quote) -> str:
    """What a body says, or the beginning of it."""
    try:
        failure = msgspec.json.decode(raw, type=_Failure).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        failure = None
    return quote(_text_of(failure) if failure else raw.decode("utf-8", "replace"))


def _text_of(failure: Any) -> str:
    message = failure.get("message") if isinstance(failure, dict) else failure
    return message if isinstance(message, str) else str(failure)
