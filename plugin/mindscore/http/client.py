"""JSON over HTTP to a model server: one session, bounded concurrency, retries, one deadline."""

from __future__ import annotations

import asyncio
import email.utils
import io
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from mindhooks import ScorerError, ScorerUnavailable
from mindscore._util.aio import Pace
from mindscore._util.errors import ConfigError
from mindscore._util.text import one_line
from mindscore.config.file import read_api_key
from mindscore.config.settings import ServerSettings
from mindscore.http.answers import LARGE, SAID, decode, excerpt
from mindscore.http.body import ACCEPTED, BrokenBodyError, EncodingError, read_body
from mindscore.http.secrets import Redactor, is_loopback

T = TypeVar("T")
R = TypeVar("R")

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


class UntrustedError(ScorerError):
    """There is no TLS connection to whom the address names: nothing was sent."""

    arrived = False


class RefusedError(ScorerError):
    """The server answered with a ``status`` that no further attempt would change."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class WireClient:
    """Asks one server, in JSON.

    Raises:
        ConfigError: ``server.base_url`` is no address, the API key cannot be read, or it would be
            sent in the clear.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.base_url = checked_address(settings.base_url)
        self._settings = settings
        self._key = read_api_key(settings)
        if self._key is not None and not settings.allow_insecure:
            _require_privacy(self.base_url)
        self._redacted = Redactor(self._key)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self.pace = Pace()
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self,
        path: str,
        body: Mapping[str, Any],
        answer: type[T],
        *,
        repeat: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """Post ``body`` and return what the server answers, decoded as the type ``answer``.

        Failures that may pass are tried again, with exponential jittered pauses or the one that
        the server asks for, at most ``max_attempts`` times and for ``deadline_s``; with ``repeat``
        false, only those where the body cannot have arrived.

        Raises:
            ScorerError: names the address, what went wrong, and what to do about it.
        """
        return await self.ask(path, body, answer, _as_it_is, repeat=repeat, headers=headers)

    async def ask(
        self,
        path: str,
        body: Mapping[str, Any],
        answer: type[T],
        read: Callable[[T], Awaitable[R]],
        *,
        repeat: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> R:
        """As ``post``, and what ``read`` makes of the answer.

        Raises:
            ScorerError: as ``post``, and what ``read`` raises.
        """
        data = msgspec.json.encode(body)
        sent = {"Content-Type": "application/json", **(headers or {})}
        return await self._ask("POST", path, data, answer, read, repeat, sent)

    async def get(self, path: str, answer: type[T]) -> T:
        """What the server has at ``path``, decoded as the type ``answer``; tried as a post is.

        Raises:
            ScorerError: names the address, what went wrong, and what to do about it.
        """
        return await self._ask("GET", path, None, answer, _as_it_is, True, {})

    def quote(self, text: str, *, is_cut: bool = False) -> str:
        """What a server said, in a short line, without the key should it repeat it.

        ``is_cut``: the end of ``text`` is missing.
        """
        return one_line(self._redacted(text, is_cut=is_cut), EXCERPT)

    async def _ask(
        self,
        method: str,
        path: str,
        data: bytes | None,
        answer: type[T],
        read: Callable[[T], Awaitable[R]],
        repeat: bool,
        headers: Mapping[str, str],
    ) -> R:
        url = self.base_url + path
        raw = await self._answer_of(method, url, data, repeat, headers)
        if len(raw) >= LARGE:
            await self.pace.yield_to_loop()
        return await read(decode(url, raw, answer, self.quote))

    async def _answer_of(
        self, method: str, url: str, data: bytes | None, repeat: bool, headers: Mapping[str, str]
    ) -> bytearray:
        """The body of the first answer that is none of a failure that may pass."""
        failures: list[BaseException] = []
        async with self._slots:
            deadline = time.monotonic() + self._settings.deadline_s
            attempts = AsyncRetrying(
                stop=stop_after_attempt(self._settings.max_attempts),
                wait=lambda state: _pause(state, deadline - time.monotonic()),
                retry=retry_if_exception(lambda error: _again(error, repeat)),
                before_sleep=lambda state: failures.append(_failure(state)),
                reraise=True,
            )
            try:
                async with asyncio.timeout(self._settings.deadline_s):
                    raw: bytearray = await attempts(self._attempt, method, url, data, headers)
                    return raw
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

    async def _attempt(
        self, method: str, url: str, data: bytes | None, headers: Mapping[str, str]
    ) -> bytearray:
        try:
            return await self._exchange(method, url, data, headers)
        except (
            *(OSError, aiohttp.ClientError, ValueError),
            *(BrokenBodyError, EncodingError),
        ) as error:
            failure = self._told(url, error)
        # Outside, so that it has no context: aiohttp's errors hold the request's headers, and with
        # them the key.
        raise failure

    async def _exchange(
        self, method: str, url: str, data: bytes | None, headers: Mapping[str, str]
    ) -> bytearray:
        async with self._open_session().request(
            method,
            url,
            # A stream: given bytes, aiohttp writes a large body in one go.
            data=None if data is None else io.BytesIO(data),
            headers=headers,
            # A redirect must not carry a conversation, or the key, elsewhere.
            allow_redirects=False,
        ) as response:
            if not 200 <= response.status < 300:
                raise await self._refusal(url, response)
            most = self._settings.max_response_mb * 2**20
            if (response.content_length or 0) <= most:
                raw, is_cut = await read_body(response, most)
                if not is_cut:
                    return raw
            raise ScorerError(
                f"{url}: the answer is over {self._settings.max_response_mb} MiB "
                "(server.max_response_mb): does server.scorer fit this server?"
            )

    def _told(self, url: str, error: Exception) -> ScorerError:
        """What to say of an attempt that failed without an answer, or within one.

        Not what aiohttp says: it quotes what the server sent, in ways that hide a key from being
        recognised.
        """
        if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)):
            return UntrustedError(f"{url}: no trusted TLS connection: {self.quote(str(error))}")
        if isinstance(error, aiohttp.ClientConnectorError):
            why = self.quote(error.os_error.strerror or str(error.os_error))
            return RetriableError(
                f"{url}: cannot connect ({why}): is the server running, and server.base_url right?",
                arrived=False,
            )
        if isinstance(error, TimeoutError):
            return RetriableError(
                f"{url}: no answer within {self._settings.timeout_s:g} s (server.timeout_s)"
            )
        if isinstance(error, BrokenBodyError):
            return RetriableError(f"{url}: the answer is broken: {self.quote(str(error))}")
        if isinstance(error, (OSError, aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)):
            why = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
            return RetriableError(f"{url}: the connection broke ({self.quote(why)})")
        if isinstance(error, EncodingError):
            return ScorerError(
                f"{url}: cannot read the answer ({self.quote(str(error))}): only {ACCEPTED} was "
                "asked for; is server.base_url right?"
            )
        if isinstance(error, ValueError):
            # Of aiohttp, yarl or the codec for host names.
            return ScorerError(f"{url}: no server can have that address; is server.base_url right?")
        return ScorerError(
            f"{url}: what it answers is no proper HTTP ({type(error).__name__}); "
            "does server.base_url name a model server?"
        )

    async def _refusal(self, url: str, response: aiohttp.ClientResponse) -> ScorerError:
        status = response.status
        said = f"{url}: HTTP {status} {self.quote(response.reason or '')}: "
        said = (said + await self._said_in(response)).rstrip(": ")
        if status in RETRIED_STATUSES or status >= 500:
            pause_s = _retry_after(response.headers.get("Retry-After"))
            return RetriableError(said, pause_s=pause_s, status=status)
        if 300 <= status < 400:
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

    async def _said_in(self, response: aiohttp.ClientResponse) -> str:
        """What the body of a refusal says, if it can be read."""
        try:
            raw, is_cut = await read_body(response, SAID)
        except (BrokenBodyError, EncodingError, aiohttp.ClientPayloadError):
            return ""
        return excerpt(raw, self.quote, is_cut=is_cut)

    def _open_session(self) -> aiohttp.ClientSession:
        # On first use: a session needs the running loop.
        if self._session is None:
            authorization = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            self._session = aiohttp.ClientSession(
                headers={"Accept-Encoding": ACCEPTED, **authorization},
                timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s),
                # It would inflate without a limit.
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
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
    if "@" in base_url:
        raise ConfigError(
            "server.base_url: expected an address without user and password; "
            "a key comes from server.api_key_env or server.api_key_file"
        )
    try:
        parts = urlsplit(base_url)
        is_address = bool(parts.scheme in ("http", "https") and parts.hostname and parts.port != 0)
    except ValueError:
        is_address = False
    if not is_address or not base_url.isprintable():
        raise ConfigError(
            f"server.base_url: expected the server's http:// or https:// address, got {base_url!r}"
        )
    if parts.query or parts.fragment:
        raise ConfigError(
            "server.base_url: expected an address without query or fragment; "
            "a key comes from server.api_key_env or server.api_key_file"
        )
    return base_url.rstrip("/")


def _require_privacy(base_url: str) -> None:
    parts = urlsplit(base_url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ConfigError(
            f"server.base_url: {base_url} is plain http, over which anybody on the way reads the "
            "API key: use https, or set server.allow_insecure = true, or set no key"
        )


async def _as_it_is(answer: T) -> T:
    return answer


def _again(error: BaseException, repeat: bool) -> bool:
    return isinstance(error, RetriableError) and (repeat or not error.arrived)


def _pause(state: RetryCallState, left_s: float) -> float:
    """Seconds to the next attempt, when there are ``left_s`` to the deadline."""
    error = _failure(state)
    asked = error.pause_s if isinstance(error, RetriableError) else None
    pause_s = _backoff(state) if asked is None else asked
    # A server that asks for more than there is may answer before that nevertheless.
    return pause_s if pause_s < left_s else max(0.0, left_s / 2)


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
        date = email.utils.parsedate_to_datetime(header)
        # A zone of -0000 is UTC too.
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, seconds - time.time())
