"""Ask a model server in JSON over HTTP: one session, bounded concurrency, one attempt a call."""

from __future__ import annotations

import asyncio
import base64
import email.utils
import html
import io
import json
import re
import time
from collections.abc import Mapping
from datetime import UTC
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

import aiohttp
import msgspec

from mindhooks import ScorerError, ScorerUnavailable
from mindscore._util.aio import Pace
from mindscore._util.text import one_line
from mindscore.config.file import read_api_key
from mindscore.config.settings import ServerSettings
from mindscore.http.addresses import checked_address, require_privacy
from mindscore.http.addresses import is_loopback as is_loopback
from mindscore.http.answers import EXCERPT_BYTES, LARGE_BYTES, decode, excerpt
from mindscore.http.environment import Proxy, proxy_for, tls_context

HIDDEN = "[key]"


class Redactor:
    """Takes the API key out of texts, plain or as JSON, Python, HTML, URLs and base64 write it.

    So it does with other ``secrets``.
    """

    def __init__(self, key: str | None, *secrets: str) -> None:
        forms = {form for it in (key, *secrets) if it for form in _forms(it)}
        self._forms = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._forms)), re.IGNORECASE)

    def __call__(self, text: str, *, is_cut: bool) -> str:
        """Return ``text`` without the key, nor its beginning at the end of a text cut off."""
        if not self._forms:
            return text
        text = self._pattern.sub(HIDDEN, text)
        return self._without_beginning(text) if is_cut else text

    def _without_beginning(self, text: str) -> str:
        lowered = text.lower()
        beginnings = (form[:length].lower() for form in self._forms for length in range(len(form)))
        cut = max(len(it) for it in beginnings if lowered.endswith(it))
        return text[: len(text) - cut]


def _forms(key: str) -> set[str]:
    """Return what the key may be written as."""
    encoded = base64.b64encode(key.encode()).decode().rstrip("=")
    escaped = {json.dumps(key)[1:-1], json.dumps(key).replace("/", r"\/")[1:-1]}
    escaped |= {repr(key)[1:-1], html.escape(key)}
    in_urls = {quote(key), quote(key, safe=""), quote_plus(key)}
    return {key, encoded, *escaped, *in_urls}


T = TypeVar("T")

PASSING_STATUSES = frozenset({408, 425, 429})
"""Statuses below 500 after which the same request may succeed later."""

EXCERPT_LENGTH = 200
CHUNK_BYTES = 2**16
"""Bytes that are read at once: to parse more, in the shapes that parse slowest, takes too long."""

SMALL_ANSWER_BYTES = 2**20
"""Size up to which any answer is read, whatever was asked for."""


