"""Requests of the server: read, checked, queued and answered."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import re
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from mindhooks import ScorerError
from mindscore.config.settings import TokenId

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler


RETRY_AFTER_S = 5
"""Seconds after which a client that found the queue full is asked to try again."""


class RequestQueue:
    """Lets one request through at a time: the smallest priority first, then the earliest.

    At most ``limit`` wait. A request that is cancelled while it waits leaves the queue.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.busy = False
        """Whether a request has its turn."""
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    @property
    def queued(self) -> int:
        """The number of requests that wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self, priority: int = 0) -> AsyncIterator[None]:
        """Wait for a turn, and have it for the ``with`` block.

        Raises:
            RefusedError: the queue is full.
        """
        if self.busy:
            await self._wait(priority)
        self.busy = True
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, priority: int) -> None:
        if len(self._waiting) >= self.limit:
            raise RefusedError(
                429,
                f"the queue is full; try again in {RETRY_AFTER_S} s",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        turn = asyncio.get_running_loop().create_future()
        place = (priority, next(self._numbers), turn)
        heapq.heappush(self._waiting, place)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                # The turn came, but too late.
                self._pass_on()
            elif place in self._waiting:
                self._waiting.remove(place)
                heapq.heapify(self._waiting)
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.cancelled():
                # Still busy: nobody may overtake the request whose turn this is.
                turn.set_result(None)
                return
        self.busy = False


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


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error in vLLM's format, and log the server's own errors, a line each."""
    try:
        return await handler(request)
    except RefusedError as error:
        return _failure(error.status, str(error), error.param, error.headers)
    except ScorerError as error:
        return _failure(400, str(error))
    except web.HTTPException as error:
        allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return _failure(error.status, HINTS.get(error.status, error.reason), headers=allowed)
    except Exception as error:
        # The text is left out: it may quote a prompt.
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
    return json_response({"error": error}, status, headers)


T = TypeVar("T")

MAX_TOKENS = 65_536
"""Tokens that are generated for one prompt at most."""

FIRST_PRIORITY = -(2**31)
"""The priority that comes before every other."""

MAX_TEXT_BYTES = 2**20
"""Size of the texts of a request, in UTF-8: tokenising one takes a second and 200 MB for each."""

MAX_DECODED_TOKENS = 2**20
"""Tokens of a request for their text, or of all its prompts: decoding so many takes a second."""

MAX_RANGE_SHARE = 8
"""How many times as long as the prompt all its ranges together may be."""

DEFAULT_TOKENS = 16
MAX_PROMPTS = 1024

Priority = Annotated[int, Meta(ge=FIRST_PRIORITY, le=2**31 - 1)]
LogprobCount = Annotated[int, Meta(ge=0, le=1)]
"""Alternatives of each token: only its own logprob is known."""


class ScoreRequest(Struct):
    """``POST /v1/score``."""

    prompt: list[TokenId]
    score_ranges: list[tuple[int, int]]
    model: str | None = None
    priority: Priority | None = None
    multi_modal_data: Any = None

    def check(self) -> None:
        """Refuse images, and ranges that are too many, empty, out of bounds or at the first token.

        Raises:
            RefusedError: names the field.
        """
        _refuse_images(self.multi_modal_data)
        length = len(self.prompt)
        for number, (start, end) in enumerate(self.score_ranges):
            if not 1 <= start < end <= length:
                raise RefusedError(
                    400,
                    f"[{start}, {end}] is not a range within [1, {length}], the prompt's tokens "
                    "after the first",
                    param=f"score_ranges[{number}]",
                )
        asked = sum(end - start for start, end in self.score_ranges)
        if asked > MAX_RANGE_SHARE * length:
            raise RefusedError(
                400,
                f"the ranges are {asked} tokens long together, over {MAX_RANGE_SHARE} times the "
                f"prompt's {length}: ask for each range once, or send several requests",
                param="score_ranges",
            )


