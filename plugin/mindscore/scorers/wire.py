"""JSON over HTTP to a model server: one session, bounded concurrency, retries, one deadline."""

from __future__ import annotations

import asyncio
import email.utils
import io
import re
import time
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from mindhooks import ScorerError, ScorerUnavailable, in_thread
from mindscore.config import ServerSettings
from mindscore.config_file import read_api_key
from mindscore.errors import ConfigError
from mindscore.scorers.answers import LARGE, decode, excerpt
from mindscore.text import one_line

T = TypeVar("T")

RETRIED_STATUSES = frozenset({408, 425, 429})
EXCERPT = 200
_backoff = wait_random_exponential(multiplier=0.5, max=30)


class RetriableError(ScorerUnavailable):
    """An attempt failed in a way that the next one may not; at the end of a call: all of them did.

    ``pause_s`` is what the server asked for in ``Retry-After``; ``arrived`` is false when the
    request's body cannot have reached it; ``status`` is ``None`` when there was no answer.
    """

    def __init__(
        self,
        message: str,
        *,
        pause_s: float | None = None,
        arrived: bool = True,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.pause_s = pause_s
        self.arrived = arrived
        self.status = status


class RefusedError(ScorerError):
    """The server answered with a ``status`` that no further attempt would change."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class WireClient:
    """Asks one server, in JSON.

    Raises:
        ConfigError: ``server.base_url`` is no address, or the API key cannot be read.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.base_url = checked_address(settings.base_url)
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
        return await self._ask("POST", path, msgspec.json.encode(body), answer, repeat)

    async def get(self, path: str, answer: type[T]) -> T:
        """What the server has at ``path``, decoded as the type ``answer``; tried as a post is.

        Raises:
            ScorerError: names the address, what went wrong, and what to do about it.
        """
        return await self._ask("GET", path, None, answer, True)

    def quote(self, text: str) -> str:
        """What a server said, in a short line, without the key should it repeat it."""
        return one_line(text.replace(self._key, "[key]") if self._key else text, EXCERPT)

    async def _ask(
        self, method: str, path: str, data: bytes | None, answer: type[T], repeat: bool
    ) -> T:
        url = self.base_url + path
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
                    raw: bytes = await attempts(self._attempt, method, url, data)
            except RetriableError as error:
                if not failures:
                    raise
                tried = f"given up after {len(failures) + 1} attempts (server.max_attempts)"
                raise RetriableError(
                    f"{error}; {tried}", arrived=error.arrived, status=error.status
                ) from error
            except TimeoutError:
                last = f"; the last attempt: {failures[-1]}" if failures else ": no answer"
                limit = f"{self._settings.deadline_s:g} s (server.deadline_s)"
                raise RetriableError(f"{url}: given up after {limit}{last}") from None
        if len(raw) < LARGE:
            return decode(url, raw, answer, self.quote)
        return await in_thread(decode, url, raw, answer, self.quote)

    async def _attempt(self, method: str, url: str, data: bytes | None) -> bytes:
        try:
            async with self._open_session().request(
                method,
                url,
                # A stream: given bytes, aiohttp writes a large body in one go.
                data=None if data is None else io.BytesIO(data),
                headers={} if data is None else {"Content-Type": "application/json"},
                # A redirect must not carry a conversation, or the key, elsewhere.
                allow_redirects=False,
            ) as response:
                if response.status < 300:
                    return await response.read()
                raise self._refusal(url, response, await response.read())
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError) as error:
            raise ScorerError(
                f"{url}: no trusted TLS connection: {self.quote(str(error))}"
            ) from error
        except aiohttp.ClientConnectorError as error:
            why = self.quote(error.os_error.strerror or str(error.os_error))
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
                f"{url}: the connection broke: {self.quote(str(error))}"
            ) from error
        except aiohttp.ClientError as error:
            text = self.quote(f"{type(error).__name__}: {error}")
            raise ScorerError(
                f"{url}: {text}; does server.base_url name a model server?"
            ) from error

    def _refusal(self, url: str, response: aiohttp.ClientResponse, raw: bytes) -> ScorerError:
        status = response.status
        said = f"{url}: HTTP {status} {self.quote(response.reason or '')}: "
        said = (said + excerpt(raw, self.quote)).rstrip(": ")
        if status in RETRIED_STATUSES or status >= 500:
            pause_s = _retry_after(response.headers.get("Retry-After"))
            return RetriableError(said, pause_s=pause_s, status=status)
        if status < 400:
            where = self.quote(response.headers.get("Location", "elsewhere"))
            return RefusedError(
                f"{said}; redirects to {where!r} are not followed; set server.base_url", status
            )
        key = f"${self._settings.api_key_env} or server.api_key_file"
        misfit = "do server.scorer and server.model fit this server?"
        hints = {
            401: f"set the key in {key}",
            403: f"is the key in {key} the right one?",
            404: "are server.base_url, server.scorer and server.model right?",
            413: "the conversation is too large for this server: raise its limit",
        }
        return RefusedError(f"{said}; {hints.get(status, misfit)}", status)

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


def checked_address(base_url: str) -> str:
    """``base_url`` without a slash at its end.

    Raises:
        ConfigError: it is no address of a server.
    """
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
