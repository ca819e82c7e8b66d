"""The part in the engine: a request for scores reuses cached prefixes up to its first scored row.

vLLM reads no cached prefix for a request with prompt log-probabilities, as the rows of the prefix
would be missing. What is asked of ``/v1/score`` knows which rows it needs: the cached prefix may
reach up to the first of them. The request keeps vLLM's own mark that the cache is not to be read.
So an engine without this part, and a connector that loads prefixes from elsewhere, compute it all.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from mindscore.integrations.vllm.versions import is_named, logger, unknown_version, vllm_version

LIMIT = "mindscore_prefix_limit"
"""The key in ``SamplingParams.extra_args``: how many tokens the cached prefix may be long."""

REQUEST_PREFIX = "mindscore-score-"
"""How ids of the requests begin: clients, who could send a LIMIT, cannot choose such an id."""

Lookup = Callable[..., Any]


def register() -> None:
    """Limit prefix hits of requests for scores, if VLLM_PLUGINS names the plugin; never raise."""
    if not is_named():
        return
    try:
        fault = unknown_version(vllm_version()) or _limit_prefix_hits()
    except Exception as error:
        fault = f"cached prefixes are not reused for scores: {type(error).__name__}: {error}"
    if fault:
        logger.warning("%s", fault)


def _limit_prefix_hits() -> str | None:
    from vllm.v1.core.kv_cache_manager import KVCacheManager

    lookup = KVCacheManager.get_computed_blocks
    if hasattr(lookup, "limits_prefix_hits"):
        return None
    parameters = list(inspect.signature(lookup).parameters)
    if parameters not in (
        ["self", "request"],  # 0.32
        ["self", "request", "max_cache_hit_length"],  # 0.33
    ):
        return (
            "cached prefixes are not reused for scores: KVCacheManager.get_computed_blocks of vLLM "
            f"{vllm_version()} takes {', '.join(parameters)}"
        )
    KVCacheManager.get_computed_blocks = limited(lookup)
    return None


def limited(lookup: Lookup) -> Lookup:
    """Return ``lookup`` with the limit that a request for scores sets."""

    @functools.wraps(lookup)
    def get_computed_blocks(
        self: Any, request: Any, max_cache_hit_length: int | None = None
    ) -> Any:
        longest = () if max_cache_hit_length is None else (max_cache_hit_length,)
        limit = prefix_limit(request)
        if limit is None:
            return lookup(self, request, *longest)
        found = lookup(self, _LimitedRequest(request, limit), *(min(it, limit) for it in longest))
        if found[1] > limit:
            # The request's own mark makes this a miss.
            return lookup(self, request, *longest)
        return found

    get_computed_blocks.limits_prefix_hits = True  # type: ignore[attr-defined]
    return get_computed_blocks


def prefix_limit(request: Any) -> int | None:
    """Return how many tokens of its cached prefix a request for scores may use, at least one.

    ``None`` for any other request, and for one that may use none.
    """
    if not str(getattr(request, "request_id", "")).startswith(REQUEST_PREFIX):
        return None
    arguments = getattr(getattr(request, "sampling_params", None), "extra_args", None)
    limit = arguments.get(LIMIT) if isinstance(arguments, dict) else None
    return limit if type(limit) is int and limit > 0 else None


class _LimitedRequest:
    """A request as the lookup sees it: it reads the cache, and ends one token after the limit.

    The lookup of 0.32 takes all but the last token of a request for the longest possible hit.
    """

    skip_reading_prefix_cache = False

    def __init__(self, request: Any, limit: int) -> None:
        self._request = request
        self.num_tokens = min(request.num_tokens, limit + 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)
