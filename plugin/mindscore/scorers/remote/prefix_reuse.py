"""Reuse of the prefixes that prompts share, from a server's cache, in which nothing is trusted."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from mindhooks import RangeScore, ScorerError, ScorerUnavailable, WirePrompt
from mindscore._util.errors import format_error
from mindscore.http.client import StatusError, WireClient
from mindscore.measure.prefixes import MOST_BYTES, PrefixIndex, PrefixQueue, prefix_key
from mindscore.scorers.remote.answers import Answer, TokenUsage
from mindscore.scorers.remote.vllm_endpoints import Endpoint, UnfitError

log = logging.getLogger("mindscore")

SMALL_BLOCK = 16
"""Tokens that a server caches together, where it does not say."""

MOST_FAILURES = 3
"""Prompts that were asked twice, more than were asked once, after which reuse ends."""

SALTS = 2
"""Salts in use: what is asked again under the second still finds what was sent under that."""


class _Cache(NamedTuple):
    """The part of the server's cache that a salt has to itself, and what was sent under it."""

    salt: str
    sent: PrefixIndex


class _Read(NamedTuple):
    """An answer: its scores, the tokens computed, if they are known, and what is wrong with it."""

    scores: list[RangeScore]
    computed: int | None
    fault: str | None


class CacheFacts(NamedTuple):
    """The facts that a server tells of its prefix cache: its block size, and whether it is on."""

    block: int
    is_on: bool


async def cache_facts(client: WireClient) -> CacheFacts:
    """Return what ``/metrics`` tells of the prefix cache, or what may be where it tells nothing."""
    try:
        text = await client.get_text("/metrics")
    except ScorerError:
        text = ""
    told = re.findall(r"^vllm:cache_config_info\{(.*)\}", text, re.MULTILINE)
    sizes = [int(it[1]) for line in told if (it := re.search(r'\bblock_size="(\d{1,6})"', line))]
    is_off = bool(told) and all('enable_prefix_caching="False"' in line for line in told)
    return CacheFacts(max([*sizes, 1]) if sizes else SMALL_BLOCK, not is_off)


