"""How this process gets its memory."""

from __future__ import annotations

import ctypes
import sys

_M_ARENA_MAX = -8


def share_one_arena() -> None:
    """Have all threads allocate from one arena, where the C library is glibc.

    A thread of its own has heaps of 64 MB, which a model's intermediate results of changing sizes
    keep outgrowing: measured, scoring in a thread takes a quarter longer. For this process only, so
    not for a host's.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
