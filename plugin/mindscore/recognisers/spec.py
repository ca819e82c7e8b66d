"""The hook that recognisers implement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pluggy

from mindscore.recognisers.block import Block, Unread

PROJECT = "mindscore.recognisers"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Recogniser:
    """What a recogniser may implement."""

    @hookspec
    def find_memories(
        self, role: str, text: str, known: Mapping[str, str]
    ) -> Iterable[Block | Unread]:
        """The blocks of memories in a message that is not a response.

        ``known`` are memories that the host or the user names, ``{key: text}``, but for those that
        a recogniser asked earlier found in this message. Never guess: text that does not parse
        exactly is no block, but ``Unread`` where it looks like one. A block whose ``render`` does
        not give back its own text, or that overlaps an earlier one, is refused, and said to be.
        """
        raise NotImplementedError
