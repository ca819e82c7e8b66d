"""What a form sends."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qsl

from aiohttp import web

from mindscore.review.failures import RefusedError

MOST_BYTES = 2**20
MOST_FIELDS = 10
PATIENCE_S = 10.0


async def read_form(request: web.Request) -> dict[str, str]:
    """The fields of a form; ``model`` and ``id`` are among them, if empty.

    Raises:
        RefusedError: it is no form, or takes too long.
    """
    if request.content_type != "application/x-www-form-urlencoded":
        raise RefusedError(415, "Only forms are taken here.")
    try:
        async with asyncio.timeout(PATIENCE_S):
            raw = await request.read()
    except TimeoutError:
        raise RefusedError(408, "The form took too long to arrive.") from None
    try:
        fields = parse_qsl(
            raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS
        )
    except ValueError:
        raise RefusedError(400, "The form cannot be read.") from None
    return {"model": "", "id": "", **dict(fields)}
