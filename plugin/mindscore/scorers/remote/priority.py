"""Send a priority to servers that schedule by it, and to no other."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from mindscore.http.client import StatusError, UnavailableError, WireClient

log = logging.getLogger("mindscore")
T = TypeVar("T")

_REFUSALS = re.compile(
    r"not enabled|disabled|not support|unsupported|not permitted|not allowed|require"
    r"|unknown|unexpected|unrecogni[sz]ed|extra|invalid",
    re.IGNORECASE,
)
"""Words of a server that takes no priority; one that lets others go first says none of these."""


class PrioritySender:
    """Posts requests with a priority, until the server has refused one for it.

    ``priority`` is as the server counts: see the scorers.
    """

    def __init__(self, client: WireClient, priority: int) -> None:
        self._client = client
        self._priority = priority
        self._is_refused = False

    async def post(self, path: str, body: Mapping[str, Any], answer: type[T], room: int) -> T:
        """Post ``body``, at once again without the priority if the server refuses that.

        No answer of over ``room`` bytes is read.

        Raises:
            ScorerError: as ``WireClient.post``.
        """
        if not self._is_refused:
            try:
                sent = {**body, "priority": self._priority}
                return await self._client.post(path, sent, answer, max_bytes=room)
            except (StatusError, UnavailableError) as error:
                if not _is_of_priority(error):
                    raise
                why = error.said
        found = await self._client.post(path, body, answer, max_bytes=room)
        if not self._is_refused:
            self._is_refused = True
            log.info("%s takes no priority (%s): none is sent", self._client.base_url, why)
        return found


def _is_of_priority(error: StatusError | UnavailableError) -> bool:
    """Say whether the server refuses the priority, and not the request for another reason."""
    is_refusal = error.status is not None and error.status >= 400
    return is_refusal and "priority" in error.said.lower() and bool(_REFUSALS.search(error.said))
