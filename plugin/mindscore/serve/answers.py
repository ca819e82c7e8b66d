"""What the server answers: JSON, and errors in vLLM's shape."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from mindhooks import ScorerError
from mindscore.serve.turnstile import TurnstileFullError

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

log = logging.getLogger("mindscore.serve")

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
HINTS = {
    404: "no such path; there are /health, /tokenize, /detokenize and, under /v1: /score, "
    "/completions, /models, /tokenize, /detokenize, /train, /adapter",
    413: "the body is too large",
}


class RefusedError(Exception):
    """A request is answered with an error; ``param`` names the field that is at fault."""

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


def json_answer(
    document: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """``document`` as JSON."""
    return web.Response(
        body=msgspec.json.encode(document),
        status=status,
        headers=headers,
        content_type="application/json",
    )


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever goes wrong, in vLLM's shape; of what is not the client's doing, a line is logged."""
    try:
        return await handler(request)
    except RefusedError as error:
        return _failure(error.status, str(error), error.param, error.headers)
    except TurnstileFullError as error:
        return _failure(429, str(error), headers={"Retry-After": str(error.retry_after_s)})
    except ScorerError as error:
        return _failure(400, str(error))
    except web.HTTPException as error:
        allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return _failure(error.status, HINTS.get(error.status, error.reason), headers=allowed)
    except Exception as error:
        # Where, but not what it says: that may quote a prompt.
        where = traceback.extract_tb(error.__traceback__)[-1]
        what = type(error).__name__
        log.error("%s: %s in %s, line %s", request.path, what, where.filename, where.lineno)
        return _failure(500, f"the server failed: {what}; its log says where")


def _failure(
    status: int,
    message: str,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    kind = TYPES.get(status, "InternalServerError" if status >= 500 else "BadRequestError")
    error = {"message": message, "type": kind, "param": param, "code": status}
    return json_answer({"error": error}, status, headers)
