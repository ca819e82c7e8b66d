"""JSON over HTTP to a model server: one session, bounded concurrency, retries, one deadline."""

from __future__ import annotations

import asyncio
import email.utils
import io
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from mindhooks import ScorerError
from mindscore.config import ServerSettings
from mindscore.config_file import read_api_key
from mindscore.errors import ConfigError
from mindscore.text import one_line

T = TypeVar("T")
Quote = Callable[[str], str]

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
        self.base_url = _checked_address(settings.base_url)
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
        failures: list[BaseException] = []
        async with self._slots:
            deadline = time.monotonic() + self._settings.deadline_s
            attempts = AsyncRetrying(
                stop=stop_after_attempt(self._settings.max_attempts),
                wait=_pause,
                retry=retry_if_exception(lambda error: _again(error, repeat, deadline)),
                before_sleep=lambda state: failures.append(_failure(state)),
                reraise=True,
            )
            try:
                async with asyncio.timeout(self._settings.deadline_s):
                    raw: bytes = await attempts(self._attempt, url, data)
            except RetriableError as error:
                if not failures:
                    raise
                tried = f"given up after {len(failures) + 1} attempts (server.max_attempts)"
                raise ScorerError(f"{error}; {tried}") from error
            except TimeoutError:
                last = f"; the last attempt: {failures[-1]}" if failures else ": no answer"
                limit = f"{self._settings.deadline_s:g} s (server.deadline_s)"
                raise ScorerError(f"{url}: given up after {limit}{last}") from None
        return _decode(url, raw, answer, self._quote)

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
                raise self._refusal(url, response, await response.read())
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError) as error:
            raise ScorerError(
                f"{url}: no trusted TLS connection: {self._quote(str(error))}"
            ) from error
        except aiohttp.ClientConnectorError as error:
            why = self._quote(error.os_error.strerror or str(error.os_error))
            raise RetriableError(
                f"{url}: cannot connect ({why}): is the server running, and server.base_url right?",
                arrived=False,
            ) from error
        except TimeoutError as error:
            raise RetriableError(
                f"{url}: no answer within {self._settings.timeout_s:g} s (server.timeout_s)"
            ) from error
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            raise RetriableError(
                f"{url}: the connection broke: {self._quote(str(error))}"
            ) from error
        except aiohttp.ClientError as error:
            text = self._quote(f"{type(error).__name__}: {error}")
            raise ScorerError(
                f"{url}: {text}; does server.base_url name a model server?"
            ) from error

    def _refusal(self, url: str, response: aiohttp.ClientResponse, raw: bytes) -> ScorerError:
        status = response.status
        said = f"{url}: HTTP {status} {self._quote(response.reason or '')}: "
        said = (said + _excerpt(raw, self._quote)).rstrip(": ")
        if status in RETRIED_STATUSES or status >= 500:
            return RetriableError(said, pause_s=_retry_after(response.headers.get("Retry-After")))
        if status < 400:
            where = self._quote(response.headers.get("Location", "elsewhere"))
            return ScorerError(
                f"{said}; redirects to {where!r} are not followed; set server.base_url"
            )
        key = f"${self._settings.api_key_env} or server.api_key_file"
        misfit = "do server.scorer and server.model fit this server?"
        hints = {
            401: f"set the key in {key}",
            403: f"is the key in {key} the right one?",
            404: "are server.base_url and server.scorer right?",
            413: "the conversation is too large for this server: raise its limit",
        }
        return ScorerError(f"{said}; {hints.get(status, misfit)}")

    def _quote(self, text: str) -> str:
        """What a server said, in a short line, without the key should it repeat it."""
        return one_line(text.replace(self._key, "[key]") if self._key else text, EXCERPT)

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


def _checked_address(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        is_address = bool(parts.scheme in ("http", "https") and parts.hostname and parts.port != 0)
    except ValueError:
        is_address = False
    if not is_address or not base_url.isprintable():
        raise ConfigError(
            f"server.base_url: expected the server's http:// or https:// address, got {base_url!r}"
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(
            "server.base_url: expected an address without user, password, query or fragment; "
            "a key comes from server.api_key_env or server.api_key_file"
        )
    return base_url.rstrip("/")


def _decode(url: str, raw: bytes, answer: type[T], quote: Quote) -> T:
    """A server's JSON as ``answer``; an ``error`` in it is raised, whatever the status was."""
    try:
        if (failure := msgspec.json.decode(raw, type=_Failure).error) is not None:
            raise ScorerError(f"{url}: the server failed: {quote(_text_of(failure))}")
        return msgspec.json.decode(raw, type=answer)
    except msgspec.ValidationError as error:
        if "out of range" in str(error):
            said = quote(str(error))
            raise ScorerError(
                f"{url}: {said}: not finite: the model or its number format is broken"
            ) from None
        raise ScorerError(
            f"{url}: unexpected answer: {quote(str(error))}; does server.scorer fit this server?"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if b"NaN" in raw or b"Infinity" in raw:
            raise ScorerError(
                f"{url}: the answer holds NaN or Infinity: the model or its number format is broken"
            ) from None
        raise ScorerError(
            f"{url}: the answer is not JSON but {_excerpt(raw, quote)!r}; is server.base_url right?"
        ) from None


class _Failure(msgspec.Struct):
    error: Any = None


def _again(error: BaseException, repeat: bool, deadline: float) -> bool:
    if not isinstance(error, RetriableError) or (error.arrived and not repeat):
        return False
    return time.monotonic() + (error.pause_s or 0) < deadline


def _pause(state: RetryCallState) -> float:
    error = _failure(state)
    asked = error.pause_s if isinstance(error, RetriableError) else None
    return asked if asked is not None else _backoff(state)


def _failure(state: RetryCallState) -> BaseException:
    """What the attempt that has just ended raised."""
    error = state.outcome.exception() if state.outcome else None
    return error or ScorerError("no attempt was made")


def _retry_after(header: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, given as seconds or as a date."""
    if header is None:
        return None
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*", header, flags=re.ASCII):
        return float(header)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _excerpt(raw: bytes, quote: Quote) -> str:
    """What a body says, or the beginning of it."""
    try:
        failure = msgspec.json.decode(raw, type=_Failure).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        failure = None
    return quote(_text_of(failure) if failure else raw.decode("utf-8", "replace"))


def _text_of(failure: Any) -> str:
    message = failure.get("message") if isinstance(failure, dict) else failure
    return message if isinstance(message, str) else str(failure)
