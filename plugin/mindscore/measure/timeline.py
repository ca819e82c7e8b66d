"""The effect of each memory in each week, or month where the archive is a long one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from mindscore.measure.archive_advice import Period
from mindscore.measure.evidence import Cells, Floats

DAY_S = 24 * 3600.0
WEEK_S = 7 * DAY_S

MONDAY_S = 4 * DAY_S
"""The first Monday, in seconds since the epoch."""

MOST_WEEKS = 60
"""Weeks that are shown one by one; a longer time is shown in months."""


def period_of(when: Floats) -> Literal["week", "month"]:
    """Return the length of the periods that times, in seconds since the epoch, are shown in."""
    return "week" if np.ptp(when) <= MOST_WEEKS * WEEK_S else "month"


def beginnings(when: Floats, period: Literal["week", "month"]) -> Floats:
    """Return when each time's week (a Monday's) or month begins, in UTC."""
    if period == "week":
        weeks: Floats = np.floor((when - MONDAY_S) / WEEK_S) * WEEK_S + MONDAY_S
        return weeks
    months = np.floor(when).astype("datetime64[s]").astype("datetime64[M]")
    return months.astype("datetime64[s]").astype(np.int64).astype(np.float64)


def timeline(
    cells: Cells, when: Floats, versions: Mapping[int, str]
) -> tuple[Literal["week", "month"], dict[str, tuple[Period, ...]]]:
    """Return the periods of each of ``versions`` (a number in the cells, its key), oldest first.

    ``when`` is the time of each cell, in seconds since the epoch; NaN: not known, and not shown.
    """
    is_shown = np.isfinite(when) & np.isin(cells.memory, list(versions))
    rows = np.flatnonzero(is_shown)
    if not len(rows):
        return "week", {}
    period = period_of(when[rows])
    begins, place = np.unique(beginnings(when[rows], period), return_inverse=True)
    codes = cells.memory[rows] * len(begins) + place
    codes, place, judged = np.unique(codes, return_inverse=True, return_counts=True)
    signed, limit = cells.signed[rows], cells.limit[rows]
    helped, harmed = (
        np.bincount(place, it, len(codes)) for it in (signed > limit, signed < -limit)
    )
    nats = np.bincount(place, cells.effect[rows], len(codes))
    found: dict[str, list[Period]] = {}
    for at, code in enumerate(codes.tolist()):
        memory, number = divmod(code, len(begins))
        found.setdefault(versions[memory], []).append(
            Period(
                begins=float(begins[number]),
                judged=int(judged[at]),
                helped=int(helped[at]),
                harmed=int(harmed[at]),
                nats=float(nats[at]),
            )
        )
    return period, {key: tuple(periods) for key, periods in found.items()}
