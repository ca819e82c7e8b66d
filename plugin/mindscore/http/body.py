"""The body of an answer: read as a stream, inflated in small steps, stopped at a limit."""

from __future__ import annotations

import asyncio
import zlib
from typing import Protocol

import aiohttp

ACCEPTED = "gzip, deflate"
"""What a server may compress its answers with."""

CHUNK = 2**16
STEP = 2**18
"""Bytes that are inflated in one go; then the event loop has its turn."""


class EncodingError(Exception):
    """A body is encoded in a way that is not read here."""


class BrokenBodyError(Exception):
    """A body's compression is broken, or ends too soon."""


async def read_body(response: aiohttp.ClientResponse, most: int) -> tuple[bytearray, bool]:
    """The first ``most`` bytes of a body, decompressed, and whether there are more.

    Neither is more than that read from the connection, nor held in memory, but for a few steps.

    Raises:
        EncodingError: ``Content-Encoding`` names something else than ``ACCEPTED``.
        BrokenBodyError: what was compressed cannot be read.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    decoder = _decoder(encoding)
    body, received = bytearray(), 0
    while max(len(body), received) <= most and (chunk := await response.content.read(CHUNK)):
        received += len(chunk)
        try:
            body += decoder.feed(chunk)
            while decoder.has_more and len(body) <= most:
                await asyncio.sleep(0)
                body += decoder.feed(b"")
        except zlib.error as error:
            raise BrokenBodyError(f"what is said to be {encoding} is not: {error}") from None
    has_more = max(len(body), received) > most
    if not has_more and not decoder.at_end:
        raise BrokenBodyError(f"what is {encoding} ends too soon")
    del body[most:]
    return body, has_more


class _Decoder(Protocol):
    has_more: bool

    @property
    def at_end(self) -> bool:
        """Whether nothing is missing."""

    def feed(self, data: bytes) -> bytes:
        """What ``data`` comes to, or the beginning of it; the rest comes with the next calls."""


class _Plain:
    has_more = False
    at_end = True

    def feed(self, data: bytes) -> bytes:
        return data


class _Inflater:
    """Of gzip, which may be several one after the other, or of deflate, with its header or not."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS) if gzip else None
        self._left = b""
        self._is_fresh = True
        self.has_more = False

    @property
    def at_end(self) -> bool:
        return self._is_fresh or (self._inflate is not None and self._inflate.eof)

    def feed(self, data: bytes) -> bytes:
        data = self._left + data
        if self._inflate is None:
            # Some servers leave the header out.
            has_header = data[0] & 0x0F == 8
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
        elif self._inflate.eof and self._gzip and data:
            self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._is_fresh = False
        inflated = self._inflate.decompress(data, STEP)
        at_next = self._inflate.eof and self._gzip
        self._left = self._inflate.unused_data if at_next else self._inflate.unconsumed_tail
        self.has_more = bool(self._left) or len(inflated) == STEP
        return inflated


def _decoder(encoding: str) -> _Decoder:
    if encoding in ("", "identity"):
        return _Plain()
    if encoding in ("gzip", "x-gzip"):
        return _Inflater(gzip=True)
    if encoding == "deflate":
        return _Inflater(gzip=False)
    raise EncodingError(f"Content-Encoding: {encoding}")