class CompletionRequest(Struct):
    """``POST /v1/completions``."""

    prompt: str | list[str | TokenId | list[TokenId]]
    model: str | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=MAX_TOKENS)] | None = None
    temperature: float | None = None
    echo: bool | None = None
    logprobs: LogprobCount | None = None
    prompt_logprobs: LogprobCount | None = None
    stop_token_ids: list[TokenId] | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    priority: Priority | None = None
    # These would change the answer, and are not supported.
    n: int | None = None
    best_of: int | None = None
    stream: bool | None = None
    stop: str | list[str] | None = None
    suffix: str | None = None
    multi_modal_data: Any = None

    def check(self) -> None:
        """Refuse options that this server does not support, rather than ignore them."""
        _refuse_images(self.multi_modal_data)
        if self.temperature:
            raise RefusedError(400, "only greedy: expected 0 or none", param="temperature")
        if self.max_tokens == 0 and not self.echo:
            raise RefusedError(
                400, "max_tokens must be at least 1, got 0 (without echo)", param="max_tokens"
            )
        for name in ("n", "best_of"):
            if getattr(self, name) not in (None, 1):
                raise RefusedError(400, "only greedy: expected 1 or none", param=name)
        for name in ("stream", "stop", "suffix"):
            if getattr(self, name):
                raise RefusedError(400, "this server does not support that", param=name)

    def prompts(self) -> list[str | list[int]]:
        """Return the prompts, all texts or all token ids, none empty."""
        given: Any = self.prompt
        if isinstance(given, str) or (given and all(isinstance(it, int) for it in given)):
            given = [given]
        kinds = {type(it) for it in given}
        if len(kinds) != 1 or not all(given):
            raise RefusedError(
                400,
                "expected one or several prompts, texts or token ids, not empty",
                param="prompt",
            )
        if len(given) > MAX_PROMPTS:
            raise RefusedError(400, f"at most {MAX_PROMPTS} prompts", param="prompt")
        count = sum(len(it) for it in given if not isinstance(it, str))
        if count > MAX_DECODED_TOKENS:
            raise RefusedError(
                413,
                f"{count} tokens, over {MAX_DECODED_TOKENS}: send them in parts",
                param="prompt",
            )
        prompts: list[str | list[int]] = given
        return prompts

    @property
    def most_tokens(self) -> int:
        """The limit of tokens to generate."""
        return DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens


def _refuse_images(data: object) -> None:
    if data:
        raise RefusedError(400, "this server takes no images", param="multi_modal_data")


def require_short(*texts: str) -> None:
    """Refuse texts that are too large to tokenise.

    Raises:
        RefusedError: they are.
    """
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    if size > MAX_TEXT_BYTES:
        raise RefusedError(
            413,
            f"the text is {size} bytes, over {MAX_TEXT_BYTES}: send it in parts",
            param="prompt",
        )


class TokenizeRequest(Struct):
    """``POST /tokenize``."""

    prompt: str
    model: str | None = None


class DetokenizeRequest(Struct):
    """``POST /detokenize``."""

    tokens: list[TokenId]
    model: str | None = None

    def check(self) -> None:
        """Refuse more tokens than are decoded at once."""
        if len(self.tokens) > MAX_DECODED_TOKENS:
            many = f"{len(self.tokens)} tokens, over {MAX_DECODED_TOKENS}: send them in parts"
            raise RefusedError(413, many, param="tokens")


MAX_BYTES = 16 * 2**20
"""Size of a request's body; ``POST /v1/train`` takes more."""

LARGE_BYTES = 2**20
"""Size from which on only few bodies are read at once, so that together they are bounded."""

LARGE_BODIES = web.AppKey("large_bodies", asyncio.Semaphore)
"""The turns of large bodies, of one application."""

LARGE_AT_ONCE = 4


async def read_request(
    request: web.Request, kind: type[T], limit_s: float, max_bytes: int = MAX_BYTES
) -> T:
    """Read the body as ``kind``.

    ``limit_s`` includes the wait for a turn, where the body is large.

    Raises:
        RefusedError: it is not JSON, does not fit ``kind``, or did not arrive in time.
    """
    if request.content_type != "application/json":
        # A web page cannot send this type to another server unasked.
        raise RefusedError(415, "expected Content-Type: application/json")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise RefusedError(415, "expected a body that is not compressed")
    try:
        async with asyncio.timeout(limit_s):
            raw = await _read_body(request, max_bytes)
    except TimeoutError:
        raise RefusedError(408, f"the body did not arrive within {limit_s:g} s") from None
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        at = re.search(r" - at `\$\.?(.*)`$", str(error))
        missing = re.search(r"missing required field `(\w+)`", str(error))
        param = at[1] if at else missing[1] if missing else None
        raise RefusedError(400, str(error), param=param) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RefusedError(400, "the body is not JSON") from None


async def _read_body(request: web.Request, max_bytes: int) -> bytes:
    if not request.can_read_body:
        # There is none, or a middleware has read it.
        return await request.read()
    limited = request.clone(client_max_size=min(max_bytes, request.client_max_size))
    length = request.content_length
    if length is not None and length < LARGE_BYTES:
        return await limited.read()
    if length is not None and length > limited.client_max_size:
        raise web.HTTPRequestEntityTooLarge(limited.client_max_size, length)
    async with request.app[LARGE_BODIES]:
        return await limited.read()
