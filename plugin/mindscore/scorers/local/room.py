"""Work that is done again, in smaller chunks, where memory runs out."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from mindhooks import ScorerError
from mindscore._util.text import one_line
from mindscore.scorers.local import devices
from mindscore.scorers.local.chunks import Chunks
from mindscore.scorers.local.devices import Compute
from mindscore.scorers.local.kv_cache import PrefixCaches

T = TypeVar("T")

_logger = logging.getLogger("mindscore")


@dataclass(frozen=True, slots=True)
class Room:
    """The memory of the devices that the model ``name`` is on, for ``chunks`` and ``caches``."""

    name: str
    compute: Compute
    devices: Sequence[str]
    cache_mb: int | Literal["auto"]
    chunks: Chunks
    caches: PrefixCaches

    def run(self, work: Callable[[], T], length: int) -> T:
        """Return what ``work`` does, with a prompt of ``length`` tokens.

        Raises:
            ScorerError: the smallest chunk is too large; a shorter prompt may fit.
        """
        is_first = True
        while True:
            try:
                return work()
            except Exception as error:
                if not devices.is_out_of_memory(error):
                    raise
                said = one_line(str(error), 200)
            # Not above: the error refers to what it took the memory for.
            self._make(length, said, is_first)
            is_first = False

    def _make(self, length: int, said: str, is_first: bool) -> None:
        _logger.info("%s: out of memory with %d tokens: %s", self.name, length, said)
        # Each attempt may fill them anew, before it fails.
        may_help = self.caches.clear() and is_first
        gc.collect()
        for device in self.devices:
            devices.release(device)
        if self.cache_mb == "auto":
            self.caches.clear(devices.cache_bytes("auto", self.devices))
        if not may_help and not self.chunks.halve():
            raise ScorerError(
                f"{self.name}: a prompt of {length} tokens needs more memory than there is on "
                f"{self.compute} ({said}): free memory there, or choose a shorter conversation, "
                "another server.device or server.dtype, or a smaller server.model"
            )
