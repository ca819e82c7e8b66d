"""The receipt of a screened matrix, in plain lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from mindscore._util.text import count_of, printable, shortened
from mindscore.measure.screening.receipt import MissedBound, ScreenReceipt

LONGEST_KEY = 60
SHOWN = 5
"""Memories whose estimates are shown, the largest first."""


def receipt_lines(receipt: ScreenReceipt) -> Iterator[Text]:
    """Yield lines on what is exact and what estimated, what it took, and what may be missed."""
    total = len(receipt.exact) + len(receipt.estimated) + len(receipt.not_looked_at)
    drawn = f", {len(receipt.sampled):,} of them drawn at random" * bool(receipt.sampled)
    yield Text(
        f"Screen ({receipt.method}): {len(receipt.exact):,} of "
        f"{count_of(total, 'memory', 'memories')} measured{drawn}; "
        f"{len(receipt.estimated):,} estimated (≈), {len(receipt.not_looked_at):,} not looked at",
        style="bold",
    )
    share = receipt.spent_tokens / receipt.exact_tokens if receipt.exact_tokens else 1.0
    yield Text(
        f"{count_of(receipt.spent_tokens, 'token')} {receipt.unit}, {share:.0%} of the "
        f"{receipt.exact_tokens:,} that measuring every memory takes"
    )
    if receipt.error_median is not None and receipt.error_p95 is not None:
        ranks = receipt.rank_correlation
        correlated = "" if ranks is None else f"; their ranks correlate by {ranks:.2f}"
        yield Text(
            f"On the memories drawn, half of the estimates are within {receipt.error_median:.2f} "
            f"nats, 95 % within {receipt.error_p95:.2f}{correlated}"
        )
    if receipt.missed:
        yield Text(f"With 95 % confidence, of those not measured {_bounds(receipt.missed)}")
    if receipt.together is not None:
        yield Text(
            f"All {len(receipt.estimated):,} estimates removed together change no response "
            f"by more than {abs(receipt.together):.2f} nats"
        )
    if largest := _largest(receipt):
        named = ", ".join(f"{shortened(key, LONGEST_KEY)} ≈ {nats:.2f}" for key, nats in largest)
        yield Text(printable(f"Largest estimates, in nats: {named}"))
    for remark in receipt.remarks:
        yield Text(printable(remark), style="dim")


def _bounds(missed: Sequence[MissedBound]) -> str:
    return " and ".join(
        f"at most {it.most:,} do more than {it.nats:g} {'nat' if it.nats == 1 else 'nats'}"
        for it in missed
    )


def _largest(receipt: ScreenReceipt) -> list[tuple[str, float]]:
    largest: dict[str, float] = {}
    for it in receipt.estimates:
        largest[it.key] = max(largest.get(it.key, it.nats), it.nats, key=abs)
    ranked = sorted(largest.items(), key=lambda it: (-abs(it[1]), it[0]))
    return [it for it in ranked[:SHOWN] if f"{it[1]:.2f}".strip("-") != "0.00"]
