"""Who may ask: whoever has the key, or, without one, programs on this machine."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiohttp import web

from mindscore.serve.answers import RefusedError

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

_OWN_HOST = re.compile(
    r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.ASCII | re.IGNORECASE
)


def guard(key: str | None) -> Middleware:
    """Asks for the key everywhere but at ``/health``.

    Without a key, the server is on a loopback address, and a name in ``Host`` that is not this
    machine's is a web page's that had its own name resolve to it (DNS rebinding).
    """
    check = _require_own_host if key is None else _require(key)

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        check(request)
        return await handler(request)

    return guarded


def _require_own_host(request: web.Request) -> None:
    if not _OWN_HOST.fullmatch(request.headers.get("Host", "")):
        raise RefusedError(
            403, "the Host header does not name this machine: ask for 127.0.0.1, or set a key"
        )


def _require(key: str) -> Callable[[web.Request], None]:
    expected = key.encode()

    def check(request: web.Request) -> None:
        if request.path == "/health":
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), expected)
        if scheme.lower() != "bearer" or not same:
            raise RefusedError(
                401,
                "expected the server's key: Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return check