class UnavailableError(ScorerUnavailable):
    """A request failed for a reason that may pass.

    ``arrived`` is false when the request's body cannot have reached the server; ``status`` is that
    of the answer, ``None`` when there was none; ``said`` is the server's reason.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        arrived: bool = True,
        status: int | None = None,
        said: str = "",
    ) -> None:
        super().__init__(message, retry_after)
        self.arrived = arrived
        self.status = status
        self.said = said


class UntrustedError(ScorerError):
    """There is no trusted connection to the server: nothing was sent."""


class StatusError(ScorerError):
    """The server answered with a ``status`` that no further attempt would change.

    ``said`` is the server's reason.
    """

    def __init__(self, message: str, status: int, said: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.said = said


class _Connector(aiohttp.TCPConnector):
    """Opens connections from which little is read at once."""

    async def connect(self, *args: Any, **kwargs: Any) -> aiohttp.connector.Connection:
        """Return a connection for a request."""
        connection = await super().connect(*args, **kwargs)
        # asyncio's own is 256 KiB: endless interim responses take 40 ms of parsing then.
        transport: Any = connection.transport
        if hasattr(transport, "max_size"):
            transport.max_size = CHUNK_BYTES
        return connection


class WireClient:
    """Asks one server, in JSON, with one attempt a call.

    Texts never have its API key, nor any of ``secrets`` that its requests hold.

    Raises:
        ConfigError: ``server.base_url`` is no address, the API key cannot be read, it would be sent
            in the clear, or the environment's proxy or certificates are not valid.
    """

    def __init__(self, settings: ServerSettings, *secrets: str) -> None:
        self.base_url = checked_address(settings.base_url)
        self._settings = settings
        self._key = read_api_key(settings)
        if self._key is not None and not settings.allow_insecure:
            require_privacy(self.base_url)
        self._proxy = proxy_for(self.base_url)
        self._redact = Redactor(self._key, *secrets, *(self._proxy.secrets if self._proxy else ()))
        self._is_tls = self.base_url.startswith("https:")
        is_proxy_tls = self._proxy is not None and self._proxy.url.startswith("https:")
        self._tls = tls_context() if self._is_tls or is_proxy_tls else None
        self._headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        if self._proxy is not None and not self._is_tls:
            self._headers |= self._proxy.headers
        self._slots = asyncio.Semaphore(settings.concurrency)
        self.pace = Pace()
        self._session: aiohttp.ClientSession | None = None
        self.headers: Mapping[str, str] = {}
        """The headers of the last answer that was no refusal."""

    async def post(
        self,
        path: str,
        body: Mapping[str, Any],
        answer: type[T],
        *,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = SMALL_ANSWER_BYTES,
    ) -> T:
        """Post ``body`` and return the server's answer, decoded as the type ``answer``.

        No answer is read that is larger than ``max_bytes``, or than ``server.max_response_mb``.

        Raises:
            UnavailableError: the failure may pass.
            ScorerError: names the address, what went wrong, and what to do about it.
        """
        sent = {"Content-Type": "application/json", **(headers or {})}
        return await self._ask("POST", path, msgspec.json.encode(body), answer, sent, max_bytes)

    async def get(self, path: str, answer: type[T]) -> T:
        """Return what the server has at ``path``, decoded as the type ``answer``.

        Raises:
            UnavailableError: the failure may pass.
            ScorerError: names the address, what went wrong, and what to do about it.
        """
        return await self._ask("GET", path, None, answer, {}, SMALL_ANSWER_BYTES)

    async def get_text(self, path: str) -> str:
        """Return the text that the server has at ``path``; errors are those of ``get``."""
        raw = await self._fetch("GET", path, None, {}, SMALL_ANSWER_BYTES)
        return raw.decode("utf-8", "replace")

    def quote(self, text: str, *, is_cut: bool = False) -> str:
        """Return a server's words in a short line, without the key should it repeat it.

        ``is_cut``: the end of ``text`` is missing.
        """
        return one_line(self._redact(text, is_cut=is_cut), EXCERPT_LENGTH)

    async def _ask(
        self,
        method: str,
        path: str,
        data: bytes | None,
        answer: type[T],
        headers: Mapping[str, str],
        max_bytes: int,
    ) -> T:
        raw = await self._fetch(method, path, data, headers, max_bytes)
        if len(raw) >= LARGE_BYTES:
            await self.pace.yield_to_loop()
        return decode(self.base_url + path, raw, answer, self.quote)

    async def _fetch(
        self, method: str, path: str, data: bytes | None, headers: Mapping[str, str], max_bytes: int
    ) -> bytearray:
        url = self.base_url + path
        try:
            async with self._slots:
                return await self._exchange(method, url, data, headers, max_bytes)
        except (OSError, aiohttp.ClientError, ValueError) as error:
            failure = self._failure(url, error)
        # Outside, so that it has no context: aiohttp's errors hold the request's headers, and with
        # them the key.
        raise failure

    async def _exchange(
        self, method: str, url: str, data: bytes | None, headers: Mapping[str, str], max_bytes: int
    ) -> bytearray:
        async with self._open_session().request(
            method,
            url,
            # A stream: given bytes, aiohttp writes a large body in one go.
            data=None if data is None else io.BytesIO(data),
            # Not of the session: aiohttp sends that one's to proxies, too.
            headers={**self._headers, **headers},
            # A redirect must not carry a conversation, or the key, elsewhere.
            allow_redirects=False,
            # Not by trust_env, which reads passwords from ~/.netrc too.
            proxy=self._proxy.url if self._proxy else None,
            proxy_headers=self._proxy.headers if self._proxy and self._is_tls else None,
        ) as response:
            if not 200 <= response.status < 300:
                raise await self._refusal(url, response)
            self.headers = response.headers.copy()
            encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
            if encoding not in ("", "identity"):
                raise ScorerError(
                    f"{url}: the answer is compressed (Content-Encoding: {self.quote(encoding)}), "
                    "which was not asked for: have the server, or the proxy before it, send "
                    "answers as they are"
                )
            configured = self._settings.max_response_mb * 2**20
            limit = min(max_bytes, configured)
            if (response.content_length or 0) <= limit:
                raw, is_cut = await _read_body(response, limit)
                if not is_cut:
                    return raw
            why = "(server.max_response_mb)" if limit == configured else "for so short a request"
            raise ScorerError(
                f"{url}: the answer is over {limit / 2**20:.3g} MiB {why}: "
                "does server.scorer fit this server?"
            )

    def _failure(self, url: str, error: Exception) -> ScorerError:
        """Return the error for an attempt that failed without an answer, or within one.

        It does not repeat aiohttp's text, which quotes what the server sent in ways that hide a key
        from being recognised.
        """
        if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)):
            return UntrustedError(
                f"{url}: no trusted TLS connection: {self.quote(str(error))}; SSL_CERT_FILE or "
                "REQUESTS_CA_BUNDLE names the certificate of an authority of your own"
            )
        if self._proxy and isinstance(error, aiohttp.ClientProxyConnectionError):
            why = self.quote(error.os_error.strerror or str(error.os_error))
            return UnavailableError(
                f"{url}: cannot connect to the proxy {self._proxy.url} ({why}): is "
                f"{self._proxy.variable} right? NO_PROXY names hosts to reach without one",
                arrived=False,
            )
        if self._proxy and isinstance(error, aiohttp.ClientHttpProxyError):
            return self._proxy_refusal(url, self._proxy, error)
        if isinstance(error, aiohttp.ClientConnectorError):
            why = self.quote(error.os_error.strerror or str(error.os_error))
            return UnavailableError(
                f"{url}: cannot connect ({why}): is the server running, and server.base_url right?",
                arrived=False,
            )
        if isinstance(error, TimeoutError):
            return UnavailableError(
                f"{url}: no answer within {self._settings.timeout_s:g} s (server.timeout_s)"
            )
        if isinstance(error, (OSError, aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)):
            why = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
            return UnavailableError(f"{url}: the connection broke ({self.quote(why)})")
        if isinstance(error, ValueError):
            # Of aiohttp, yarl or the codec for host names.
            return ScorerError(f"{url}: no server can have that address; is server.base_url right?")
        return ScorerError(
            f"{url}: the answer is not proper HTTP ({type(error).__name__}); "
            "does server.base_url name a model server?"
        )

    def _proxy_refusal(
        self, url: str, proxy: Proxy, error: aiohttp.ClientHttpProxyError
    ) -> ScorerError:
        """Return the error for a proxy that makes no connection to the server."""
        reason = self.quote(error.message)
        said = f"{url}: the proxy {proxy.url} answers HTTP {error.status} {reason}".rstrip()
        if error.status in PASSING_STATUSES or error.status >= 500:
            return UnavailableError(said, arrived=False)
        hint = f"are its address, user and password in {proxy.variable} right?"
        return UntrustedError(f"{said}: {hint} NO_PROXY names hosts to reach without one")

    async def _refusal(self, url: str, response: aiohttp.ClientResponse) -> ScorerError:
        status = response.status
        reason = await self._excerpt(response)
        said = f"{url}: HTTP {status} {self.quote(response.reason or '')}: {reason}".rstrip(": ")
        if status in PASSING_STATUSES or status >= 500:
            retry_after = _retry_after(response.headers.get("Retry-After"))
            return UnavailableError(said, retry_after=retry_after, status=status, said=reason)
        if 300 <= status < 400:
            where = self.quote(response.headers.get("Location", "elsewhere"))
            return StatusError(
                f"{said}; redirects to {where!r} are not followed; set server.base_url", status
            )
        key = f"${self._settings.api_key_env} or server.api_key_file"
        misfit = "do server.scorer and server.model fit this server?"
        hints = {
            401: f"set the key in {key}",
            403: f"is the key in {key} the right one?",
            407: "are the proxy's user and password in HTTP_PROXY right?",
            404: "are server.base_url, server.scorer and server.model right?",
            413: "the conversation is too large for this server: raise its limit",
        }
        return StatusError(f"{said}; {hints.get(status, misfit)}", status, reason)

    async def _excerpt(self, response: aiohttp.ClientResponse) -> str:
        """Return the beginning of a refusal's body, or nothing if it cannot be read."""
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            return ""
        try:
            raw, is_cut = await _read_body(response, EXCERPT_BYTES)
        except aiohttp.ClientPayloadError:
            return ""
        return excerpt(raw, self.quote, is_cut=is_cut)

    def _open_session(self) -> aiohttp.ClientSession:
        # On first use: a session needs the running loop.
        if self._session is None:
            checked: dict[str, Any] = {}
            if self._tls is not None:
                checked["ssl"] = self._tls
            self._session = aiohttp.ClientSession(
                headers={"Accept-Encoding": "identity"},
                timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s),
                # It would decompress without a limit.
                auto_decompress=False,
                connector=_Connector(**checked),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def aclose(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _read_body(response: aiohttp.ClientResponse, limit: int) -> tuple[bytearray, bool]:
    """Return the first ``limit`` bytes of a body, and whether there are more; read few of those."""
    body = bytearray()
    while len(body) <= limit and (chunk := await response.content.read(CHUNK_BYTES)):
        body += chunk
    is_cut = len(body) > limit
    del body[limit:]
    return body, is_cut


def _retry_after(header: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, as a number or as a date."""
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
