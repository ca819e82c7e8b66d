"""The ledger's page: memories over rounds, unrelated answers, what the guard has refused."""

import re
from dataclasses import replace
from html import unescape

import pytest

from mindscore.measure.internalisation import LedgerEntry, MemoryVersion, RefusedRound, Round
from mindscore.store import Ledger

from .client import Client

HOSTILE = '<script>alert("1")</script>'


def entry(key, without, reworded, text_hash="h"):
    frames = {} if reworded is None else {"Remind me: {}": reworded}
    return LedgerEntry(MemoryVersion(key, text_hash), 1, key, 4, -10.0, without, frames)


BASE = Round(
    "base", "", 1e9, ((-10.0, 4),), (entry("tea", -30.0, -32.0), entry("dog", -20.0, None))
)
LATER = Round("3f0c", "/a/3f0c", 2e9, ((-10.4, 4),), (entry("tea", -12.0, -14.0),))


@pytest.fixture
def page(tables, reviewing):
    """A browser's part at a page, after ``await work(ledger)``: its text of ``/ledger``."""

    def show(work=None, query=""):
        with reviewing(tables) as served:
            if work is not None:
                served.run(work(Ledger(served.settings.store)))
            answer = Client(served).let_in().ask("GET", f"/ledger{query}")
            assert answer.status == 200
            return answer.text

    return show


def words(text):
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", text)).split())


async def _two(ledger):
    await ledger.record("toy", BASE)
    await ledger.record("toy", LATER)


def test_each_memory_has_a_row_with_its_state_and_both_totals_of_each_round(page):
    text = page(_two)
    said = words(text)
    assert "tea 1 answer internalised -10.0 -30.0 -32.0 -12.0 90 % -14.0 90 %" in said
    assert "dog 1 answer measured once -10.0 -20.0 –" in said
    assert re.search(r"base \S.* -2\.500 0\.00 none 3f0c \S.* -2\.600 0\.20 /a/3f0c", said)
    assert 'href="/memory?model=toy&amp;key=tea"' in text
    assert 'aria-current="page">Ledger</a>' in text
    assert "Refused" not in said


def test_what_the_guard_refused_is_there_with_the_reason(page):
    async def refuse(ledger):
        await _two(ledger)
        await ledger.refuse("toy", RefusedRound("bad", "/a/bad", 2e9, "from 1.3 to 1.5"))

    assert re.search(
        r"Refused by the guard .* bad \S.* from 1\.3 to 1\.5 /a/bad", words(page(refuse))
    )


def test_a_refused_round_alone_is_shown_without_tables_of_nothing(page):
    async def refuse(ledger):
        await ledger.refuse("toy", RefusedRound("bad", "/a/bad", 2e9, "why"))

    said = words(page(refuse))
    assert ("bad" in said, "Nothing was trained" in said, "With memories" in said) == (
        True,
        False,
        False,
    )


def test_an_empty_ledger_says_what_fills_it(page):
    assert "Nothing was trained yet in this namespace. mindscore train" in words(page())


def test_the_rounds_of_weights_that_were_replaced_are_chosen_by_name(page):
    async def replaced(ledger):
        await _two(ledger)
        await ledger.record("toy", replace(BASE, measured_at=3e9, entries=()), replaces=BASE)

    text = page(replaced)
    assert "3f0c" not in words(text)
    [old] = [it for it in re.findall(r'<option value="([^"]+)"', text) if it != "toy"]
    assert old.startswith("toy (before ")
    assert "No answer of these rounds depends on a memory" in words(text)


def test_names_are_text_and_not_markup(page):
    async def hostile(ledger):
        for at, hash_ in enumerate(("a1b2c3d4", "e5f6a7b8")):
            found = entry(HOSTILE, -30.0 - at, None, hash_)
            round_ = Round(HOSTILE, HOSTILE, 1e9, (), (found,))
            await ledger.record(HOSTILE, round_)
        await ledger.refuse(HOSTILE, RefusedRound("bad", HOSTILE, 2e9, HOSTILE))

    text = page(hostile)
    assert "<script>alert" not in text
    # Two texts of one key are told apart.
    assert ("(a1b2c3)" in text, "(e5f6a7)" in text) == (True, True)
