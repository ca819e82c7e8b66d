"""The ledger's page: what the model knows without memories, round after round."""

from __future__ import annotations

from aiohttp import web

from mindscore.config.settings import StoreSettings
from mindscore.measure.internalisation import accounts, drift
from mindscore.review.web import Views
from mindscore.store import Ledger

TONES = {"internalised": "more", "as asked": "", "no": "muted", "first": "muted"}
"""CSS classes of a memory's states."""


class LedgerPage:
    """The page of one namespace's ledgers, one model's at a time."""

    def __init__(self, settings: StoreSettings, views: Views) -> None:
        self._ledger = Ledger(settings)
        self._views = views

    def routes(self) -> list[web.RouteDef]:
        """Return the route of the page."""
        return [web.get("/ledger", self._show)]

    async def _show(self, request: web.Request) -> web.Response:
        models, asked = await self._ledger.models(), request.query.get("model", "")
        current = self._ledger.current(models)
        model = asked if asked in models else next(iter(current), "")
        rounds = await self._ledger.rounds(model)
        memories = accounts(rounds)
        keys = [it.memory.key for it in memories]
        values = {
            "models": models,
            "model": model,
            "rounds": rounds,
            "memories": memories,
            "drifts": [drift(rounds[0], it) for it in rounds],
            "refused": await self._ledger.refused(model),
            "tones": TONES,
            "has_versions": lambda key: keys.count(key) > 1,
        }
        return await self._views.show("ledger.html", "/ledger", values)
