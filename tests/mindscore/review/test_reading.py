"""The pages of memories: found, paged, judged; what is left out is said."""

import re
import sqlite3
from contextlib import closing
from html import unescape

import pytest

from mindhooks import MemoryScore, ResponseDivergence
from mindscore.measure.interactions import FoundInteractions, RedundantGroup
from mindscore.measure.placebo import PlaceboControl
from mindscore.measure.screening.receipt import ScreenReceipt
from mindscore.review import reading
from mindscore.review.reading import MOST_MEMORIES
from mindscore.store import Notes, Records, Store

from .client import Client


def score(page, key, nats, times=1):
    """Score a memory, without a matrix."""
    for _ in range(times):
        found = MemoryScore(key, nats, "incremental", ())
        page.run(Store(page.settings.store).record_score(found, "toy", 0.3))


def measure(page, key, *cells, conversation=""):
    """Measure a row of the matrix: a signed value and a noise for each response."""
    row = tuple(
        ResponseDivergence(2 * at + 1, f"n{at}", max(0.0, signed), signed, noise)
        for at, (signed, noise) in enumerate(cells)
    )
    found = MemoryScore(key, max(it.divergence for it in row), "full", row)
    page.run(Store(page.settings.store).record_row(found, "toy", conversation=conversation))


def words(answer):
    """The text of a page, without its elements."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", answer.text)).split())


def keys(answer):
    """The memories that a page lists, in order."""
    return re.findall(r'<a class="key"[^>]*>([^<]*)</a>', answer.text)


@pytest.fixture
def many(tables, reviewing):
    """A browser's part at a page of more memories than two pages hold."""
    with reviewing(tables) as page:
        for at in range(2 * MOST_MEMORIES + 5):
            score(page, f"key-{at:03}", float(at))
        yield Client(page).let_in()


def test_memories_come_in_pages(many):
    first, last = many.ask("GET", "/"), many.ask("GET", "/?page=3")
    assert keys(first) == [f"key-{204 - at}" for at in range(MOST_MEMORIES)]
    assert "205 memories: 1 to 100" in words(first)
    assert ('rel="next"' in first.text, 'rel="prev"' in first.text) == (True, False)
    assert keys(last) == [f"key-{at:03}" for at in (4, 3, 2, 1, 0)]
    assert "205 memories: 201 to 205" in words(last)
    assert ('rel="next"' in last.text, 'rel="prev"' in last.text) == (False, True)
    [address] = re.findall(r'rel="next"\s+href="([^"]*)"', first.text)
    assert keys(many.ask("GET", unescape(address)))[0] == "key-104"


def test_a_page_that_is_not_there_leads_to_the_first(many):
    beyond = many.ask("GET", "/?page=99")
    assert keys(beyond) == []
    assert "There are not so many pages: the first" in words(beyond)
    for wrong in ("0", "-1", "x", "9" * 30, "%C2%B2"):
        assert keys(many.ask("GET", f"/?page={wrong}"))[0] == "key-204"


def test_a_part_of_a_key_finds_memories_in_any_order(many):
    assert keys(many.ask("GET", "/?find=-19&sort=key")) == [f"key-19{at}" for at in range(10)]
    some = many.ask("GET", "/?find=key&sort=key")
    assert keys(some)[0] == "key-000"
    [address] = re.findall(r'rel="next"\s+href="([^"]*)"', some.text)
    assert keys(many.ask("GET", unescape(address)))[0] == "key-100"
    # A part of a key is no pattern.
    none = many.ask("GET", "/?find=key%25")
    assert keys(none) == []
    assert "No key contains that: show all memories" in words(none)


@pytest.mark.parametrize(
    ("nats", "times", "told"),
    [
        (12.5, 4, "last score 12.50 scored 4 times; no matrix yet: score --full"),
        (0.2, 4, "last score 0.20 within noise; scored 4 times; no matrix yet: score --full"),
        (12.5, 1, "last score 12.50 scored once; no matrix yet: score --full"),
    ],
)
def test_without_a_matrix_the_score_is_the_verdict(tables, reviewing, nats, times, told):
    with reviewing(tables) as page:
        score(page, "tea", nats, times)
        asked = Client(page).let_in()
        for path in ("/", "/memory?key=tea"):
            found = asked.ask("GET", path)
            assert told in words(found)
            assert ("badge more" in found.text) == (nats > 1)
            assert "nothing beyond noise" not in words(found).lower()


