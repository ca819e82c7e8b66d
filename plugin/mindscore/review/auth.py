"""Authenticate browsers by the token in the printed address.

Cookies are not bound to a port: the browser sends this page's cookie to any other server on
127.0.0.1 that it opens, and whoever runs that server can read the page with it while it is served.
"""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware


NAMES = ("127.0.0.1", "localhost")
"""Names that ``Host`` may have; any other may have been made to point here (DNS rebinding)."""

READING = ("GET", "HEAD")
HOW = "open the address that mindscore review printed, or paste it into the address bar"
POLICY = "; ".join(
    f"{what} {whence}"
    for what, whence in {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }.items()
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: under that, browsers send forms with "Origin: null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class SessionAuth:
    """The authentication of one server, for a single session.

    The token of the printed address becomes a cookie and leaves the address. A request that changes
    anything must have the ``Origin`` of this server. Browsers send it with every form, and no other
    page can set it, so forms need no token of their own.
    """

    def __init__(self) -> None:
        self._token = secrets.token_urlsafe(32)
        self._cookie = ""
        self._authorities: tuple[str, ...] = ()

    def open(self, port: int) -> str:
        """Accept requests at ``port``, and return the address to open, token included."""
        # Two servers must not replace each other's cookie.
        self._cookie = f"mindscore-review-{port}"
        self._authorities = tuple(f"{name}:{port}" for name in NAMES)
        return f"http://{self._authorities[0]}/?token={self._token}"

    def middleware(self) -> Middleware:
        """Return middleware that refuses requests, and adds security headers to every response."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            answer = self._refusal(request) or await handler(request)
            if not answer.prepared:
                answer.headers.update(HEADERS)
            return answer

        return guarded

    def _refusal(self, request: web.Request) -> web.Response | None:
        """Return the refusal, or ``None`` if the request is allowed."""
        host = request.headers.get("Host", "")
        if host not in self._authorities:
            return _refuse(f"the Host header does not name this server: {HOW}")
        if not _is_from_here(request, f"http://{host}"):
            return _refuse(f"the request comes from another page: {HOW}")
        given = request.query.get("token")
        if given is not None and request.method in READING and request.path == "/":
            return self._let_in() if self._is_token(given) else _refuse(f"wrong token: {HOW}")
        if not self._is_token(request.cookies.get(self._cookie, "")):
            return _refuse(f"this browser has not been let in: {HOW}")
        return None

    def _let_in(self) -> web.Response:
        answer = web.Response(status=303, headers={"Location": "/"})
        answer.set_cookie(self._cookie, self._token, path="/", httponly=True, samesite="Strict")
        return answer

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())


def _is_from_here(request: web.Request, own: str) -> bool:
    """Return whether the request does not come from a page of another origin.

    Links from other pages are allowed: they change nothing and show those pages nothing.
    """
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if request.method not in READING:
        return request.headers.get("Origin") == own and site == "same-origin"
    is_opened = (
        request.headers.get("Sec-Fetch-Mode") == "navigate"
        and request.headers.get("Sec-Fetch-Dest") == "document"
    )
    return site in ("same-origin", "none") or is_opened


def _refuse(why: str) -> web.Response:
    return web.Response(status=403, text=f"mindscore: {why}\n")
