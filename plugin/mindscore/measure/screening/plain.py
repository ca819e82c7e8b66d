"""The receipt of a screened matrix in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from mindscore._util.text import count_of, shortened
from mindscore.measure.screening.receipt import Estimate, MissedBound, ScreenReceipt

LONGEST_KEY = 60
"""Characters of a key in a line."""

NAMED = 5
"""Memories whose estimates a line names, the largest first."""


def in_words(receipt: ScreenReceipt) -> list[str]:
    """Return lines on what is exact and what estimated, what it took, and what may be missed."""
    return [line for line in _lines(receipt) if line]


def estimates_in_words(estimates: Sequence[Estimate], error: float | None) -> list[str]:
    """Return lines on estimates whose receipt is not kept; ``error`` is theirs in nats."""
    if not estimates:
        return []
    number = len({it.key for it in estimates})
    within = "" if error is None else f"; 95 % of such estimates are within {error:.2f} nats"
    head = f"Of {count_of(number, 'memory', 'memories')} there are a screen's estimates (≈) alone"
    return [f"{head}{within}", *filter(None, [named(estimates)])]


def remarks_on_rest(
    estimates: Mapping[str, Mapping[int, float]], least: float, unseen: int
) -> Iterator[str]:
    """Yield lines on what was not measured though it may matter, and why.

    ``estimates`` are those of memories that have no exact row, by key and response; ``unseen`` are
    those that ``max_tokens`` left no tokens for.
    """
    largest = (max(map(abs, its.values()), default=0.0) for its in estimates.values())
    if pointed := sum(it >= least for it in largest):
        yield (
            f"{count_of(pointed, 'memory was', 'memories were')} estimated to do {least:g} nats or "
            "more, and not measured: others like that do less, or it would have taken too many "
            "tokens"
        )
    if unseen:
        them = count_of(unseen, "memory was", "memories were")
        yield f"{them} not looked at: --max-tokens does not allow for more"


def _lines(receipt: ScreenReceipt) -> Iterator[str]:
    exact, estimated = len(receipt.exact), len(receipt.estimated)
    total = exact + estimated + len(receipt.not_looked_at)
    drawn = f", {len(receipt.sampled):,} of them drawn at random" * bool(receipt.sampled)
    unseen = len(receipt.not_looked_at)
    left = f", {unseen:,} not looked at" * bool(unseen)
    yield (
        f"Screen ({receipt.method}): {exact:,} of {count_of(total, 'memory', 'memories')} "
        f"measured{drawn}; {estimated:,} estimated (≈){left}"
    )
    yield _cost(receipt)
    if receipt.error_median is not None and receipt.error_p95 is not None:
        ranks = receipt.rank_correlation
        correlated = "" if ranks is None else f"; their ranks correlate by {ranks:.2f}"
        yield (
            f"On the memories drawn, half of the estimates are within {receipt.error_median:.2f} "
            f"nats, 95 % within {receipt.error_p95:.2f}{correlated}"
        )
    if receipt.missed and estimated:
        bounds = " and ".join(map(_bound, receipt.missed))
        were = "one that was" if estimated == 1 else f"{estimated:,} that were"
        yield f"With 95 % confidence, of the {were} only estimated {bounds}"
    if receipt.together is not None:
        yield (
            f"Removed together, all {estimated:,} that were only estimated change a response by up "
            f"to {abs(receipt.together):.2f} nats{_direction(receipt.together)}"
        )
    yield named(receipt.estimates)
    yield from receipt.remarks


def _cost(receipt: ScreenReceipt) -> str:
    spent, exact = receipt.spent_tokens, receipt.exact_tokens
    line = f"{count_of(spent, 'token')} {receipt.unit}"
    if exact:
        line += f", {spent / exact:.0%} of the {exact:,} that measuring every memory takes"
    return f"{line}: {exact - spent:,} saved" if exact > spent else line


def _direction(signed: float) -> str:
    if not signed:
        return ""
    return f": it is {'less likely' if signed > 0 else 'likelier'} without them"


def _bound(it: MissedBound) -> str:
    does, nats = "does" if it.most == 1 else "do", "nat" if it.nats == 1 else "nats"
    return f"at most {it.most:,} {does} more than {it.nats:g} {nats}"


def named(estimates: Iterable[Estimate]) -> str:
    """Return a line that names the memories with the largest estimates; empty: all are 0."""
    found = [it for it in largest_of(estimates) if f"{it.nats:.2f}".strip("-") != "0.00"][:NAMED]
    its = ", ".join(f"{shortened(it.key, LONGEST_KEY)} ≈ {it.nats:.2f}" for it in found)
    return f"Largest estimates, in nats: {its}" if its else ""


def largest_of(estimates: Iterable[Estimate]) -> Sequence[Estimate]:
    """Return each memory's largest estimate of either sign, the largest first."""
    largest: dict[str, Estimate] = {}
    for it in estimates:
        if it.key not in largest or abs(it.nats) > abs(largest[it.key].nats):
            largest[it.key] = it
    return sorted(largest.values(), key=lambda it: (-abs(it.nats), it.key))
