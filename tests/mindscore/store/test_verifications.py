"""Verifications of advice: kept by all that they rest on, until they are complete."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from mindscore.config.settings import StoreSettings
from mindscore.measure.archive_advice import (
    JointEffect,
    JointRemoval,
    Proposed,
    Receipt,
    ResponsePlace,
)
from mindscore.store import (
    MeasuredRemoval,
    MeasuredResponse,
    Records,
    RemovalName,
    Verifications,
)

PLACE = ResponsePlace("talk", "which tea?", "talk.jsonl", "n", 3, 1.5e9)
EFFECT = JointEffect(PLACE, 0.1 + 0.2, 0.05)
RECEIPT = Receipt(
    proposed=("tea", 'it"s'),
    kept=("tea",),
    kept_for={"tea": EFFECT},
    rounds=(JointRemoval(("tea",), 2, 0.3, 1, worst=(EFFECT,)),),
    conversations=1,
    calls=2,
    prompt_tokens=30,
    computed_tokens=None,
    unmeasured=("a line",),
    is_complete=False,
    drops={"tea": Proposed("t1"), 'it"s': Proposed("", "tea")},
    verified_at=1.75e9,
)
MEASURED = MeasuredRemoval(
    (MeasuredResponse("n", 3, -5e-324, 0.1), MeasuredResponse("m", 5, 0.1 + 0.2, None)),
    tokens=9,
    unread="1 response is left out",
    calls=2,
    prompt_tokens=30,
    computed_tokens=None,
)
NAMES = [RemovalName("talk", "one"), RemovalName("talk", "two"), RemovalName("other", "one")]


@pytest.fixture
def verifications(url):
    """The verifications of a namespace."""
    return lambda namespace="default", days=0.0: Verifications(StoreSettings(url, namespace, days))


async def test_a_removal_is_known_by_its_whole_name(verifications):
    await verifications().record_removal("m", NAMES[0], MEASURED)
    assert await verifications().removal("m", NAMES[0]) == MEASURED
    assert await verifications().removal("m", NAMES[1]) is None
    assert await verifications().removal("m", NAMES[2]) is None
    assert await verifications().removal("other", NAMES[0]) is None
    assert await verifications("other").removal("m", NAMES[0]) is None


async def test_a_receipt_takes_the_place_of_the_last_and_of_what_it_rests_on(verifications):
    for name in NAMES:
        await verifications().record_removal("m", name, MEASURED)
    await verifications("other").record_removal("m", NAMES[0], MEASURED)
    assert await verifications().receipt("m") is None
    await verifications().record_receipt("m", RECEIPT, ())
    assert await verifications().receipt("m") == RECEIPT
    later = replace(RECEIPT, verified_at=1.8e9)
    await verifications().record_receipt("m", later, NAMES[:2])
    assert await verifications().receipt("m") == later
    known = [await verifications().removal("m", it) for it in NAMES]
    assert known == [None, None, MEASURED]
    assert await verifications("other").removal("m", NAMES[0]) == MEASURED
    assert await verifications().receipt("other") is None
    assert await verifications("other").receipt("m") is None


async def test_what_was_never_finished_goes_with_the_rest(verifications, clock):
    await verifications(days=5).record_removal("m", NAMES[0], MEASURED)
    for _ in range(5):
        clock.now += 86_400 * 1.5
        await verifications(days=5).record_removal("m", NAMES[1], MEASURED)
    assert await verifications().removal("m", NAMES[0]) is None
    assert await verifications().removal("m", NAMES[1]) == MEASURED


async def test_advice_is_made_anew_when_a_receipt_is_there(verifications, store):
    before = await store().evidence_state()
    await verifications().record_receipt("m", RECEIPT, ())
    after = await store().evidence_state()
    assert (before.verified_at, after.verified_at) == (None, RECEIPT.verified_at)
    assert await store("other").evidence_state() == before


@pytest.mark.parametrize("key", ["tea", 'it"s'])
async def test_a_receipt_that_names_a_forgotten_memory_goes(verifications, store, key):
    for namespace in ("default", "other"):
        await verifications(namespace).record_receipt("m", RECEIPT, ())
    await store().forget("te")
    assert await verifications().receipt("m") == RECEIPT
    await store().forget(key)
    assert await verifications().receipt("m") is None
    assert await verifications("other").receipt("m") == RECEIPT


async def test_what_is_damaged_is_left_out_and_can_be_removed(tmp_path):
    file = tmp_path / "store"
    settings = StoreSettings(f"sqlite:///{file}")

    def verifications():
        return Verifications(settings)

    await verifications().record_removal("m", NAMES[0], MEASURED)
    await verifications().record_receipt("m", RECEIPT, ())
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE removals SET removal = '[1]'")
        connection.execute("UPDATE receipts SET receipt = '{}'")
    assert await verifications().removal("m", NAMES[0]) is None
    assert await verifications().receipt("m") is None
    records = Records(settings)
    found = [it.id for it in await records.damaged()]
    assert [it.partition(":")[0] for it in found] == ["receipts", "removals"]
    assert await records.drop(found) == 2
