"""The archive's page: advice is made once for each state of the store, and no page waits for it."""

import asyncio
import logging
import re
import threading

import pytest

from mindhooks import MemoryScore, ResponseDivergence
from mindscore._util.errors import StoreError
from mindscore._util.text import moment_text
from mindscore.review import archive as archive_page
from mindscore.review.archive import MOST_ROWS
from mindscore.store import Store

from ..archive.archives import SCORED_AT, Archive, chance
from ..archives import made_archive
from .client import Client
from .conftest import PATIENCE_S
from .test_reading import measure, words


class Adviser:
    """Stands in for the arithmetic: ``asked`` are the models, and it waits until it may go on."""

    def __init__(self, memories=250):
        self.asked = []
        self.made = 0
        self.error = None
        self.memories = memories
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    async def __call__(self, settings, model=None):
        self.asked.append(model)
        assert self.may_go_on.wait(PATIENCE_S)
        if self.error:
            raise self.error
        self.made += 1
        found = made_archive(self.memories, text="tea", receipt=False, model=model or "toy")
        return found, None


@pytest.fixture
def adviser(monkeypatch):
    """The adviser of 250 memories."""
    found = Adviser()
    monkeypatch.setattr(archive_page, "archive_advice", found)
    # However busy the machine is: what may go on is waited for.
    monkeypatch.setattr(archive_page, "PATIENCE_S", PATIENCE_S)
    yield found
    found.may_go_on.set()


@pytest.fixture
def client(tables, reviewing, adviser):
    """A browser's part at a page whose advice is that of ``adviser``."""
    with reviewing(tables) as page:
        yield Client(page).let_in()


def keys(answer):
    """The numbers of the memories that a page lists, in order."""
    return [int(it) for it in re.findall(r'<th scope="row"><a[^>]*>tea (\d+)</a>', answer.text)]


def test_evidence_of_a_real_store_is_advised_on(filled, reviewing, monkeypatch):
    monkeypatch.setattr(archive_page, "PATIENCE_S", PATIENCE_S)
    with reviewing(filled) as page:
        client = Client(page).let_in()
        answer = client.ask("GET", "/archive")
    assert answer.status == 200
    said = words(answer)
    assert "5 responses in 1 conversation, measured with toy" in said
    for key in ("tea", "dog", "office", "piano"):
        assert f">{key}</a>" in answer.text
    assert "Nora drinks rooibos tea in the evening" in said
    assert "4 keep are missed without them" in said


def test_the_last_receipt_is_shown_and_said_to_be_stale_once_the_drops_differ(
    tables, reviewing, monkeypatch, tmp_path
):
    monkeypatch.setattr(archive_page, "PATIENCE_S", PATIENCE_S)
    archive = Archive(tmp_path, 36)
    asyncio.run(archive.plant(chance))
    with reviewing({**tables, "store": archive.tables["store"]}) as page:
        client = Client(page).let_in()
        assert "Receipt" not in words(client.ask("GET", "/archive"))
        # The page finds it without newer evidence.
        receipt = asyncio.run(archive.receipt())
        said = words(client.ask("GET", "/archive"))
        assert f"Dropping these {len(receipt.last.keys)}" in said
        assert f"Verified {moment_text(receipt.verified_at)}" in said
        assert f"{len(receipt.kept)} to be kept: see the receipt" in said
        assert "other drops" not in said
        for path in ("/archive?find=idle", "/archive?verdict=drop"):
            assert "Dropping these" not in words(client.ask("GET", path))
        key = receipt.last.keys[0]
        asyncio.run(
            archive.plant(lambda it, *_: 9.0 * (it == key) or 0.01, scored_at=SCORED_AT + 9)
        )
        said = words(client.ask("GET", "/archive"))
        assert "It is of other drops than are proposed now: 1 memory is not proposed any" in said
        assert "to be kept: see the receipt" not in said


def test_an_empty_store_says_how_to_fill_it(tables, reviewing, monkeypatch):
    monkeypatch.setattr(archive_page, "PATIENCE_S", PATIENCE_S)
    with reviewing(tables) as page:
        said = words(Client(page).let_in().ask("GET", "/archive"))
    assert "mindscore score PATH --full" in said


def test_advice_is_made_once_as_long_as_the_store_stays_as_it_is(client, adviser):
    for path in ("/archive", "/archive?sort=key", "/archive?page=2", "/archive?model=nobody"):
        assert len(keys(client.ask("GET", path))) == MOST_ROWS
    assert adviser.asked == [None]
    measure(client.page, "tea", (1.0, 0.1))
    assert len(keys(client.ask("GET", "/archive"))) == MOST_ROWS
    client.ask("GET", "/archive")
    assert adviser.asked == [None, None]


