"""The bodies of requests to our servers: read in time, up to a size, few large ones at once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import msgspec
from aiohttp import web

from mindscore._util.encodings import without_lone_surrogates
from mindscore.http.refusals import RefusedError

T = TypeVar("T")

MAX_BYTES = 16 * 2**20
"""Size of a request's body; ``POST /v1/train`` takes more."""

LARGE_BYTES = 2**20
"""Size from which on only few bodies are read at once, so that together they are bounded."""

LARGE_BODIES = web.AppKey("large_bodies", asyncio.Semaphore)
"""The turns of large bodies, of one application."""

LARGE_AT_ONCE = 4


async def read_request(
    request: web.Request,
    kind: type[T],
    limit_s: float,
    max_bytes: int = MAX_BYTES,
    *,
    repair: bool = False,
) -> T:
    """Read the body as ``kind``.

    ``limit_s`` includes the wait for a turn, where the body is large. With ``repair``, half a pair
    of surrogates, as JavaScript makes of an emoji that it cuts, is read as U+FFFD.

    Raises:
        RefusedError: it is not JSON, does not fit ``kind``, or did not arrive in time.
    """
    if request.content_type != "application/json":
        # A web page cannot send this type to another server unasked.
        raise RefusedError(415, "expected Content-Type: application/json")
    if content_encoding(request) != "identity":
        raise RefusedError(415, "expected a body that is not compressed")
    async with body_of(request, limit_s, max_bytes) as raw:
        return decode_json(without_lone_surrogates(raw)[0] if repair else raw, kind)


def content_encoding(request: web.Request) -> str:
    """Return the name of the body's compression, ``identity`` for none."""
    return request.headers.get("Content-Encoding", "identity").strip().lower()


def decode_json(raw: bytes, kind: type[T]) -> T:
    """Return a body of JSON as ``kind``.

    Raises:
        RefusedError: it is not JSON, or does not fit.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        at = re.search(r" - at `\$\.?(.*)`$", str(error))
        missing = re.search(r"missing required field `(\w+)`", str(error))
        param = at[1] if at else missing[1] if missing else None
        raise RefusedError(400, str(error), param=param) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RefusedError(400, "the body is not JSON") from None


@asynccontextmanager
async def body_of(
    request: web.Request, limit_s: float, max_bytes: int = MAX_BYTES
) -> AsyncIterator[bytes]:
    """Read the body, for the ``with`` block: only so many large ones are held at once.

    ``limit_s`` includes the wait for a turn, where the body is large.

    Raises:
        RefusedError: it did not arrive in time.
        HTTPRequestEntityTooLarge: it is larger than ``max_bytes``, or than the application takes.
    """
    async with AsyncExitStack() as held:
        try:
            async with asyncio.timeout(limit_s):
                raw = await _read_body(request, max_bytes, held)
        except TimeoutError:
            raise RefusedError(408, f"the body did not arrive within {limit_s:g} s") from None
        yield raw


async def _read_body(request: web.Request, max_bytes: int, held: AsyncExitStack) -> bytes:
    if not request.can_read_body:
        # There is none, or a middleware has read it.
        return await request.read()
    limited = request.clone(client_max_size=min(max_bytes, request.client_max_size))
    length = request.content_length
    if length is None or length >= LARGE_BYTES:
        if length is not None and length > limited.client_max_size:
            raise web.HTTPRequestEntityTooLarge(limited.client_max_size, length)
        room = request.app[LARGE_BODIES]
        await held.enter_async_context(room)
    return await limited.read()
