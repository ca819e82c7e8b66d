"""Evidence: streamed in batches, added exactly once, and as arrays."""

import asyncio
import logging
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from mindhooks import MemoryScore, ResponseDivergence
from mindscore.config.settings import StoreSettings
from mindscore.store import (
    COLUMNS,
    ConversationFacts,
    Evidence,
    EvidenceState,
    History,
    MemoryText,
    Pass,
    Seen,
    as_arrays,
    columns_of,
    rows_of,
)

ONE = Evidence("c", "m", "k", "t", "full", "n", 3, 0.5, -0.5, None, 0.1, 7, None, 10.0)


def many(count):
    """Rows of all kinds, in the order of the store."""
    return [
        replace(
            ONE,
            model=f"m{number // 60}",
            conversation=f"c{number // 20 % 3}",
            key=f"k{number // 10 % 2}",
            node_id=f"n{number % 10:02d}",
            hold=None if number % 3 else float(number),
            scored_at=float(number),
        )
        for number in range(count)
    ]


async def all_rows(store, **of):
    return [row async for batch in store.evidence(**of) for row in rows_of(batch)]


@pytest.mark.parametrize("batch_rows", [1, 10, 25, 120, 1000])
async def test_evidence_comes_whole_and_in_order_whatever_the_batches(store, batch_rows):
    rows = many(120)
    assert await store().add_evidence(reversed(rows)) == 120
    sizes = [len(it["key"]) async for it in store().evidence(batch_rows=batch_rows)]
    # Those of one memory in one conversation stay together.
    assert max(sizes) <= max(10, batch_rows)
    assert len(sizes) >= 120 // max(10, batch_rows)
    assert sum(sizes) == 120
    assert await all_rows(store(), batch_rows=batch_rows) == rows


@pytest.mark.parametrize(
    ("of", "wanted"),
    [
        ({"model": "m1"}, lambda it: it.model == "m1"),
        ({"since": 100.0}, lambda it: it.scored_at >= 100),
        ({"conversation": "c2"}, lambda it: it.conversation == "c2"),
        ({"keys": ["k1", "other"]}, lambda it: it.key == "k1"),
        ({"keys": []}, lambda it: False),
        ({"mode": "incremental"}, lambda it: False),
        (
            {"model": "m0", "conversation": "c1", "mode": "full", "since": 25.0},
            lambda it: it.model == "m0" and it.conversation == "c1" and it.scored_at >= 25,
        ),
    ],
)
async def test_evidence_is_what_was_asked_for(store, of, wanted):
    rows = many(120)
    await store().add_evidence(rows)
    assert await all_rows(store(), batch_rows=7, **of) == list(filter(wanted, rows))


async def test_only_the_columns_that_are_asked_for_come(store):
    await store().add_evidence(many(30))
    found = [it async for it in store().evidence(columns=("signed", "key"), batch_rows=20)]
    assert [list(it) for it in found] == [["signed", "key"]] * 2
    assert sum(len(it["key"]) for it in found) == 30


async def test_adding_the_same_twice_changes_nothing(store, read):
    for _ in range(2):
        assert await store().add_evidence(many(50)) == 50
        assert await all_rows(store()) == many(50)
    assert await store().add_evidence([]) == 0


async def test_the_row_that_was_scored_later_stays_whichever_comes_first(store):
    early, late = replace(ONE, signed=1.0), replace(ONE, signed=2.0, hold=4.0, scored_at=11.0)
    await store().add_evidence([late])
    await store().add_evidence([early])
    assert await all_rows(store()) == [late]
    await store("other").add_evidence([early])
    await store("other").add_evidence([late])
    assert await all_rows(store("other")) == [late]


async def test_of_the_same_row_twice_in_one_batch_the_later_stays(store):
    early, late = replace(ONE, signed=1.0), replace(ONE, signed=2.0, scored_at=11.0)
    await store().add_evidence([late, early])
    assert await all_rows(store()) == [late]


async def test_both_modes_of_one_cell_are_kept_beside_each_other(store):
    both = [ONE, replace(ONE, mode="incremental", signed=4.0)]
    await store().add_evidence(both)
    assert await all_rows(store()) == both


async def test_values_come_back_bit_for_bit(store):
    odd = replace(ONE, divergence=0.1 + 0.2, signed=-5e-324, noise=1e300, hold=5.0, tokens=2**40)
    await store().add_evidence([odd])
    [found] = await all_rows(store())
    assert repr(found) == repr(odd)


async def test_arrays_have_codes_for_texts_and_nan_for_what_is_not_known(store):
    rows = many(120)
    await store().add_evidence(rows)
    found = await as_arrays(store().evidence(batch_rows=50))
    assert len(found) == 120
    for name in COLUMNS:
        values = [getattr(it, name) for it in rows]
        if name in found.codes:
            assert [found.names[name][code] for code in found.codes[name]] == values
            assert found.codes[name].dtype == np.int32
        else:
            expected = np.array([np.nan if it is None else it for it in values])
            np.testing.assert_array_equal(found.values[name], expected)
    assert found.names["key"] == ["k0", "k1"]


