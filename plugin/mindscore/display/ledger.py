"""The ledger of internalisation as tables and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from mindscore._util.text import iso_utc, printable, shortened
from mindscore.measure.internalisation import (
    NOISES,
    MemoryAccount,
    RefusedRound,
    Round,
    Standing,
    accounts,
    drift,
)

NAME = 14
"""Characters of a round's name at the head of a column."""


def refused_lines(refused: Sequence[RefusedRound]) -> Iterator[str]:
    """Yield a line for each training that has not passed its guard."""
    for it in refused:
        yield f"refused by the guard, {it.name}: {it.why}"


def ledger_tables(rounds: Sequence[Round]) -> Iterator[Table | Text]:
    """Yield the tables of the ledger, and lines that say how to read them."""
    found = accounts(rounds)
    yield _table(
        "without memories, as asked",
        rounds,
        found,
        lambda it: _cell(it.without_memories, it.share),
        has_state=True,
    )
    yield Text("")
    yield _table(
        "without memories, in other frames",
        rounds,
        found,
        lambda it: "-" if it.reworded is None else _cell(it.reworded, it.reworded_share),
        has_state=False,
    )
    yield Text("")
    unrelated = Table(box=None)
    unrelated.add_column("unrelated answers")
    for it in rounds:
        unrelated.add_column(shortened(it.name, NAME), justify="right")
    losses = [it.unrelated_loss for it in rounds]
    unrelated.add_row(
        "  nats per token", *("-" if loss is None else f"{-loss:.3f}" for loss in losses)
    )
    unrelated.add_row("  drift", *(f"{drift(rounds[0], it):.2f}" for it in rounds))
    yield unrelated
    yield Text(
        "Log-probabilities in nats, in the mean over the answers that depend on a memory. "
        "Percent: of what the memories added in the memory's first round. Internalised: at least "
        "50 % of it, as asked and in other frames, and more than noise, which is "
        f"{NOISES:g} × drift × √tokens; drift is what unrelated answers change by, root mean "
        "square for one token.",
        style="dim",
    )


def _table(
    title: str,
    rounds: Sequence[Round],
    found: Sequence[MemoryAccount],
    cell: Callable[[Standing], str],
    *,
    has_state: bool,
) -> Table:
    table = Table(box=None)
    table.add_column(title, overflow="fold")
    table.add_column("with" if has_state else "", justify="right", no_wrap=True)
    for it in rounds:
        table.add_column(shortened(it.name, NAME), justify="right", no_wrap=True)
    table.add_column("" if not has_state else "state", no_wrap=True)
    keys = [it.memory.key for it in found]
    for account in found:
        key = printable(account.memory.key)
        if keys.count(account.memory.key) > 1:
            key += f" ({account.memory.text_hash[:6]})"
        first = next(it for it in account.standings if it is not None)
        table.add_row(
            key,
            f"{first.with_memories:.1f}" if has_state else "",
            *("-" if it is None else cell(it) for it in account.standings),
            account.state if has_state and account.state != "first" else "",
        )
    return table


def _cell(nats: float, share: float | None) -> str:
    return f"{nats:.1f}" if share is None else f"{nats:.1f} {share:4.0%}"


def ledger_document(
    model: str,
    rounds: Sequence[Round],
    refused: Sequence[RefusedRound] = (),
    replaced: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the document that ``--json`` prints.

    ``replaced`` are the names of ledgers of the same model with weights that were replaced.
    """
    return {
        "command": "ledger",
        "model": model,
        **({"replaced": list(replaced)} if replaced else {}),
        "rounds": [
            {
                "round": it.name,
                "adapter": it.adapter or None,
                "measured": iso_utc(it.measured_at),
                "unrelated_loss": it.unrelated_loss,
                "drift": drift(rounds[0], it),
            }
            for it in rounds
        ],
        "refused": [
            {
                "round": it.name,
                "adapter": it.adapter or None,
                "refused": iso_utc(it.refused_at),
                "why": it.why,
            }
            for it in refused
        ],
        "memories": [
            {
                "key": it.memory.key,
                "text_hash": it.memory.text_hash,
                "state": it.state,
                "rounds": [
                    standing and {"round": round_.name, **_fields(standing)}
                    for round_, standing in zip(rounds, it.standings, strict=True)
                ],
            }
            for it in accounts(rounds)
        ],
    }


def _fields(standing: Standing) -> dict[str, Any]:
    return {name: getattr(standing, name) for name in Standing.__slots__}
