"""What went wrong, as a page that says so."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING

from aiohttp import web

from mindhooks import MindhooksError
from mindscore.errors import reason
from mindscore.review.views import Views

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

log = logging.getLogger("mindscore.review")

SAID = {
    404: "There is no such page.",
    405: "That is not how this page is asked.",
    408: "The request took too long to arrive.",
    413: "What was sent is too long.",
}


class RefusedError(Exception):
    """A request is answered with an error page, which shows the ``draft`` that would be lost."""

    def __init__(self, status: int, message: str, draft: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.draft = draft


def failures(views: Views) -> Middleware:
    """Answers with a page, never a traceback; of what is nobody's doing, a line is logged."""

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
            said, status = reason(error), 500
        except Exception as error:
            # Where, but not what it says: that may quote a conversation.
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
