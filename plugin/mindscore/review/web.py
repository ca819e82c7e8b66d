"""Views, forms and refusals of the review page."""

from __future__ import annotations

import asyncio
import logging
import math
import traceback
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from aiohttp import web

from mindhooks import MindhooksError, in_thread
from mindscore._util.errors import format_error
from mindscore.pages.environment import environment

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware
    from markupsafe import Markup


PAGES = {"/": "Runs", "/memories": "Memories", "/matrix": "Matrix", "/candidates": "Candidates"}


class Views:
    """The templates of the pages, for one namespace.

    Raises:
        UsageError: Jinja2 is not installed.
    """

    def __init__(self, namespace: str) -> None:
        self._templates = environment("mindscore.review")
        self._templates.filters.update(moment=moment, number=number)
        self._templates.globals.update(pages=PAGES, namespace=namespace, address=address)

    async def show(
        self, template: str, path: str, values: Mapping[str, Any], status: int = 200
    ) -> web.Response:
        """Return the response to a request for ``path``."""
        made = self._templates.get_template(template)
        # Differences between long texts take time, and others wait for the loop.
        text = await in_thread(lambda: made.render(path=path, **values))
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


def moment(seconds: float | None) -> Markup:
    """Return a time since the epoch as an element, in local time."""
    from markupsafe import Markup

    if seconds is None:
        return Markup("never")
    when = datetime.fromtimestamp(seconds).astimezone()
    element = Markup('<time datetime="{}">{}</time>')
    return element.format(when.isoformat(timespec="seconds"), when.strftime("%Y-%m-%d %H:%M"))


def number(value: float | None, digits: int = 0) -> str:
    """Return a number with separated thousands, or a dash if there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


log = logging.getLogger("mindscore.review")

SAID = {
    404: "There is no such page.",
    405: "This page does not take that method.",
    408: "The request took too long to arrive.",
    413: "What was sent is too long.",
}


class RefusedError(Exception):
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
        except RefusedError as error:
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
        RefusedError: it is not a form, or takes too long.
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
