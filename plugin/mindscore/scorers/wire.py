"""JSON over HTTP to a model server: one session, bounded concurrency, retries, one deadline."""

from __future__ import annotations

import asyncio
import email.utils
import io
import time
from collections.abc import Mapping
from typing import Any, TypeVar

import aiohttp
import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from mindhooks import ScorerError
from mindscore.config import ServerSettings
from mindscore.config_file import read_api_key
from mindscore.errors import ConfigError

T = TypeVar("T")

RETRIED_STATUSES = frozenset({408, 425, 429})
EXCERPT = 200
_backoff = wait_random_exponential(multiplier=0.5, max=30)


class RetriableError(ScorerError):
    """An attempt failed in a way that the next one may not.

    ``pause_s`` is what the server asked for in ``Retry-After``; ``arrived`` is false when the
    request's body cannot have reached it.
    """

    def __init__(self, message: str, *, pause_s: float | None = None, arrived: bool = True) -> None:
        super().__init__(message)
        self.pause_s = pause_s
        self.arrived = arrived


class WireClient:
    """Posts JSON to one server.

    Raises:
        ConfigError: ``server.base_url`` is no address, or the API key cannot be read.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.base_url = settings.base_url.rstrip("/")
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"server.base_url: expected the server's http:// or https:// address, "
                f"got {settings.base_url!r}"
            )
        self._settings = settings
        self._key = read_api_key(settings)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self, path: str, body: Mapping[str, Any], answer: type[T], *, repeat: bool = True
    ) -> T:
        """Post ``body`` and return what the server answers, decoded as the type ``answer``.

        Failures that may pass are tried again, with exponential jittered pauses or the one that
        the server asks for, at most ``max_attempts`` times and for ``deadline_s``; with ``repeat``
        false, only those where the body cannot have arrived.

        Raises:
            ScorerError: names the address, what went wrong, and what to do about it.
        """
        url, data = self.base_url + path, msgspec.json.encode(body)
        async with self._slots:
            deadline = time.monotonic() + self._settings.deadline_s
            attempts = AsyncRetrying(
                stop=stop_after_attempt(self._settings.max_attempts),
                wait=_pause,
                retry=retry_if_exception(lambda error: _again(error, repeat, deadline)),
                reraise=True,
            )
            try:
                async with asyncio.timeout(self._settings.deadline_s):
                    raw: bytes = await attempts(self._attempt, url, data)
            except TimeoutError:
                raise ScorerError(
                    f"{url}: no answer within {self._settings.deadline_s:g} s, retries included "
                    "(server.deadline_s)"
                ) from None
        return decode(url, raw, answer)

    async def _attempt(self, url: str, data: bytes) -> bytes:
        try:
            async with self._open_session().post(
                url,
                # A stream: given bytes, aiohttp writes a large body in one go.
                data=io.BytesIO(data),
                headers={"Content-Type": "application/json"},
                # A redirect must not carry a conversation, or the key, elsewhere.
                allow_redirects=False,
            ) as response:
                if response.status < 300:
                    return await response.read()
                raise _refusal(url, response, await response.read(), self._settings)
        except aiohttp.ClientConnectorError as error:
            raise RetriableError(
                f"{url}: cannot connect ({error.os_error.strerror or error.os_error}): "
                "is the server running, and server.base_url right?",
                arrived=False,
            ) from error
        except TimeoutError as error:
            raise RetriableError(
                f"{url}: no answer within {self._settings.timeout_s:g} s (server.timeout_s)"
            ) from error
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            raise RetriableError(f"{url}: the connection broke: {error}") from error
        except aiohttp.ClientError as error:
            raise ScorerError(f"{url}: {type(error).__name__}: {error}") from error

    def _open_session(self) -> aiohttp.ClientSession:
        # On first use: a session needs the running loop.
        if self._session is None:
            authorization = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            self._session = aiohttp.ClientSession(
                headers=authorization,
                timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s),
            )
        return self._session

    async def aclose(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def decode(url: str, raw: bytes, answer: type[T]) -> T:
    """A server's JSON as ``answer``; an ``error`` in it is raised, whatever the status was.

    Raises:
        ScorerError: names the address, the field and what was expected.
    """
    try:
        if failure := msgspec.json.decode(raw, type=_Failure).error:
            raise ScorerError(f"{url}: the server failed: {_text_of(failure)}")
        return msgspec.json.decode(raw, type=answer)
    except msgspec.ValidationError as error:
        raise ScorerError(
            f"{url}: unexpected answer: {error}; does server.scorer fit this server?"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        if b"NaN" in raw or b"Infinity" in raw:
            raise ScorerError(
                f"{url}: the answer holds NaN or Infinity: the model or its number format is broken"
            ) from None
        raise ScorerError(
            f"{url}: the answer is not JSON but {_excerpt(raw)!r}; is server.base_url right?"
        ) from None


class _Failure(msgspec.Struct):
    error: Any = None


def _refusal(
    url: str, response: aiohttp.ClientResponse, raw: bytes, settings: ServerSettings
) -> ScorerError:
    status = response.status
    said = f"{url}: HTTP {status} {response.reason}: {_excerpt(raw)}".rstrip(": ")
    if status in RETRIED_STATUSES or status >= 500:
        return RetriableError(said, pause_s=_retry_after(response.headers.get("Retry-After")))
    hint = {
        401: f"set the key in ${settings.api_key_env} or server.api_key_file",
        403: f"is the key in ${settings.api_key_env} or server.api_key_file the right one?",
        404: "are server.base_url and server.scorer right?",
    }.get(status)
    if 300 <= status < 400:
        where = response.headers.get("Location", "elsewhere")
        hint = f"redirects to {where!r} are not followed; set server.base_url"
    return ScorerError(f"{said}; {hint}" if hint else said)


def _again(error: BaseException, repeat: bool, deadline: float) -> bool:
    if not isinstance(error, RetriableError) or (error.arrived and not repeat):
        return False
    return time.monotonic() + (error.pause_s or 0) < deadline


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.pause_s if isinstance(error, RetriableError) else None
    return asked if asked is not None else _backoff(state)


def _retry_after(header: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, given as seconds or as a date."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def _excerpt(raw: bytes) -> str:
    try:
        failure = msgspec.json.decode(raw, type=_Failure).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        failure = None
    text = _text_of(failure) if failure else raw.decode("utf-8", "replace")
    text = " ".join(text.split())
    return text if len(text) <= EXCERPT else text[:EXCERPT] + "…"


def _text_of(failure: Any) -> str:
    message = failure.get("message") if isinstance(failure, dict) else failure
    return message if isinstance(message, str) else str(failure)
