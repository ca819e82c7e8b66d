"""Who may come in: whoever has the address that was printed, from this machine's browser.

Cookies know no ports: the browser sends the cookie of this page to every other server on 127.0.0.1
that it is led to, too, and whoever runs one there can read the page with it until it is ended.
"""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware


NAMES = ("127.0.0.1", "localhost")
"""What this machine may be called in ``Host``: any other name is one that was made to point here
by whoever owns it (DNS rebinding)."""

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
    """Lets requests in to one server, once it is known where that listens.

    The token of the printed address becomes a cookie, and leaves the address. What changes
    anything must say, by ``Origin``, that a page of this server sent it: browsers do, for every
    form and without exception, and no other page can make them. That is why forms need no token
    of their own.
    """

    def __init__(self) -> None:
        self._token = secrets.token_urlsafe(32)
        self._cookie = ""
        self._authorities: tuple[str, ...] = ()

    def open(self, port: int) -> str:
        """Let those in who ask at ``port``; the address to open, which is the key as well."""
        # Two servers must not take each other's.
        self._cookie = f"mindscore-review-{port}"
        self._authorities = tuple(f"{name}:{port}" for name in NAMES)
        return f"http://{self._authorities[0]}/?token={self._token}"

    def middleware(self) -> Middleware:
        """Refuses what may not come in, and gives every answer its headers."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            answer = self._turned_away(request) or await handler(request)
            if not answer.prepared:
                answer.headers.update(HEADERS)
            return answer

        return guarded

    def _turned_away(self, request: web.Request) -> web.Response | None:
        """What those are answered who may not come in, or not like this."""
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
    """Whether no page of another origin has a hand in the request.

    Links from elsewhere may lead here: what they open changes nothing, and shows them nothing.
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
