"""An archive's memories as the pages show them: groups, orders, pictures on one scale."""

import re
from dataclasses import replace

import pytest

from mindscore.measure.archive_advice import Period
from mindscore.measure.summaries import Interval
from mindscore.measure.verdicts import Verdict
from mindscore.pages.archive import (
    BAR_WIDTH,
    ORDERS,
    TIME_HEIGHT,
    TIME_WIDTH,
    ArchiveCards,
    groups,
    ordered,
)

from ..archives import BEGUN, RESPONSES, WEEK_S, made_archive

DROP, MERGE, KEEP = Verdict.DROP, Verdict.MERGE, Verdict.KEEP


def changed(archive, at, **evidence):
    """The archive with other evidence on one memory."""
    its = list(archive.advice)
    its[at] = replace(its[at], evidence=replace(its[at].evidence, **evidence))
    return replace(archive, advice=tuple(its))


def test_each_verdict_has_a_group_that_says_what_its_memories_cost():
    archive = made_archive(40, receipt=False)
    found = {it.verdict: it for it in groups(archive)}
    assert set(found) == set(Verdict)
    assert {it.number for it in found.values()} == {8}
    # Each has 40 tokens and is in the context of half of the responses.
    assert found[DROP].tokens == found[MERGE].tokens == 8 * 20
    assert found[KEEP].tokens is None
    assert found[DROP].unknown == found[DROP].kept == 0


def test_what_is_to_be_kept_after_all_saves_nothing():
    archive = made_archive(40)
    found = {it.verdict: it for it in groups(archive)}
    assert (found[DROP].number, found[DROP].kept, found[DROP].tokens) == (8, 1, 7 * 20)
    assert (found[MERGE].kept, found[MERGE].tokens) == (0, 8 * 20)
    cards = ArchiveCards(archive, 100)
    kept = [it.key for it in archive.advice if cards.card(it).is_kept]
    assert kept == list(archive.receipt.kept)


def test_what_has_no_length_is_counted_and_in_no_sum():
    archive = made_archive(10, receipt=False)
    version = replace(archive.advice[1].evidence.version, tokens=None)
    assert archive.advice[1].verdict is DROP
    archive = changed(archive, 1, version=version)
    found = {it.verdict: it for it in groups(archive)}
    assert (found[DROP].tokens, found[DROP].unknown) == (20, 1)


@pytest.mark.parametrize("order", ORDERS)
def test_what_has_no_value_comes_last_in_any_order(order):
    archive = changed(made_archive(10), 3, last_helped=None)
    value = ORDERS[order][1]
    for descending in (False, True):
        found = [value(it) for it in ordered(archive.advice, order, descending)]
        known = [it for it in found if it is not None]
        assert found == [*sorted(known, reverse=descending), *[None] * (10 - len(known))]


def test_all_bars_are_on_one_scale():
    archive = made_archive(2)
    archive = changed(archive, 0, nats=-10.0, responses=10, interval=Interval(-2.0, 0.0))
    archive = changed(archive, 1, nats=40.0, responses=10, interval=Interval(2.0, 6.0))
    cards = ArchiveCards(archive, 100)
    low, high = (cards.card(it).bar for it in archive.advice)
    # From -20 to 60 nats.
    assert low.zero == high.zero == BAR_WIDTH / 4
    assert (low.low, low.at, low.high) == (0.0, BAR_WIDTH / 8, BAR_WIDTH / 4)
    assert (high.low, high.at, high.high) == (BAR_WIDTH / 2, BAR_WIDTH * 3 / 4, BAR_WIDTH)


def test_a_value_without_an_interval_is_a_point():
    archive = changed(made_archive(1), 0, interval=None)
    bar = ArchiveCards(archive, 100).card(archive.advice[0]).bar
    assert (bar.low, bar.high) == (None, None)


def bars(path):
    """The bars of a path: where each begins, and how high it is; down is negative."""
    return [
        (float(x), float(height)) for x, height in re.findall(r"M([\d.]+) [\d.]+v(-?[\d.]+)h", path)
    ]


def test_small_multiples_share_their_time_and_their_scale():
    archive = made_archive(2)
    one, other = (it.key for it in archive.advice)
    timeline = {
        one: (Period(BEGUN, 5, 2, 0, 30.0), Period(BEGUN + WEEK_S, 5, 0, 1, -15.0)),
        other: (Period(BEGUN + 3 * WEEK_S, 5, 1, 0, 15.0), Period(BEGUN + WEEK_S, 5, 0, 0, 0.0)),
    }
    archive = replace(archive, timeline=timeline)
    first, second = (ArchiveCards(archive, 9).card(it).line for it in archive.advice)
    tall = TIME_HEIGHT - 2
    assert bars(first.helped) == [(0.0, pytest.approx(-tall * 2 / 3))]
    assert bars(first.harmed) == [(TIME_WIDTH / 4, pytest.approx(tall / 3))]
    assert bars(second.helped) == [(TIME_WIDTH * 3 / 4, pytest.approx(-tall / 3))]
    # Where it was judged and did nothing, there is a line and no bar.
    assert second.judged.count("M") == 2
    assert first.words == (
        "+15.0 nats over 2 weeks from 2026-09-21, the most in the week of 2026-09-21: +30.0, "
        "2 responses of 5 helped, 0 harmed"
    )


def test_a_memory_that_was_judged_at_no_known_time_has_no_picture():
    archive = replace(made_archive(1), timeline={})
    assert ArchiveCards(archive, 9).card(archive.advice[0]).line is None


def test_long_texts_are_cut_and_those_not_kept_are_none():
    archive = made_archive(1, text="é" * 50)
    card = ArchiveCards(archive, 20).card(archive.advice[0])
    assert card.text == "é" * 20 + "…"
    version = replace(archive.advice[0].evidence.version, text=None)
    archive = replace(changed(archive, 0, version=version), texts={})
    assert ArchiveCards(archive, 20).card(archive.advice[0]).text is None


def test_harm_that_is_not_named_has_no_place():
    archive = made_archive(5)
    harmful = archive.of(Verdict.HARMFUL)[0]
    [(_, known), (_, unknown)] = ArchiveCards(archive, 20).card(harmful).worst
    assert known.entry_idx == 7
    assert unknown is None
    assert archive.tokens_a_turn(harmful) == 40 * RESPONSES / 2 / RESPONSES
