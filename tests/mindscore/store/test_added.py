"""Rows of a matrix and times of scores that were measured elsewhere."""

from dataclasses import replace

import pytest

from mindhooks import MemoryScore, ResponseDivergence
from mindscore.store import KnownScore

CELLS = (ResponseDivergence(1, "a0", 0.5, -0.5, None, (0.25, 0.25)),)
ROW = MemoryScore("k", 0.5, "full", CELLS, fingerprint="f")
SCORE = KnownScore("k", "m", "t", "c", 0.5, 10.0, 1)


async def test_rows_of_elsewhere_are_kept_as_those_that_are_recorded(store):
    await store().record_row(ROW, "m", conversation="c")
    recorded = await store().rows("m", "c")

    await store("other").add_rows([ROW, replace(ROW, key="bare", fingerprint=None)], "m", "c", 10.0)

    assert await store("other").rows("m", "c") == recorded
    assert recorded["k"].divergences == (replace(CELLS[0], tokens=None),)


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (1, 0, 1)])
async def test_of_two_rows_of_a_memory_the_later_stays(store, order):
    rows = (replace(ROW, fingerprint="early"), replace(ROW, fingerprint="late"))
    for it in order:
        await store().add_rows([rows[it]], "m", "c", 10.0 + it)

    assert (await store().rows("m", "c"))["k"].fingerprint == "late"


async def test_scores_of_elsewhere_are_known_and_counted_once(store):
    late = replace(SCORE, score=0.75, scored_at=11.0)
    for it in ([SCORE], [late], [SCORE], [late], []):
        await store().add_scores(it)

    assert await store().known_scores("m", "c") == [replace(late, count=2)]
    assert await store().last_scored("m", "c", {"k": "t"}) == {"k": 11.0}
    assert await store().last_scored("m", "c", {"k": "other text"}) == {}
    assert await store().memories() == []