@pytest.mark.parametrize(
    ("nats", "cells", "told"),
    [
        (9.0, [(9.0, 0.5), (0.4, 0.5)], "helped 1 of 2 responses"),
        (9.0, [(9.0, 0.5), (-2.0, 0.5)], "helped 1, harmed 1 of 2 responses"),
        (0.2, [(-2.0, 0.5)], "harmed 1 of 1 response"),
        (0.2, [(0.4, 0.5)], "nothing beyond noise on 1 response"),
        (0.2, [(0.9, None)], "nothing beyond noise on 1 response"),
        (0.2, [(1.1, None)], "helped 1 of 1 response"),
        (9.0, [(0.4, 0.5)], "last score 9.00 nothing beyond noise on 1 response of the matrix"),
    ],
)
def test_with_a_matrix_the_responses_are_the_verdict(tables, reviewing, nats, cells, told):
    with reviewing(tables) as page:
        score(page, "tea", nats)
        measure(page, "tea", *cells)
        asked = Client(page).let_in()
        assert told in words(asked.ask("GET", "/"))
        assert told in words(asked.ask("GET", "/memory?key=tea"))


def test_what_nearly_any_memory_does_is_no_effect_on_any_page(tables, reviewing):
    with reviewing(tables) as page:
        for at in range(9):
            score(page, f"k{at}", 3.0)
            measure(page, f"k{at}", (-1.4 + at / 100, 0.1))
        score(page, "real", 39.6)
        measure(page, "real", (39.6, 0.1))
        asked = Client(page).let_in()
        home = words(asked.ask("GET", "/"))
        assert home.count("helped 1 of 1 response") == 1
        assert "harmed 1" not in home
        assert "Within noise: 1" in words(asked.ask("GET", "/memory?key=k3"))
        assert "Within noise" not in words(asked.ask("GET", "/memory?key=real"))


def test_the_matrix_comes_with_the_receipt_of_its_screen_and_the_control_of_the_places(
    tables, reviewing
):
    receipt = ScreenReceipt("groups", exact=("tea",), estimated=("dog",), spent_tokens=30)
    control = PlaceboControl(("tea",), {"n0": 2.5})
    with reviewing(tables) as page:
        measure(page, "tea", (2.0, 0.1), conversation="talk")
        asked = Client(page).let_in()
        assert "Screen (" not in words(asked.ask("GET", "/matrix"))
        assert "Within noise" not in words(asked.ask("GET", "/memory?key=tea"))
        store = Store(page.settings.store)
        page.run(store.record_notes("toy", "talk", Notes(receipt, control), 1.0))
        found = words(asked.ask("GET", "/matrix"))
        assert "Screen (groups): 1 of 1 memory measured; 0 estimated (≈)" in found
        assert "1 memory was changed or forgotten since this screen" in found
        assert "An unrelated text in the place of a memory changes a response by up to" in found
        assert "Within noise: 1" in words(asked.ask("GET", "/memory?key=tea"))


def test_the_matrix_comes_with_the_memories_that_hide_each_other_while_they_say_the_same(
    tables, reviewing
):
    group = RedundantGroup(("tea", "cup"), ("n0", "gone"))
    with reviewing(tables) as page:
        for key in group.keys:
            measure(page, key, (0.1, 0.1), conversation="talk")
        asked = Client(page).let_in()
        store = Store(page.settings.store)
        for text, is_told in (("", True), ("another text", False)):
            found = FoundInteractions((group,), (), {"tea": text, "cup": ""})
            page.run(store.record_notes("toy", "talk", Notes(interactions=found), 1.0))
            told = words(asked.ask("GET", "/matrix"))
            line = "tea and cup hide each other: either is enough for #1"
            assert (line in told) == is_told
            assert ("Memories that hide or need each other: 1" in told) == is_told


