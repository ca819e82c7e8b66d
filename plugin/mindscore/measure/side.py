"""One conversation as two models score it: their totals, effects and tokens, put side by side."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median

from mindhooks import Context, Scorer, ScorerCapabilities
from mindscore._util.errors import format_error
from mindscore.config.settings import ServerSettings
from mindscore.measure.cached_scorer import CachedScorer
from mindscore.measure.comparison import (
    PARTING_NATS,
    ComparedEffect,
    ComparedResponse,
    Pair,
    Parting,
    parting,
)
from mindscore.measure.divergence import FEWEST, UNMEASURED_NOISE, TokenLogprobs
from mindscore.measure.leave_one_out import Divergences, LeaveOneOut, NoiseFloor
from mindscore.measure.memories import (
    Memory,
    responses,
    skip_all,
    skip_none,
    skip_only,
    whole,
)
from mindscore.measure.prompts import prompts_for

log = logging.getLogger("mindscore")

LISTED = 5
"""Models of a server that a remark names."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two models, with the conversation as it reads it."""

    scorer: Scorer
    server: ServerSettings
    context: Context
    cached: CachedScorer
    noise: NoiseFloor
    compared: LeaveOneOut

    @property
    def window(self) -> range:
        """The whole conversation."""
        return whole(self.context)

    @property
    def responses(self) -> dict[str, int]:
        """The responses, by node id, with their indexes."""
        return responses(self.context, self.window)

    async def unlisted(self) -> str | None:
        """Return a remark if the model's server does not list it, else nothing."""
        served_models = ScorerCapabilities.of(self.scorer).served_models
        try:
            listed = [str(it) for it in await served_models()] if served_models is not None else []
        # A scorer may be anybody's, and only a remark is lost.
        except Exception as error:
            log.debug("a server's models are not known: %s", format_error(error))
            return None
        if not listed or self.scorer.model in listed:
            return None
        names = ", ".join(listed[:LISTED]) + " …" * (len(listed) > LISTED)
        return (
            f"its server does not list a model {self.scorer.model!r} (it lists {names}): unless "
            "that is another name of one of these, it answers by whichever it has"
        )

    async def totals(self) -> dict[str, Pair]:
        """Return each response's log-probability with all memories and with none, by node id."""
        with_ = await self.compared.baseline(self.window, self.responses)
        effects = await self.compared.drop(self.window, skip_all, self.responses)
        known = {it.node_id: it.signed for it in effects}
        return {id_: (it, it - known[id_]) for id_, it in with_.items() if id_ in known}

    async def effect(self, memory: Memory) -> Divergences:
        """Return the effect of one memory on each response."""
        return await self.compared.drop(self.window, skip_only(memory.key), self.responses)

    async def token_logprobs(self) -> TokenLogprobs:
        """Return each token's log-probability with all memories, of what was scored, by node id."""
        found: dict[str, Sequence[float]] = {}
        for prompt in await prompts_for(self.context, self.window, skip_none, self.responses):
            found.update(self.cached.token_logprobs(prompt))
        return found

    def noise_of(self, node_id: str) -> float | None:
        """Return the nats by which a response's total has varied; ``None``: not known."""
        is_exact = not ScorerCapabilities.of(self.scorer).noisy
        return self.noise.spread.get(node_id, 0.0 if is_exact else None)

    def noise_limit(self, node_id: str, values: int, *, differences: bool = False) -> float:
        """Return the nats that noise alone exceeds in none of ``values`` responses, or effects.

        So it is in 95 % of cases (Bonferroni). One repetition says little of a response: it is by
        the typical one of all that were repeated (median of normal variation), and by its own where
        that is more. Of fewer than ``FEWEST`` it is by their root mean square, and by Student's t
        distribution, which allows for how little they say. ``differences``: of effects, in which
        two totals vary. Where nothing is known it is ``UNMEASURED_NOISE``.
        """
        own = self.noise_of(node_id)
        if own is None:
            return UNMEASURED_NOISE
        known = list(self.noise.spread.values())
        rate = ERROR_RATE / values
        if not known:
            typical = 0.0
        elif len(known) < FEWEST:
            typical = math.hypot(*known) / math.sqrt(len(known)) * _exceeded(rate, len(known))
        else:
            typical = median(known) / _QUARTILE * NormalDist().inv_cdf(1 - rate / 2)
        return max(own, typical * (math.sqrt(2) if differences else 1.0))


