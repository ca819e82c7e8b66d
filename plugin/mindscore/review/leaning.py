"""The memories that a response leaned on, and the page of one response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from mindscore.config.settings import StoreSettings
from mindscore.measure.divergence import UNMEASURED_NOISE
from mindscore.measure.memories import memory_texts
from mindscore.review.cells import KeptEffect, effects, response_texts
from mindscore.review.reading import MOST_CELLS, Models
from mindscore.review.runs import Runs
from mindscore.review.web import PageRefusedError, Views
from mindscore.store import Cell, History, Store


@dataclass(frozen=True, slots=True)
class Leaned:
    """The effects of memories on one response: those beyond noise, and those within it.

    Those that helped come first, then those that harmed, the strongest of each first.

    Attributes:
        conversation: the id of the response's conversation; empty: not known.
        is_ambiguous: several conversations have a response of that id, and none of them was named:
            there are no effects, which might be of another response.
        is_cut: it is looked for among the ``MOST_CELLS`` measured last.
    """

    clear: Sequence[KeptEffect]
    noisy: Sequence[KeptEffect]
    conversation: str
    is_ambiguous: bool
    is_cut: bool

    @property
    def all(self) -> Sequence[KeptEffect]:
        """Those beyond noise, then those within it."""
        return [*self.clear, *self.noisy]

    @property
    def entry_idx(self) -> int | None:
        """The response's place in its conversation, or ``None`` if nothing was measured."""
        return self.all[0].cell.entry_idx if self.all else None


class Leanings:
    """Looks up the effects of memories on a response, by the conversation at hand and the store."""

    def __init__(self, settings: StoreSettings, runs: Runs) -> None:
        self._history = History(settings)
        self._store = Store(settings)
        self._transcript = runs.transcript

    async def of(self, model: str, node_id: str, conversation: str = "") -> Leaned:
        """Return what is stored of a response; ``conversation``: empty if it is not known.

        Raises:
            StoreError: the store cannot be read.
        """
        talk = self._transcript
        if not conversation and talk is not None and node_id in response_texts(talk):
            conversation = talk.id
        found: list[Cell] = []
        is_cut = False
        if conversation:
            found = await self._history.cells(model, None, conversation=conversation)
            found = [it for it in found if it.node_id == node_id]
        if not found:
            newest = await self._history.cells(model, MOST_CELLS + 1)
            is_cut = len(newest) > MOST_CELLS
            # Cells that an older version measured do not say of which conversation they are.
            wanted = ("",) if conversation else {it.conversation for it in newest}
            found = [it for it in newest if it.node_id == node_id and it.conversation in wanted]
        talks = {it.conversation for it in found}
        if len(talks) > 1:
            return Leaned((), (), "", True, is_cut)
        latest = {it.key: it for it in sorted(found, key=lambda it: it.scored_at)}
        cells = list(latest.values())
        notes = await self._store.notes(model, next(iter(talks), ""))
        its = [effect for row in effects(cells, cells, notes).values() for effect in row]
        its.sort(key=lambda it: (it.cell.signed < 0, -abs(it.cell.signed), it.cell.key))
        return Leaned(
            clear=[it for it in its if it.kind != "muted"],
            noisy=[it for it in its if it.kind == "muted"],
            conversation=next(iter(talks), conversation),
            is_ambiguous=False,
            is_cut=is_cut,
        )


class ResponsePages:
    """The page of one response."""

    def __init__(self, settings: StoreSettings, runs: Runs, views: Views) -> None:
        self._models = Models(History(settings))
        self._leanings = Leanings(settings, runs)
        self._transcript = runs.transcript
        self._views = views

    def routes(self) -> list[web.RouteDef]:
        """Return the route of the page."""
        return [web.get("/response", self._show)]

    async def _show(self, request: web.Request) -> web.Response:
        _, model = await self._models.of(request)
        node_id = request.query.get("node", "")
        leaned = await self._leanings.of(model, node_id, request.query.get("conversation", ""))
        talk, text = self._transcript, None
        if talk is not None and leaned.conversation in ("", talk.id):
            text = response_texts(talk).get(node_id)
        if not leaned.all and not leaned.is_ambiguous and text is None:
            raise PageRefusedError(404, "Nothing is kept of this response.")
        values = {
            "node_id": node_id,
            "model": model,
            "leaned": leaned,
            "text": text,
            "texts": memory_texts(talk) if talk is not None else {},
            "unmeasured": UNMEASURED_NOISE,
        }
        return await self._views.show("response.html", "/response", values)
