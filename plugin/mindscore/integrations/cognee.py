"""cognee: scores as the feedback weight of its graph's nodes, by which it ranks what it finds.

As of cognee 1.6; keys are the ids of nodes.
"""

from __future__ import annotations

import asyncio
import math
from typing import Annotated, Any

from msgspec import Meta, Struct

from mindscore.flows.notes import Note, NoteError

UNSET = 0.5
"""The weight of a node of which nobody has said anything."""


class CogneeOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[plugins.settings.write-back.cognee]``.

    ``alpha``: the share of the way from a node's weight to what a run says of it.
    """

    alpha: Annotated[float, Meta(gt=0, le=1)] = 0.1


class CogneeNotes:
    """Moves the feedback weight of a node towards the share of a response that it carried.

    That is ``1 - exp(-nats)``: by so much the response is less likely without the memory; 0.0
    within noise.
    """

    def __init__(self, options: CogneeOptions) -> None:
        self._alpha = options.alpha
        self._turn = asyncio.Lock()

    async def write(self, note: Note) -> None:
        """Move the weight of the node whose id is the note's key.

        Raises:
            NoteError: cognee is not installed, or has no such node.
        """
        graph = await _graph()
        async with self._turn:
            node = await graph.get_node(note.key)
            if node is None:
                raise NoteError("cognee has no node of that id: are the keys ids of nodes?")
            text = node.get("text")
            if text and not note.is_of(str(text)):
                raise NoteError("cognee has another text of that node by now")
            before = (await graph.get_node_feedback_weights([note.key])).get(note.key, UNSET)
            share = 0.0 if note.is_noise else -math.expm1(-note.nats)
            after = before + self._alpha * (share - before)
            if not (await graph.set_node_feedback_weights({note.key: after})).get(note.key):
                raise NoteError("cognee's graph did not take the weight")

    async def aclose(self) -> None:
        """Leave the graph open: it is cognee's own, and shared by all that use it."""


async def _graph() -> Any:
    try:
        from cognee.infrastructure.databases.graph import get_graph_engine
    except ImportError as error:
        raise NoteError(f"{error}; install it with: pip install cognee") from error
    return await get_graph_engine()