def test_a_memory_has_a_page_of_its_own(filled, transcript, reviewing):
    with reviewing(filled, transcript()) as page:
        asked = Client(page).let_in()
        found = asked.ask("GET", "/memory?key=tea")
        assert "Nora drinks rooibos tea in the evening, never coffee." in words(found)
        assert "Times scored 2" in words(found)
        shown, _, folded = found.text.partition("<details>")
        assert "Drink rooibos tea, as in every evening, and no coffee." in shown
        assert "Good night, Nora." in folded
        sizes = [
            [abs(float(it)) for it in re.findall(r'class="number \w+">([^<]*)<', part)]
            for part in (shown, folded)
        ]
        assert sizes == [sorted(it, reverse=True) for it in sizes]
        assert sum(map(len, sizes)) == 5
        assert min(sizes[0]) > max(sizes[1])
        assert asked.ask("GET", "/memory?key=nothing").status == 404
        assert asked.ask("GET", "/memory").status == 404


@pytest.mark.parametrize(("kept", "is_cut"), [(3, False), (4, True)])
def test_cells_that_are_left_out_are_told_of(tables, reviewing, monkeypatch, kept, is_cut):
    monkeypatch.setattr(reading, "MOST_CELLS", 3)
    with reviewing(tables) as page:
        score(page, "tea", 1.0)
        measure(page, "tea", *[(2.0, 0.1)] * kept)
        asked = Client(page).let_in()
        for path, told in (
            ("/", "Verdicts look at the 3 cells measured last."),
            ("/memory?key=tea", "Only the 3 cells measured last are looked at."),
            ("/matrix", "There are more than 3 cells: only those measured last are looked at."),
        ):
            assert (told in words(asked.ask("GET", path))) == is_cut


def test_a_run_leads_to_what_it_found(filled, reviewing):
    with reviewing(filled) as page:
        asked = Client(page).let_in()
        runs = asked.ask("GET", "/runs").text
        links = re.findall(r'<a href="([^"]*model=toy)">\s*([^<]*?)</a>', runs)
        assert {name: to for to, name in links} == {
            "score": "/?model=toy",
            "score-full": "/matrix?model=toy",
            "score-finetune": "/candidates?model=toy",
        }
        assert {asked.ask("GET", to).status for to, _ in links} == {200}


def test_the_pages_say_how_many_records_are_damaged_until_they_are_removed(tables, reviewing):
    with reviewing(tables) as page:
        for key in ("tea", "bike"):
            score(page, key, 1.0)
        client = Client(page).let_in()
        assert "damaged" not in words(client.ask("GET", "/"))
        file = tables["store"]["url"].removeprefix("sqlite:///")
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("UPDATE memories SET score = 'x' WHERE key = 'bike'")
        said = "1 record is damaged and left out ( mindscore store check )."
        assert keys(first := client.ask("GET", "/")) == ["tea"]
        assert said in words(first)
        assert said in words(client.ask("GET", "/matrix"))
        records = Records(page.settings.store)
        page.run(records.drop(it.id for it in page.run(records.damaged())))
        assert "damaged" not in words(client.ask("GET", "/"))


def test_after_the_matrix_alone_the_memories_page_leads_to_it(tables, reviewing):
    with reviewing(tables) as page:
        measure(page, "tea", (2.0, 0.5))
        asked = Client(page).let_in()
        told = words(asked.ask("GET", "/"))
        assert "No memory has a running score yet. What each did to each response is in the" in told
        assert "No memory has been scored yet" not in told


def test_cells_that_are_not_shown_may_be_of_the_same_conversation_before_it_changed(
    tables, transcript, reviewing
):
    talk = transcript()
    with reviewing(tables, talk) as page:
        measure(page, "tea", (2.0, 0.5), conversation=talk.id)
        asked = Client(page).let_in()
        told = words(asked.ask("GET", "/matrix"))
        assert "1 cell is kept, but of other conversations, or of this one as it was before" in told
        index, node = talk.responses()[0]
        row = MemoryScore("dog", 2.0, "full", (ResponseDivergence(index, node, 2.0, 2.0, 0.5),))
        page.run(Store(page.settings.store).record_row(row, "toy", conversation=talk.id))
        told = words(asked.ask("GET", "/matrix"))
        assert "1 cell is not shown: of other conversations, or of this one as it was" in told