class PrefixReuse:
    """Asks an endpoint for prompts so that a prefix that they share is computed once.

    vLLM's cache is read only where the prompts that were sent under a secret salt of this run
    cannot make it reach beyond the first wanted row: before that nothing is computed, and what the
    server answers for it is no score. A prompt that shares more, as one does that is asked again,
    goes under the second salt, or is asked in full. Each answer is checked, whatever the server
    claims; one that does not pass is asked for again in the same way, and the tokens of both count.
    What the server refuses counts in full, the most that it can have computed.

    Attributes:
        is_on: the cache is read; it ends, for good, when a salt is not honoured, too many answers
            do not pass, or the server does not say what it took from its cache.
        is_faulty: it ended because the server's answers are not to be trusted.
    """

    def __init__(self, endpoint: Endpoint, url: str, secret: str) -> None:
        self.is_on = True
        self.is_faulty = False
        self._endpoint = endpoint
        self._url = url
        # What another sent under the same secret is not known here.
        self._salt = f"{secret}.{secrets.token_urlsafe(6)}"
        self._salts = 0
        self._caches = self._new_caches()
        self._queue = PrefixQueue(SMALL_BLOCK)
        self._failures = 0
        self._asides = 0
        self._is_refused = False

    def learn(self, facts: CacheFacts) -> None:
        """Take ``facts`` into account."""
        self._queue.block = facts.block
        if self.is_on and not facts.is_on:
            self.is_on = False
            log.info(
                "%s: the server's prefix cache is off, so each prompt is computed in full; start "
                "vLLM with --enable-prefix-caching",
                self._url,
            )

    def stop(self, why: str) -> None:
        """Ask for every prompt in full from now on, and say so once."""
        if self.is_on:
            self.is_on, self.is_faulty = False, True
            log.warning(
                "%s: the server's prefix cache is not used any more (%s): each prompt is computed "
                "in full from here on",
                self._url,
                why,
            )

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Within, ask in full and under salts of no other prompt: nothing of it can be reused."""
        self._asides += 1
        try:
            yield
        finally:
            self._asides -= 1

    async def score(self, prompt: WirePrompt) -> Answer:
        """Return the answer for ``prompt``, which may wait for another that is under way.

        Raises:
            ScorerError: the server failed, or its answer in full does not fit.
        """
        if self._asides:
            return await self._ask_in_full(prompt, self._new_salt())
        if not self.is_on:
            return await self._ask_in_full(prompt, self._caches[0].salt)
        # The row of a token is computed at the token before it.
        most = min(start for start, _ in prompt.ranges) - 1
        key = prefix_key(prompt.tokens)
        async with self._queue.turn(key, most):
            return await self._ask(prompt, key, most)

    async def _ask(self, prompt: WirePrompt, key: bytes, most: int) -> Answer:
        if sum(it.sent.size for it in self._caches) > MOST_BYTES:
            self._caches = self._new_caches()
            self._queue.forget()
        computed: int | None = 0
        faults: list[str] = []
        *_, last = caches = self._caches
        for cache in caches:
            known = cache.sent.longest(key)
            if known > most and cache is not last:
                continue
            # Before it is answered: what fails or is cancelled may have come to be cached.
            cache.sent.add(key)
            if not self.is_on or not self._queue.block <= known <= most:
                last = cache
                break
            scores, more, fault = await self._read(prompt, key, most, cache)
            computed = _sum(computed, more)
            if fault is None:
                self._count(faults, sound=1)
                return Answer(scores, computed)
            log.debug("%s: asking again: %s", self._url, fault)
            faults.append(fault)
        # If this is refused too, the prompt is at fault, and not the reuse.
        again = await self._ask_in_full(prompt, last.salt)
        self._count(faults, sound=0)
        return Answer(again.scores, _sum(computed, again.computed))

    def _count(self, faults: Sequence[str], *, sound: int) -> None:
        """Count a prompt's answers that did not fit, and end the reuse if they are too many."""
        self._failures = max(0, self._failures + len(faults) - sound)
        if faults and self._failures >= MOST_FAILURES:
            self.stop(f"{self._failures} answers did not fit; the last: {faults[-1]}")

    async def _read(self, prompt: WirePrompt, key: bytes, most: int, cache: _Cache) -> _Read:
        """Return the answer to a request that may read the cache."""
        scores: list[RangeScore] | None = None
        computed: int | None = None
        fault: str | None = None
        try:
            scores, usage = await self._endpoint.ask(prompt, _caching(cache.salt, is_read=True))
        except ScorerUnavailable:
            raise
        except UnfitError as error:
            fault, usage = format_error(error), error.usage
        except StatusError as error:
            # The V1 runner's own JSON may fail at what it has not computed.
            self._say_refused(error)
            fault, usage, computed = format_error(error), None, len(prompt.tokens)
        except ScorerError as error:
            fault, usage = format_error(error), None
        if usage is not None or scores is not None:
            usage = usage or TokenUsage()
            computed = usage.computed(default_cached=None)
            # Of those sent since, too: one may have been computed first.
            shared = cache.sent.longest(key, is_added=True)
            fault = self._fault(prompt, most, shared, usage) or fault
        return _Read(scores or [], computed, fault)

    def _say_refused(self, error: StatusError) -> None:
        if not self._is_refused:
            self._is_refused = True
            log.info(
                "%s: a request that may read the prefix cache was refused (HTTP %d) and made again "
                "without; its tokens count as computed, as the server does not say how far it got",
                self._url,
                error.status,
            )

    def _fault(self, prompt: WirePrompt, most: int, shared: int, usage: TokenUsage) -> str | None:
        """Return why an answer may hold rows that were not computed, or ``None``."""
        cached = usage.cached
        if cached is None:
            self.stop("it does not say any more what it took from there")
            return "usage.prompt_tokens_details.cached_tokens is missing"
        if cached < 0 or usage.prompt_tokens != len(prompt.tokens):
            return f"usage: {usage.prompt_tokens} tokens, {cached} of them cached"
        if cached > shared:
            self.stop(
                f"{cached} tokens of a prompt were taken from it, of which {shared} were sent "
                "under this run's salt: cache_salt is not honoured"
            )
            return "cache_salt is not honoured"
        if shared > most:
            return f"{shared} tokens may be cached by now, of {most} before the first wanted row"
        return None

    async def _ask_in_full(self, prompt: WirePrompt, salt: str) -> Answer:
        reply = await self._endpoint.ask(prompt, _caching(salt, is_read=False))
        usage = reply.usage
        cached = usage.cached if usage is not None else None
        if self.is_on and cached is None:
            self.is_on = False
            log.info(
                "%s: the server does not say what it takes from its cache, so each prompt is "
                "computed in full; start vLLM with --enable-prompt-tokens-details",
                self._url,
            )
        if cached is not None and cached >= min(start for start, _ in prompt.ranges):
            raise ScorerError(
                f"{self._url}: usage.prompt_tokens_details.cached_tokens: {cached}, although the "
                "server was asked not to read its prefix cache: tokens that it does not compute "
                "have no log-probabilities; start vLLM with --no-enable-prefix-caching"
            )
        # What is not read from the cache is computed.
        return Answer(reply.scores, usage.computed(default_cached=0) if usage else None)

    def _new_caches(self) -> list[_Cache]:
        return [_Cache(self._new_salt(), PrefixIndex()) for _ in range(SALTS)]

    def _new_salt(self) -> str:
        # It begins with the secret, which the client takes out of all that is shown.
        self._salts += 1
        return f"{self._salt}.{self._salts}"


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _caching(salt: str, *, is_read: bool) -> dict[str, Any]:
    return {"cache_salt": salt, "skip_reading_prefix_cache": not is_read}
