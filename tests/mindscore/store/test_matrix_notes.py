"""Notes on a matrix: those of the last run, by model and conversation."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from mindscore.config.settings import StoreSettings
from mindscore.measure.interactions import (
    FoundInteractions,
    Interaction,
    InteractionEntry,
    RedundantGroup,
)
from mindscore.measure.placebo import PlaceboControl
from mindscore.measure.screening.receipt import Estimate, MissedBound, ScreenReceipt, ScreenTrial
from mindscore.store import Notes, Records

RECEIPT = ScreenReceipt(
    "groups",
    trials=(ScreenTrial("words", None, 0.5, 30),),
    exact=("tea", 'it"s'),
    sampled=("tea",),
    estimated=("dog",),
    not_looked_at=("pay",),
    spent_tokens=9,
    exact_tokens=90,
    error_median=0.1 + 0.2,
    missed=(MissedBound(1.0, 1, 0, 3, 2),),
    together=-1.5,
    remarks=("a line",),
)
FOUND = FoundInteractions(
    (RedundantGroup(("tea", 'it"s'), ("n",)),),
    (Interaction(("tea", "dog"), (InteractionEntry(3, "n", 0.1 + 0.2, 5e-324, -1.5),), "need"),),
    {"tea": "1", 'it"s': "2", "dog": ""},
)
PLACEBO = PlaceboControl(("tea",), {"n": 0.1 + 0.2, "m": 5e-324})


async def test_notes_are_those_of_one_matrix_without_the_estimates(store):
    told = Notes(replace(RECEIPT, estimates=(Estimate("dog", "n", 3, 0.5),)), PLACEBO, FOUND)
    await store().record_notes("m", "talk", told, 1.0)
    assert await store().notes("m") == {"talk": Notes(RECEIPT, PLACEBO, FOUND)}
    assert await store().notes("m", "talk") == {"talk": Notes(RECEIPT, PLACEBO, FOUND)}
    for other in (store().notes("m", "other"), store().notes("n"), store("other").notes("m")):
        assert await other == {}


async def test_a_note_takes_the_place_of_one_of_its_kind_alone(store):
    await store().record_notes("m", "talk", Notes(RECEIPT, PLACEBO), 1.0)
    later = replace(RECEIPT, method="knock-out")
    await store().record_notes("m", "talk", Notes(screen=later), 2.0)
    await store().record_notes("m", "talk", Notes(), 3.0)
    assert await store().notes("m") == {"talk": Notes(later, PLACEBO)}


async def test_that_a_run_found_no_interactions_takes_the_place_of_what_an_earlier_one_found(store):
    await store().record_notes("m", "talk", Notes(None, PLACEBO, FOUND), 1.0)
    nothing = FoundInteractions((), (), {})
    await store().record_notes("m", "talk", Notes(interactions=nothing), 2.0)
    assert (await store().notes("m"))["talk"].interactions == nothing


async def test_nothing_is_noted_of_a_conversation_that_is_not_known_again(store):
    await store().record_notes("m", "", Notes(RECEIPT, PLACEBO), 1.0)
    assert await store().notes("m") == {}


@pytest.mark.parametrize(("key", "left"), [("te", 3), ("tea", 0), ('it"s', 1), ("pay", 2)])
async def test_a_note_that_names_a_forgotten_memory_goes(store, key, left):
    await store().record_notes("m", "talk", Notes(RECEIPT, PLACEBO, FOUND), 1.0)
    await store().forget(key)
    found = (await store().notes("m")).get("talk", Notes())
    assert sum(it is not None for it in (found.screen, found.placebo, found.interactions)) == left


async def test_notes_go_with_the_rest(url, clock, store):
    async def record(conversation):
        settings = StoreSettings(url, "default", 5)
        await type(store())(settings).record_notes("m", conversation, Notes(RECEIPT), clock.now)

    await record("old")
    for _ in range(5):
        clock.now += 86_400 * 1.5
        await record("new")
    assert (await store().notes("m")).keys() == {"new"}


async def test_a_damaged_note_is_left_out_and_named(tmp_path, store):
    file = tmp_path / "store"
    kept = type(store())(StoreSettings(f"sqlite:///{file}"))
    await kept.record_notes("m", "talk", Notes(RECEIPT, PLACEBO, FOUND), 1.0)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE matrix_notes SET note = '{}' WHERE kind <> 'placebo'")
        connection.execute("UPDATE matrix_notes SET kind = 'else' WHERE kind = 'placebo'")
        connection.commit()
    assert await kept.notes("m") == {}
    damaged = await Records(StoreSettings(f"sqlite:///{file}")).damaged()
    assert [it.id.partition(":")[0] for it in damaged] == ["matrix_notes"] * 3
