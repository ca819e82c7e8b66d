"""What a browser is shown: templates filled in, and what they all need."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from aiohttp import web

from mindhooks import in_thread
from mindscore.pages.environment import environment

if TYPE_CHECKING:
    from markupsafe import Markup

PAGES = {"/": "Runs", "/memories": "Memories", "/matrix": "Matrix", "/candidates": "Candidates"}


class Views:
    """The page's templates, for one namespace.

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
        """The answer to who asked for ``path``."""
        made = self._templates.get_template(template)
        # Differences between long texts take their time, and others wait for the loop.
        text = await in_thread(lambda: made.render(path=path, **values))
        # A lone surrogate, which files and models can hold, is in no encoding.
        body = text.encode("utf-8", "replace")
        return web.Response(body=body, status=status, content_type="text/html", charset="utf-8")


def see_other(to: str) -> web.Response:
    """Sends a browser on, once a form has done its work: what it then shows can be reloaded."""
    return web.Response(status=303, headers={"Location": to})


def address(path: str, **query: str | None) -> str:
    """A path with what is asked of it; what is ``None`` is not."""
    given = {key: value for key, value in query.items() if value is not None}
    return f"{path}?{urlencode(given, errors='replace')}" if given else path


def moment(seconds: float | None) -> Markup:
    """A time since the epoch, on this machine's clock."""
    from markupsafe import Markup

    if seconds is None:
        return Markup("never")
    when = datetime.fromtimestamp(seconds).astimezone()
    element = Markup('<time datetime="{}">{}</time>')
    return element.format(when.isoformat(timespec="seconds"), when.strftime("%Y-%m-%d %H:%M"))


def number(value: float | None, digits: int = 0) -> str:
    """A number with its thousands apart; a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"
