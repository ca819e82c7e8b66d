"""The memories that each response of a conversation leaned on, as far as it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mindhooks import ResponseDivergence
from mindscore.config.settings import StoreSettings
from mindscore.conversation.conversation import Transcript
from mindscore.measure.divergence import column_spreads
from mindscore.measure.memories import text_hashes
from mindscore.measure.screening.words import words_in_common
from mindscore.measure.support import beyond_noise, ranked
from mindscore.session.result import Result
from mindscore.store import History, Mode


@dataclass(frozen=True, slots=True)
class Leaning:
    """A response that leaned on a memory: without it, it is ``nats`` less likely."""

    node_id: str
    key: str
    nats: float


@dataclass(frozen=True, slots=True)
class _Row:
    """The values measured of one text of a memory, by node id; ``exact``: in the whole matrix."""

    text_hash: str
    exact: Mapping[str, ResponseDivergence]
    windowed: Mapping[str, ResponseDivergence]

    def values(self, node_ids: frozenset[str]) -> list[ResponseDivergence]:
        # The incremental score's prompt lacks what was said before the memory.
        known = {**self.windowed, **self.exact}
        return [it for id_, it in known.items() if id_ in node_ids]


class Leanings:
    """The effects of memories on responses, measured by one run after the other.

    It is never changed: ``after`` makes another one. Values within noise count as none.
    """

    def __init__(self, talk: Transcript, rows: Mapping[str, _Row]) -> None:
        self._talk = talk
        self._rows = rows
        responses = [id_ for _, id_ in talk.responses()]
        node_ids = frozenset(responses)
        values = {key: row.values(node_ids) for key, row in rows.items()}
        self._effects = beyond_noise(values, column_spreads(values.values()))
        self._last = responses[-1] if responses else None

    @property
    def conversation(self) -> str:
        """The id of the conversation that they are of."""
        return self._talk.id

    def after(self, result: Result) -> Leanings:
        """Return what is known after a run; what the conversation has no more is forgotten.

        So is all that was measured in another one: the same words may be said there, too.
        """
        talk, hashes = result.transcript, text_hashes(result.transcript)
        before = self._rows if talk.id == self._talk.id else {}
        rows = {key: it for key, it in before.items() if hashes.get(key) == it.text_hash}
        for key, score in result.scores.items():
            row = rows.get(key, _Row(hashes.get(key, ""), {}, {}))
            found = {it.node_id: it for it in score.divergences}
            if score.mode == "full":
                rows[key] = _Row(row.text_hash, {**row.exact, **found}, row.windowed)
            else:
                rows[key] = _Row(row.text_hash, row.exact, {**row.windowed, **found})
        ids = {it.id for it in talk.conversation}
        kept = {
            key: _Row(row.text_hash, _of(row.exact, ids), _of(row.windowed, ids))
            for key, row in rows.items()
        }
        return Leanings(talk, kept)

    def of_response(self, node_id: str | None = None) -> tuple[Leaning, ...] | None:
        """Return the memories that a response leaned on, the strongest first.

        The order is that of ``measure.support``: by what was lost, and the words in common.
        ``node_id``: ``None`` for the last response. Returns ``None`` if it was not measured.
        """
        asked = self._last if node_id is None else node_id
        if asked is None or asked not in self._effects:
            return None
        effects = self._effects[asked]
        words = words_in_common(self._talk, {asked}, self._rows)
        helped, _ = ranked(effects, {key: row.get(asked, 0.0) for key, row in words.items()})
        return tuple(Leaning(asked, key, nats) for nats, key in helped)

    def of_memory(self, key: str) -> tuple[Leaning, ...]:
        """Return the responses that leaned on a memory, the strongest effect first."""
        found = [
            Leaning(node_id, key, nats)
            for node_id, effects in self._effects.items()
            for nats, other in effects
            if other == key and nats > 0
        ]
        return tuple(sorted(found, key=lambda it: -it.nats))


async def stored_leanings(settings: StoreSettings, model: str, talk: Transcript) -> Leanings:
    """Return what the store has measured of a conversation's memories as they are now.

    Raises:
        StoreError: the store cannot be read.
    """
    hashes, history = text_hashes(talk), History(settings)
    found: dict[Mode, dict[str, dict[str, ResponseDivergence]]] = {"full": {}, "incremental": {}}
    for mode, by_key in found.items():
        its = await history.cells(model, None, conversation=talk.id, texts=hashes, modes=(mode,))
        for it in its:
            effect = ResponseDivergence(
                it.entry_idx, it.node_id, it.divergence, it.signed, it.noise
            )
            by_key.setdefault(it.key, {})[it.node_id] = effect
    exact, windowed = found["full"], found["incremental"]
    rows = {
        key: _Row(hashes[key], exact.get(key, {}), windowed.get(key, {}))
        for key in exact.keys() | windowed.keys()
    }
    return Leanings(talk, rows)


def _of(row: Mapping[str, ResponseDivergence], ids: set[str]) -> dict[str, ResponseDivergence]:
    return {id_: it for id_, it in row.items() if id_ in ids}
