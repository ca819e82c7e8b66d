"""The ledger in the store: rounds and what each has measured."""

from dataclasses import replace

import pytest
from sqlalchemy import text

from mindhooks import FinetuneCandidate, MemoryScore, ResponseDivergence
from mindscore.config.settings import StoreSettings
from mindscore.measure.internalisation import LedgerEntry, MemoryVersion, RefusedRound, Round
from mindscore.measure.prompts import response_hash
from mindscore.store import Ledger, MemoryEffect, Records, Store

TEA = MemoryVersion("tea", "t1")
ENTRY = LedgerEntry(TEA, 7, "h", 4, -0.1 - 0.2, -20.0, {"Remind me: {}": -21.5, "{} please": -3.0})
BASE = Round("base", "", 1.0, ((-10.5, 4), (-5e-324, 1)), (ENTRY,))
LATER = Round("3f0c", "/a/3f0c/adapter", 2.0, (), ())


@pytest.fixture
def settings(url):
    """The settings of a namespace, the first unless another is named."""
    return lambda namespace="default": StoreSettings(url, namespace)


async def test_rounds_come_back_as_they_were_in_the_order_of_their_measurement(settings):
    ledger = Ledger(settings())
    assert (await ledger.models(), await ledger.rounds("m")) == ([], [])
    await ledger.record("m", LATER)
    await ledger.record("m", BASE)
    assert await ledger.rounds("m") == [BASE, LATER]
    assert await ledger.models() == ["m"]
    assert await ledger.rounds("other") == []
    assert await Ledger(settings("other")).rounds("m") == []


async def test_a_round_gets_what_it_lacks_and_keeps_what_it_has(settings):
    ledger = Ledger(settings())
    await ledger.record("m", BASE)
    other = replace(ENTRY, timestamp_ns=8)
    await ledger.record("m", replace(BASE, entries=(other,)))
    assert await ledger.rounds("m") == [replace(BASE, entries=(ENTRY, other))]
    again = replace(ENTRY, without_memories=-1.0)
    await ledger.record("m", replace(BASE, entries=(again,)))
    assert await ledger.rounds("m") == [replace(BASE, entries=(again, other))]


async def test_a_refused_round_is_kept_apart_until_it_is_measured(settings):
    ledger = Ledger(settings())
    one, other = RefusedRound("3f0c", "/a", 3.0, "why"), RefusedRound("4a11", "", 1.5, '"why" ☃')
    for it in (replace(one, why="before"), one, other):
        await ledger.refuse("m", it)
    await ledger.record("m", BASE)
    assert await ledger.refused("m") == [other, one]
    assert await ledger.rounds("m") == [BASE]
    await ledger.record("m", LATER)
    await ledger.refuse("m", one)
    assert (await ledger.refused("m"), await ledger.rounds("m")) == ([other], [BASE, LATER])
    assert await Records(settings()).damaged() == []


async def test_a_new_ledger_begins_and_the_old_one_is_another_models(settings):
    ledger = Ledger(settings())
    for model, round_ in (("m", BASE), ("m", LATER), ("other", BASE)):
        await ledger.record(model, round_)
    await Ledger(settings("other")).record("m", BASE)
    new = replace(BASE, measured_at=9.0, entries=())
    # Two processes have seen the change.
    for _ in range(2):
        await ledger.record("m", new, replaces=BASE)
    [old] = ledger.replaced(await ledger.models(), "m")
    assert await ledger.models() == ["m", old, "other"]
    assert (await ledger.rounds(old), await ledger.rounds("m")) == ([BASE, LATER], [new])
    assert await ledger.rounds("other") == [BASE]
    assert await Ledger(settings("other")).models() == ["m"]


async def test_a_memory_that_is_forgotten_is_gone_from_it(settings):
    ledger = Ledger(settings())
    dog = replace(ENTRY, memory=MemoryVersion("dog", "d"))
    await ledger.record("m", replace(BASE, entries=(ENTRY, dog)))
    await Store(settings()).forget("tea")
    assert await ledger.rounds("m") == [replace(BASE, entries=(dog,))]


async def test_a_damaged_row_is_named_and_left_out(settings, caplog):
    ledger = Ledger(settings())
    await ledger.record("m", BASE)
    await ledger.record("m", LATER)
    broken = (
        "UPDATE ledger SET reworded = 'torn'",
        "UPDATE rounds SET unrelated = '[1]' WHERE round = '3f0c'",
    )
    for statement in broken:
        await ledger._database.write(lambda it, line=statement: it.execute(text(line)))
    assert await ledger.rounds("m") == [replace(BASE, entries=())]
    damaged = {it.id.partition(":")[0] for it in await Records(settings()).damaged()}
    assert damaged == {"ledger", "rounds"}
    assert "mindscore store check" in caplog.text


def effect(node_id, signed, noise=None):
    return ResponseDivergence(1, node_id, max(0.0, signed), signed, noise)


async def test_the_effects_on_a_candidate_are_those_of_its_conversation(settings):
    """A row of the matrix counts before a score, and a text that was scored later before others."""
    store, ledger = Store(settings()), Ledger(settings())
    found = FinetuneCandidate(1, "n", 9.0, "", "", (1, 2), (2,), (3,), None, None, 7)
    await store.record_candidate(found, "m", conversation="talk")
    name = (7, response_hash((3,)))
    assert await ledger.effects("m", [name]) == {}
    full = MemoryScore("tea", 4.0, "full", (effect("n", 4.0, 0.5), effect("other", 9.0)))
    await store.record_row(full, "m", conversation="talk", text_hash="t1")
    wrong = MemoryScore("tea", 8.0, "full", (effect("n", 8.0),))
    await store.record_row(wrong, "m", conversation="another", text_hash="t1")
    score = MemoryScore("tea", 6.0, "incremental", (effect("n", 6.0),))
    await store.record_score(score, "m", 0.3, conversation="talk", text_hash="t1", run="r")
    alone = MemoryScore("dog", 2.0, "full", (effect("n", -2.0),), (effect("n", 3.0),))
    await store.record_row(alone, "m", conversation="talk", text_hash="d1")
    effects = await ledger.effects("m", [name])
    assert sorted(effects.pop(name), key=lambda it: it.memory) == [
        MemoryEffect(MemoryVersion("dog", "d1"), -2.0, 3.0, None),
        MemoryEffect(TEA, 4.0, None, 0.5),
    ]
    assert effects == {}
    assert await ledger.effects("other", [name]) == {}
    assert await ledger.effects("m", [(8, "h")]) == {}
