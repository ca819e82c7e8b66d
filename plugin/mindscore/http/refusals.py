"""The errors that our servers answer with."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from mindhooks import ScorerError

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    408: "RequestTimeoutError",
    409: "ConflictError",
    413: "RequestEntityTooLargeError",
    415: "UnsupportedMediaTypeError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    501: "NotImplementedError",
}


class RefusedError(Exception):
    """An error response; ``param`` names the field that is wrong."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.headers = headers


def json_response(
    document: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Make a response of ``document``, as JSON."""
    return web.Response(
        body=msgspec.json.encode(document),
        status=status,
        headers=headers,
        content_type="application/json",
    )


def errors_as_json(log: logging.Logger, paths: str) -> Middleware:
    """Return the middleware that answers every error in vLLM's format.

    The server's own errors go to ``log``, a line each. ``paths`` says which there are.
    """
    hints = {404: f"no such path; there are {paths}", 413: "the body is too large"}

    @web.middleware
    async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except RefusedError as error:
            return _failure(error.status, str(error), error.param, error.headers)
        except ScorerError as error:
            return _failure(400, str(error))
        except web.HTTPException as error:
            allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            text = hints.get(error.status, error.reason)
            return _failure(error.status, text, headers=allowed)
        except Exception as error:
            # The text is left out: it may quote a prompt.
            where = traceback.extract_tb(error.__traceback__)[-1]
            what = type(error).__name__
            log.error("%s: %s in %s, line %s", request.path, what, where.filename, where.lineno)
            return _failure(500, f"the server failed: {what}; its log says where")

    return answered


def _failure(
    status: int,
    message: str,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    kind = TYPES.get(status, "InternalServerError" if status >= 500 else "BadRequestError")
    error = {"message": message, "type": kind, "param": param, "code": status}
    return json_response({"error": error}, status, headers)
