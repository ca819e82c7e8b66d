"""The endpoints that take turns: OpenTelemetry's, and a plain one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from mindhooks import in_thread
from mindscore._util.errors import ErrorLog, StoreError, TranscriptError
from mindscore._util.text import count_of, printable, shortened
from mindscore.collect import otlp
from mindscore.collect.queue import CollectedTurns, QueueFullError
from mindscore.collect.turns import Turn, TurnRequest, turn_of, turn_of_span
from mindscore.http.bodies import body_of, content_encoding, read_request
from mindscore.http.refusals import RefusedError, json_response
from mindscore.http.request_queue import RequestQueue

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

BODY_TIMEOUT_S = 60.0

MAX_REQUESTS = 64
"""Requests that wait to be stored."""

RETRY_AFTER_S = 30
"""Seconds after which a sender is asked to try again, where there was no room."""

TRACES = "/v1/traces"

WITHOUT_TEXT = (
    "of requests to a model without their messages: have the instrumentation record them "
    "(OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT)"
)

ID_TAKEN = "another span of that id said something else"

REASON_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Taken:
    """The spans of a request that were not taken, and a line on them and on others."""

    rejected: int
    message: str


class CollectEndpoints:
    """The endpoints over one queue, which ``idle_s`` is for."""

    def __init__(
        self, turns: CollectedTurns, *, idle_s: float, memory_attribute: str | None
    ) -> None:
        self._turns = turns
        self._idle_s = idle_s
        self._memory_attribute = memory_attribute
        self._storing = RequestQueue(MAX_REQUESTS)
        self._log = ErrorLog("mindscore.collect")

    def routes(self) -> list[web.RouteDef]:
        """Return the method, path and handler of each endpoint."""
        return [
            web.post(f"{TRACES}{{slash:/?}}", self.traces),
            web.post("/v1/turns{slash:/?}", self.turns),
            web.get("/v1/health", self.health),
        ]

    async def health(self, _: web.Request) -> web.Response:
        """Say that the server is up, and how much waits."""
        found = await in_thread(self._turns.waiting)
        return json_response(
            {
                "status": "ok",
                "waiting": found.turns,
                "conversations": found.conversations,
                "bytes": found.size,
            }
        )

    async def traces(self, request: web.Request) -> web.Response:
        """Store the turns that spans record; the answer counts those that cannot be read."""
        kind = request.content_type
        if kind not in (otlp.JSON, otlp.PROTOBUF):
            raise RefusedError(415, f"expected Content-Type: {otlp.PROTOBUF} or {otlp.JSON}")
        async with (
            body_of(request, BODY_TIMEOUT_S, otlp.MAX_BYTES) as raw,
            self._storing.turn(),
        ):
            encoding = content_encoding(request)
            taken = await in_thread(lambda: self._take(raw, encoding, kind))
        if taken.message:
            self._log.warn(taken.message)
        body = otlp.encode_answer(kind, taken.rejected, taken.message)
        return web.Response(body=body, content_type=kind)

    async def turns(self, request: web.Request) -> web.Response:
        """Store one turn; 202 says that it is new, 200 that it was there.

        409: another turn of the conversation has its id.
        """
        asked = await read_request(request, TurnRequest, BODY_TIMEOUT_S, repair=True)

        def work() -> tuple[str, bool, int]:
            try:
                turn = turn_of(asked)
            except (ValueError, TranscriptError, RecursionError) as error:
                raise RefusedError(400, _reason(error)) from None
            [is_new] = self._put([turn])
            if is_new is None:
                raise RefusedError(409, "another turn of this conversation has that id", param="id")
            return turn.id, is_new, self._turns.waiting().turns

        async with self._storing.turn():
            id_, is_new, waiting = await in_thread(work)
        return json_response({"turn": id_, "waiting": waiting}, 202 if is_new else 200)

    def _take(self, raw: bytes, encoding: str, kind: str) -> Taken:
        """Do the work of ``traces``, in a thread."""
        reasons = Counter[str]()
        turns: list[Turn] = []
        unsaid = 0
        for span in otlp.split(otlp.decompress(raw, encoding), kind):
            try:
                found = turn_of_span(otlp.read_span(span, kind), self._memory_attribute)
            except (ValueError, TranscriptError, RecursionError) as error:
                reasons[_reason(error)] += 1
                continue
            if isinstance(found, Turn):
                turns.append(found)
            elif found.asks_model:
                unsaid += 1
        if turns and (taken := self._put(turns).count(None)):
            reasons[ID_TAKEN] += taken
        rejected = reasons.total()
        lines = []
        if rejected:
            [(why, _)] = reasons.most_common(1)
            lines.append(f"{count_of(rejected, 'span')} rejected, such as: {why}")
        if unsaid:
            lines.append(f"{count_of(unsaid, 'span')} {WITHOUT_TEXT}")
        return Taken(rejected, "; ".join(lines))

    def _put(self, turns: list[Turn]) -> list[bool | None]:
        again = {"Retry-After": str(RETRY_AFTER_S)}
        try:
            return self._turns.put(turns, self._idle_s)
        except QueueFullError as error:
            if error.alone:
                raise RefusedError(413, "larger than all that may wait: --queue-mb") from None
            full = f"the queue is full (--queue-mb); try again in {RETRY_AFTER_S} s"
            raise RefusedError(429, full, headers=again) from None
        except StoreError as error:
            self._log.warn(str(error))
            raise RefusedError(503, "the queue cannot be written", headers=again) from None


def _reason(error: Exception) -> str:
    words = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return shortened(printable(words), REASON_CHARACTERS)


def errors_of_otlp() -> Callable[..., Any]:
    """Return the middleware that answers OTLP's errors as OTLP has them."""

    @web.middleware
    async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.rstrip("/") != TRACES:
            return await handler(request)
        kind = otlp.PROTOBUF if request.content_type == otlp.PROTOBUF else otlp.JSON
        try:
            return await handler(request)
        except RefusedError as error:
            status, message, headers = error.status, str(error), error.headers
        except web.HTTPRequestEntityTooLarge:
            status, message, headers = 413, f"the body is over {otlp.MAX_BYTES} bytes", None
        body = otlp.encode_status(kind, message)
        return web.Response(body=body, status=status, headers=headers, content_type=kind)

    return answered
