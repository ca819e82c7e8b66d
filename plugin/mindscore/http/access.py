"""Access to a server: for those who have its key, or for this machine alone."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiohttp import web

from mindscore._util.errors import UsageError
from mindscore.http.addresses import is_loopback
from mindscore.http.refusals import RefusedError

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

_OWN_HOST = re.compile(
    r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.ASCII | re.IGNORECASE
)


def require_key(key: str | None, host: str, hint: str) -> None:
    """Refuse to listen without a key where others than this machine can ask.

    ``hint`` says how to set one.

    Raises:
        UsageError: they can, and there is none.
    """
    if key is None and not is_loopback(host):
        raise UsageError(
            f"--host {host} can be reached from elsewhere: {hint}, or keep to 127.0.0.1"
        )


def guard(key: str | None, health: str) -> Middleware:
    """Return the middleware that asks for the key everywhere but at the path ``health``.

    Without a key, the server is on a loopback address. A ``Host`` that does not name this machine
    is then a web page's own name that resolves to it (DNS rebinding).
    """
    check = _require_own_host if key is None else _require(key, health)

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


def _require(key: str, health: str) -> Callable[[web.Request], None]:
    expected = key.encode()

    def check(request: web.Request) -> None:
        if request.path == health:
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