def test_until_it_is_there_the_page_says_so_and_looks_again(client, adviser, monkeypatch):
    monkeypatch.setattr(archive_page, "PATIENCE_S", 0.0)
    adviser.may_go_on.clear()
    for _ in range(3):
        answer = client.ask("GET", "/archive")
        assert "is being computed" in words(answer)
        assert int(answer.headers["Refresh"]) >= 1
    adviser.may_go_on.set()
    answer = eventually(client, lambda it: "Refresh" not in it.headers)
    assert len(keys(answer)) == MOST_ROWS
    assert adviser.asked == [None]


def eventually(client, is_so, path="/archive"):
    """The first answer that is as it should be."""
    for _ in range(1000):
        answer = client.ask("GET", path)
        if is_so(answer):
            return answer
        threading.Event().wait(0.02)
    raise AssertionError(words(answer))


def test_while_it_is_made_anew_the_last_is_shown(client, adviser, monkeypatch):
    assert "newer evidence" not in words(client.ask("GET", "/archive"))
    monkeypatch.setattr(archive_page, "PATIENCE_S", 0.0)
    adviser.may_go_on.clear()
    measure(client.page, "tea", (1.0, 0.1))
    for _ in range(2):
        answer = client.ask("GET", "/archive")
        assert len(keys(answer)) == MOST_ROWS
        assert "There is newer evidence" in words(answer)
    # What comes in the meantime is not in it, and is seen afterwards.
    measure(client.page, "dog", (1.0, 0.1))
    adviser.may_go_on.set()
    eventually(client, lambda it: "newer evidence" not in words(it))
    assert adviser.asked == [None] * 3


def test_other_pages_do_not_wait_for_it(client, adviser, monkeypatch):
    monkeypatch.setattr(archive_page, "PATIENCE_S", 0.0)
    adviser.may_go_on.clear()
    client.ask("GET", "/archive")
    assert client.ask("GET", "/runs").status == 200
    assert not adviser.may_go_on.is_set()
    adviser.may_go_on.set()


def test_what_fails_is_said_and_tried_again(client, adviser):
    adviser.error = StoreError("the store is away")
    answer = client.ask("GET", "/archive")
    assert (answer.status, "the store is away" in words(answer)) == (500, True)
    adviser.error = None
    assert len(keys(client.ask("GET", "/archive"))) == MOST_ROWS


def test_a_page_that_is_closed_meanwhile_leaves_nothing_behind(
    tables, reviewing, adviser, monkeypatch, caplog
):
    monkeypatch.setattr(archive_page, "PATIENCE_S", 0.0)
    adviser.may_go_on.clear()
    with caplog.at_level(logging.WARNING), reviewing(tables) as page:
        Client(page).let_in().ask("GET", "/archive")
        threading.Timer(0.2, adviser.may_go_on.set).start()
    assert adviser.made == 1
    assert caplog.messages == []


def test_each_model_has_advice_of_its_own(client, adviser):
    score(client.page, "tea", "toy")
    score(client.page, "tea", "other")
    assert "<select" in client.ask("GET", "/archive").text
    assert "measured with other" in words(client.ask("GET", "/archive?model=other"))
    assert "measured with toy" in words(client.ask("GET", "/archive?model=toy"))
    assert "measured with other" in words(client.ask("GET", "/archive?model=other"))
    assert adviser.asked == [None, "other"]


def score(page, key, model):
    """Measure a row of one cell."""
    row = (ResponseDivergence(1, "n", 1.0, 1.0, 0.1),)
    store = Store(page.settings.store)
    page.run(store.record_row(MemoryScore(key, 1.0, "full", row), model))


def test_memories_are_paged_sorted_found_and_grouped(client):
    last = client.ask("GET", "/archive?sort=key&page=3")
    assert len(keys(last)) == 50
    assert "250 memories: 201 to 250" in words(last)
    assert ('rel="prev"' in last.text, 'rel="next"' in last.text) == (True, False)
    found = client.ask("GET", "/archive?find=TEA+24&sort=key")
    assert sorted(keys(found)) == [24, *range(240, 250)]
    assert "11 memories with “ TEA 24 ”" in words(found)
    harmful = client.ask("GET", "/archive?verdict=harmful&find=tea+24")
    assert sorted(keys(harmful)) == [240, 245]
    assert "No memory is like that" in words(client.ask("GET", "/archive?find=nobody"))
    nonsense = "/archive?verdict=%3Cb%3E&sort=%3Cb%3E&page=-1&at=%3Cb%3E"
    assert "No memory is like that" in words(client.ask("GET", nonsense))


def test_a_link_to_another_memory_leads_to_its_page_and_row(client):
    answer = client.ask("GET", "/archive?verdict=merge")
    link, row, key = re.search(
        r'<a class="key" href="(/archive[^"#]*)#(m\d+)">tea (\d+)</a>', answer.text
    ).groups()
    there = client.ask("GET", link.replace("&amp;", "&"))
    assert int(key) in keys(there)
    assert f'id="{row}"' in there.text