async def test_no_evidence_is_arrays_of_no_rows(store):
    found = await as_arrays(store().evidence())
    assert len(found) == 0
    assert [row async for row in store().evidence()] == []


def test_rows_and_columns_are_the_same():
    assert list(rows_of(columns_of(many(9)))) == many(9)
    assert columns_of([]) == {name: [] for name in COLUMNS}


async def test_a_damaged_cell_is_left_out_and_said(store, file, caplog):
    await store().add_evidence(many(30))
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE cells SET signed = 'x' WHERE scored_at = 3")
        connection.execute("UPDATE cells SET node_id = CAST(x'ff' AS TEXT) WHERE scored_at = 4")
        connection.commit()
    with caplog.at_level(logging.WARNING):
        found = await all_rows(store())
    assert [it.scored_at for it in found] == [it for it in range(30) if it not in (3, 4)]
    assert "2 damaged cells" in caplog.text


# -- by the recorder's way ------------------------------------------------------------------------


def scored(mode, *values, hold=None):
    cells = tuple(
        ResponseDivergence(number, f"n{number}", max(0.0, it), it, 0.25)
        for number, it in enumerate(values)
    )
    return MemoryScore("k", max(values), mode, cells, hold and cells[:1])


FACTS = ConversationFacts("talk", "/a/talk.jsonl", "", 2, 1, 90, 1.0, 2.0, 3.0)
SEEN = Seen("the text", 12, {"n0": (5, 100.5), "n1": (6, None)}, FACTS)


async def test_scores_of_both_modes_leave_evidence_with_what_was_seen(store, clock):
    about = {"conversation": "talk", "text_hash": "t", "seen": SEEN}
    await store().record_score(scored("incremental", 1.0, -2.0), "m", 0.5, run="r", **about)
    clock.now += 5
    await store().record_row(scored("full", 3.0, 4.0, hold=True), "m", **about)
    found = {(it.mode, it.node_id): it for it in await all_rows(store())}
    assert found.keys() == {(mode, f"n{it}") for mode in ("incremental", "full") for it in (0, 1)}
    one, whole = found["incremental", "n1"], found["full", "n0"]
    assert (one.divergence, one.signed, one.hold, one.noise) == (0.0, -2.0, None, 0.25)
    assert (one.tokens, one.responded_at, one.scored_at) == (6, None, clock.now - 5)
    assert (whole.signed, whole.hold, whole.tokens, whole.responded_at) == (3.0, 3.0, 5, 100.5)
    first, last = clock.now - 5, clock.now
    assert await store().memory_texts() == [MemoryText("k", "t", "the text", 12, first, last)]
    assert await store().conversations() == [FACTS]


async def test_cells_of_incremental_scores_are_in_no_matrix(store, url):
    about = {"conversation": "talk", "text_hash": "t"}
    await store().record_score(scored("incremental", 9.0, 9.0), "m", 0.5, **about)
    history = History(StoreSettings(url))
    assert await history.cells("m", None) == []
    [known] = await history.conversations()
    assert (known.scores, known.cells) == (1, 0)
    await store().record_row(scored("full", 1.0), "m", **about)
    assert [it.signed for it in await history.cells("m", None)] == [1.0]
    [known] = await history.conversations()
    assert (known.scores, known.cells) == (1, 1)
    assert await store().forget("k") == 1 + 1
    assert await all_rows(store()) == []
    assert await store().memory_texts() == []


async def test_a_text_that_is_not_kept_is_a_hash_alone_and_does_not_remove_one(store):
    for seen in (Seen(None, 3), Seen("words"), Seen(None, None)):
        await store().record_row(scored("full", 1.0), "m", text_hash="t", seen=seen)
        [text] = await store().memory_texts()
    assert (text.text, text.tokens) == ("words", 3)
    await store().record_row(scored("full", 1.0), "m", text_hash="u", seen=Seen(None, 3))
    assert [it.text for it in await store().memory_texts()] == ["words", None]


async def test_an_edited_memory_has_a_text_for_each_version_the_oldest_first(store, clock):
    for name in ("b", "a", "b"):
        await store().record_row(scored("full", 1.0), "m", text_hash=name, seen=Seen(name))
        clock.now += 1
    found = await store().memory_texts()
    assert [(it.text_hash, it.text, it.last_seen - it.first_seen) for it in found] == [
        ("b", "b", 2.0),
        ("a", "a", 0.0),
    ]


async def test_a_text_that_no_database_holds_is_kept_without_what_cannot_be(store):
    text = "a\0b\ud800c\U0001f600"
    await store().record_row(scored("full", 1.0), "m", text_hash="t", seen=Seen(text))
    assert [it.text for it in await store().memory_texts()] == ["a�b�c\U0001f600"]


