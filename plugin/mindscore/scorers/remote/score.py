"""The ``score`` scorer: the original protocol, totals of ranges by one POST per prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mindhooks import Generated, WirePrompt
from mindscore.config.settings import ServerSettings
from mindscore.conversation.template import RenderChat
from mindscore.http.client import WireClient
from mindscore.scorers.remote.answers import Answer
from mindscore.scorers.remote.base import RemoteScorer
from mindscore.scorers.remote.score_endpoint import ScoreEndpoint, ScoreReply, multi_modal_data


class ScoreScorer(RemoteScorer):
    """``POST /score`` with token ids and ranges; ``POST /completions`` for alternates."""

    # As in the original, its server is asked for the flows' scores and nothing else.
    self_tested = False
    # mindscore serve --train does, under the same name.
    swaps_adapters = True
    takes_images = True

    _answered: ScoreReply | None = None

    def __init__(self, table: Mapping[str, Any]) -> None:
        super().__init__(table)
        priority = self._settings.priority
        self._scores = ScoreEndpoint(self._client, self.model, priority, "/score")

    @property
    def render_chat(self) -> RenderChat | None:  # type: ignore[override]
        """``None``: the original's messages are ChatML."""
        return None

    async def fingerprint(self) -> str | None:
        """Return a hash of the server's address and its model's fingerprint, as last answered."""
        if self._answered is None:
            served = await self._served()
            said = served.fingerprint if served is not None else None
        else:
            said = self._answered.fingerprint
        return said and f"{self._settings.base_url} {self.model} {said}"

    def _models_path(self) -> str:
        return "/models"

    def _make_client(self, settings: ServerSettings) -> WireClient:
        return WireClient(settings)

    async def _ask(self, prompt: WirePrompt) -> Answer:
        self._answered = await self._scores.ask(prompt)
        usage = self._answered.usage
        computed = usage.computed(default_cached=None) if usage else None
        return Answer(self._answered.scores, computed)

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Continue greedily by ``/completions``; ids are there where the server returns them."""
        more = {"priority": self._settings.priority, **multi_modal_data(prompt.images)}
        return await self._complete("/completions", prompt, max_tokens, stop, more)
