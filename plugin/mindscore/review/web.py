"""Views, forms, refusals and the session key of the review page."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from aiohttp import web

from mindhooks import MindhooksError, in_thread
from mindscore._util.errors import StoreError, format_error
from mindscore.config.settings import StoreSettings
from mindscore.pages.environment import environment
from mindscore.store import Damage, Records

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
            refusal = self._refusal(request)
            # Not "or": to aiohttp 3.9, a response without state of its own is false.
            answer = refusal if refusal is not None else await handler(request)
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


PAGES = {
    "/": "Memories",
    "/archive": "Archive",
    "/matrix": "Matrix",
    "/candidates": "Candidates",
    "/runs": "Runs",
    "/ledger": "Ledger",
}


class Views:
    """The templates of the pages, for one namespace.

    Raises:
        UsageError: Jinja2 is not installed.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self._records = Records(settings)
        self._templates = environment("mindscore.review")
        self._templates.globals.update(pages=PAGES, namespace=settings.namespace, address=address)

    async def show(
        self, template: str, path: str, values: Mapping[str, Any], status: int = 200
    ) -> web.Response:
        """Return the response to a request for ``path``."""
        made = self._templates.get_template(template)
        damaged = list[Damage]()
        # Where the store cannot be read, the page itself says so.
        with suppress(StoreError):
            damaged = await self._records.left_out()
        # Differences between long texts take time, and others wait for the loop.
        text = await in_thread(lambda: made.render(path=path, damaged=damaged, **values))
        # Files and models can hold lone surrogates, which UTF-8 cannot.
        body = text.encode("utf-8", "replace")
        return web.Response(body=body, status=status, content_type="text/html", charset="utf-8")


def see_other(to: str) -> web.Response:
    """Redirect a browser after a form, so that its page can be reloaded."""
    return web.Response(status=303, headers={"Location": to})


def address(path: str, **query: str | None) -> str:
    """Return a path with a query, without what is ``None``."""
    given = {key: value for key, value in query.items() if value is not None}
    return f"{path}?{urlencode(given, errors='replace')}" if given else path


def page_number(request: web.Request) -> int:
    """Return the number of the page that is asked for: from 1, which is what nonsense asks for."""
    number = request.query.get("page", "")
    return max(1, int(number)) if number.isascii() and number.isdigit() and len(number) < 7 else 1


log = logging.getLogger("mindscore.review")

SAID = {
    404: "There is no such page.",
    405: "This page does not take that method.",
    408: "The request took too long to arrive.",
    413: "What was sent is too long.",
}


class PageRefusedError(Exception):
    """A refused request; its page shows the ``draft`` that would be lost."""

    def __init__(self, status: int, message: str, draft: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.draft = draft


def failures(views: Views) -> Middleware:
    """Return middleware that answers errors with a page, and logs unexpected ones."""

    @web.middleware
    async def told(request: web.Request, handler: Handler) -> web.StreamResponse:
        allowed = draft = None
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            said, status = SAID.get(error.status, error.reason), error.status
            allowed = error.headers.get("Allow")
        except PageRefusedError as error:
            said, status, draft = str(error), error.status, error.draft
        except MindhooksError as error:
            said, status = format_error(error), 500
        except Exception as error:
            # Without its text, which may quote a conversation.
            where = traceback.extract_tb(error.__traceback__)[-1]
            what = type(error).__name__
            log.error("%s: %s in %s, line %s", request.path, what, where.filename, where.lineno)
            said, status = f"The page failed: {what}; the log says where.", 500
        values = {"said": said, "draft": draft}
        answer = await views.show("failure.html", request.path, values, status)
        if allowed is not None:
            answer.headers["Allow"] = allowed
        return answer

    return told


MOST_BYTES = 2**20
MOST_FIELDS = 10
PATIENCE_S = 10.0


async def read_form(request: web.Request) -> dict[str, str]:
    """Return the fields of a form, with ``model`` and ``id`` empty where missing.

    Raises:
        PageRefusedError: it is not a form, or takes too long.
    """
    if request.content_type != "application/x-www-form-urlencoded":
        raise PageRefusedError(415, "Only forms are taken here.")
    try:
        async with asyncio.timeout(PATIENCE_S):
            raw = await request.read()
    except TimeoutError:
        raise PageRefusedError(408, "The form took too long to arrive.") from None
    try:
        fields = parse_qsl(
            raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS
        )
    except ValueError:
        raise PageRefusedError(400, "The form cannot be read.") from None
    return {"model": "", "id": "", **dict(fields)}