async def test_facts_of_a_conversation_are_the_latest_and_keep_a_title(store):
    await store().record_conversation(replace(FACTS, title="A talk"))
    await store().record_conversation(replace(FACTS, source="", responses=9))
    assert await store().conversations() == [replace(FACTS, title="A talk", responses=9)]


async def test_passes_are_told_apart_by_model_conversation_and_command(store):
    one = Pass("m", "talk", "score", "f", 5.0, 1.0, 2, 30, None, None)
    others = [replace(one, model="n"), replace(one, conversation="u"), replace(one, command="x")]
    for it in (one, *others, replace(one, fingerprint="g", error="no\0")):
        await store().record_pass(it)
    found = await store().passes("m", "score")
    assert found == [replace(one, fingerprint="g", error="no�"), others[1]]
    assert len(await store().passes()) == 4
    assert await store("other").passes() == []


async def test_what_an_archive_says_goes_with_the_evidence(store, clock):
    await store(days=2).record_row(scored("full", 1.0), "m", text_hash="t", seen=SEEN)
    await store(days=2).record_conversation(replace(FACTS, seen_at=clock.now))
    # It began when the evidence was found, and took half a day.
    done = Pass("m", "talk", "score", "f", clock.now + 43_200, 43_200.0, 2, 30, None, None)
    await store(days=2).record_pass(done)
    clock.now += 2 * 86_400 + 60
    await store(days=2).record_row(scored("full", 1.0), "m", text_hash="u", seen=Seen())
    await store(days=2).record_conversation(replace(FACTS, conversation="new", seen_at=clock.now))
    await store(days=2).record_pass(replace(done, conversation="new", done_at=clock.now))
    assert [it.text_hash for it in await store().memory_texts()] == ["u"]
    assert [it.conversation for it in await store().conversations()] == ["new"]
    assert [it.conversation for it in await store().passes()] == ["new"]


def test_a_batch_is_found_by_the_index(store, file):
    asyncio.run(store().add_evidence(many(120)))
    with closing(sqlite3.connect(file)) as connection:
        query = (
            "EXPLAIN QUERY PLAN SELECT * FROM cells WHERE namespace = 'n' AND model = 'm' AND "
            "(conversation, key, text_hash, node_id, mode) > ('', '', '', '', '') "
            "ORDER BY conversation, key, text_hash, node_id, mode"
        )
        [(*_, plan)] = connection.execute(query).fetchall()
    assert "sqlite_autoindex_cells_1 (namespace=? AND model=? AND (conversation,key" in plan


async def test_the_state_of_the_evidence_changes_with_it(store):
    one = store()
    seen = [await one.evidence_state()]
    assert seen == [EvidenceState(0, None)]
    for rows in ([ONE], [replace(ONE, scored_at=11.0)], [replace(ONE, node_id="older")]):
        await one.add_evidence(rows)
        seen.append(await one.evidence_state())
    assert seen[1:] == [EvidenceState(1, 10.0), EvidenceState(1, 11.0), EvidenceState(2, 11.0)]
    await one.add_evidence([ONE])
    assert await store(namespace="other").evidence_state() == EvidenceState(0, None)
    assert await one.evidence_state() == seen[-1]


async def test_a_damaged_cell_among_those_that_share_texts_leaves_arrays_whole(store, file):
    rows = many(60)
    await store().add_evidence(rows)
    with closing(sqlite3.connect(file)) as connection:
        # One cell of the first memory, and all of the second one's.
        connection.execute("UPDATE cells SET signed = 'x' WHERE scored_at = 3")
        connection.execute("UPDATE cells SET noise = 'x' WHERE scored_at BETWEEN 10 AND 19")
        connection.commit()
    left = [it for it in rows if it.scored_at != 3 and not 10 <= it.scored_at < 20]
    assert await all_rows(store()) == left
    found = await as_arrays(store().evidence())
    assert found.values["scored_at"].tolist() == [it.scored_at for it in left]
    for name in ("conversation", "key", "node_id"):
        values = [found.names[name][code] for code in found.codes[name]]
        assert values == [getattr(it, name) for it in left]


async def test_the_kinds_of_evidence_are_counted_by_model_and_mode(store):
    rows = many(70)
    await store().add_evidence(rows)
    await store().add_evidence([replace(it, mode="incremental") for it in rows[:5]])
    found = [(it.model, it.mode, it.cells) for it in await store().evidence_kinds()]
    assert found == [("m0", "full", 60), ("m1", "full", 10), ("m0", "incremental", 5)]
    await store().add_evidence([replace(it, mode="estimate") for it in rows[:4]])
    assert ("m0", "estimate", 4) in {
        (it.model, it.mode, it.cells) for it in await store().evidence_kinds()
    }
    some = store().evidence("m0", mode=("incremental", "estimate"), columns=("mode",))
    assert Counter([it async for batch in some for it in batch["mode"]]) == {
        "incremental": 5, "estimate": 4
    }  # fmt: skip
    assert await store(namespace="other").evidence_kinds() == []