def _exceeded(rate: float, freedom: int) -> float:
    """Return what the size of Student's t exceeds at ``rate``; ``freedom``: 1 to 4 degrees of it.

    Formulas 26.7.3 and 26.7.4 of Abramowitz and Stegun, solved by bisection.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        sine, cosine = math.sin(angle), math.cos(angle)
        within = {
            1: 2 / math.pi * angle,
            2: sine,
            3: 2 / math.pi * (angle + sine * cosine),
            4: sine * (1 + cosine**2 / 2),
        }
        low, high = (angle, high) if within[freedom] < 1 - rate else (low, angle)
    return math.sqrt(freedom) * math.tan(low)


ERROR_RATE = 0.05
"""Chance that noise alone puts any of many values beyond its limit."""

_QUARTILE = NormalDist().inv_cdf(0.75)
"""Median of a normal value's size, in standard deviations."""


def compared_responses(
    sides: tuple[Side, Side],
    totals: Sequence[Mapping[str, Pair]],
    scale: Mapping[str, float],
    least: float,
    parted: Mapping[str, Parting],
) -> Iterator[ComparedResponse]:
    """Yield the responses that both sides have scored, in order.

    ``totals`` are the sides', in nats; ``scale`` says by node id what they are divided by, and has
    no response that is left out. ``least``: differences below it, in nats, count as none.
    """
    context = sides[0].context
    for id_, index in sides[0].responses.items():
        if id_ not in scale or not all(id_ in it for it in totals):
            continue
        (one, bare), (other, others_bare) = totals[0][id_], totals[1][id_]
        divisor = scale[id_]
        limit = sum(side.noise_limit(id_, len(scale)) for side in sides)
        yield ComparedResponse(
            entry_idx=index,
            node_id=id_,
            conversation=context.id,
            text=context.conversation[index].text,
            with_=(one / divisor, other / divisor),
            without=(bare / divisor, others_bare / divisor),
            limit=max(limit, least) / divisor,
            assumed=None in [side.noise_of(id_) for side in sides],
            parts_at=parted.get(id_),
        )


def compared_effects(
    sides: tuple[Side, Side],
    found: Sequence[ComparedResponse],
    rows: Sequence[Mapping[str, Divergences]],
    scale: Mapping[str, float],
    least: float,
) -> Iterator[ComparedEffect]:
    """Yield the effects of memories on the responses ``found`` that both sides have measured.

    ``rows`` are the sides', by memory; ``scale`` and ``least`` are as of ``compared_responses``.
    """
    compared, cells = {it.node_id: it for it in found}, len(found) * max(1, len(rows[0]))
    limits = {
        id_: sum(side.noise_limit(id_, cells, differences=True) for side in sides)
        for id_ in compared
    }
    for key, row in rows[0].items():
        others = {it.node_id: it.signed for it in rows[1].get(key, ())}
        for one in row:
            id_ = one.node_id
            if id_ not in others or id_ not in compared:
                continue
            yield ComparedEffect(
                key=key,
                conversation=compared[id_].conversation,
                entry_idx=one.entry_idx,
                node_id=id_,
                effects=(one.signed / scale[id_], others[id_] / scale[id_]),
                limit=max(limits[id_], least) / scale[id_],
            )


def partings(
    sides: tuple[Side, Side], logprobs: Sequence[TokenLogprobs]
) -> Iterator[tuple[str, Parting]]:
    """Yield the node id of each response on which the sides part, and where they first do.

    ``logprobs`` are the sides': responses that they do not have for both are left out. A token
    whose difference may be the noise of the whole response does not count.
    """
    one, other = logprobs
    for id_ in one:
        if id_ in other and len(one[id_]) == len(other[id_]):
            noise = sum(side.noise_of(id_) or 0.0 for side in sides)
            if it := parting(one[id_], other[id_], max(PARTING_NATS, noise)):
                yield id_, it
