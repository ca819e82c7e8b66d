"""The page of a screened matrix: the receipt, and estimates apart from what was measured."""

import json
import re
from dataclasses import replace

import pytest

from mindhooks import MemoryStats, Outcome
from mindscore.config.settings import parse_settings
from mindscore.measure.placebo import PlaceboControl
from mindscore.measure.screening.receipt import Estimate, MissedBound, ScreenReceipt
from mindscore.report.page import render

from ..opening import opened

MEMORIES, EXACT = 5, 2


@pytest.fixture
def screened(made_up):
    """A result of which two memories are measured, two estimated and one was not looked at."""
    result = made_up(memories=MEMORIES, responses=3)
    keys = result.keys
    guessed, unseen = keys[EXACT:-1], keys[-1]
    values = ((0.9, -0.4, 0.001), (-7.25, 0.0, 0.2))
    estimates = tuple(
        Estimate(key, id_, index, nats)
        for key, row in zip(guessed, values, strict=True)
        for (index, id_), nats in zip(result.transcript.responses(), row, strict=True)
    )
    receipt = ScreenReceipt(
        "groups",
        exact=keys[:EXACT],
        sampled=keys[:1],
        estimated=guessed,
        not_looked_at=(unseen,),
        estimates=estimates,
        spent_tokens=1200,
        exact_tokens=9000,
        error_median=0.02,
        error_p95=0.3,
        rank_correlation=0.9,
        missed=(MissedBound(1.0, 1, 0, 3, 2), MissedBound(3.0, 1, 0, 3, 1)),
        together=1.5,
        remarks=("many memories matter",),
    )
    status = [*["scored"] * EXACT, *["estimated"] * len(guessed), "left-out"]
    outcomes = {key: Outcome(it) for key, it in zip(keys, status, strict=True)}
    return replace(
        result,
        scores={key: it for key, it in result.scores.items() if key in receipt.exact},
        stats=MemoryStats(outcomes, 9, 1200, None, 1.5),
        screen=receipt,
        estimates=estimates,
        estimates_error=0.3,
    )


def embedded(page):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1]
    )


def test_the_page_says_what_is_exact_and_what_is_estimated(screened):
    page = " ".join(re.sub("<[^>]*>", " ", render(screened, parse_settings({}))).split())
    for line in (
        "Screen (groups): 2 of 5 memories measured, 1 of them drawn at random; 2 estimated (≈), 1",
        "1,200 tokens sent, 13% of the 9,000 that measuring every memory takes: 7,800 saved",
        "half of the estimates are within 0.02 nats, 95 % within 0.30; their ranks correlate",
        "of the 2 that were only estimated at most 2 do more than 1 nat and at most 1 does more",
        "all 2 that were only estimated change a response by up to 1.50 nats: it is less likely",
        "many memories matter",
    ):
        assert line in page


def test_estimates_are_in_no_ranking_and_no_measured_row(screened):
    data = embedded(render(screened, parse_settings({})))
    rows = [it["key"] for it in data["memories"]]
    assert set(rows[:EXACT]) == set(screened.screen.exact)
    # The largest estimate first, and what was not looked at last.
    assert rows[EXACT:] == [screened.keys[3], screened.keys[2], screened.keys[4]]
    assert all(None not in row for row in data["signed"][:EXACT])
    assert all(set(row) == {None} for row in data["signed"][EXACT:])
    assert data["estimates"][EXACT:] == [[-7.25, 0.0, 0.2], [0.9, -0.4, 0.001], [None] * 3]
    assert [it["estimate"] for it in data["memories"]] == [None, None, -7.25, 0.9, None]
    assert data["estimates_error"] == 0.3


def test_without_a_screen_nothing_is_said_of_one(made_up):
    page = render(made_up(), parse_settings({}))
    assert embedded(page)["estimates"] is None
    for words in ("What was measured, and what was estimated", 'value="estimated"', "≈ are"):
        assert words not in page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_a_person_sees_which_values_are_estimates(browser, write_report, screened, scheme, width):
    with opened(browser, write_report(screened), width=width, color_scheme=scheme) as it:
        assert it.script("document.documentElement.scrollWidth") <= width
        assert "estimated, not measured" in it.texts(".matrix-legend > span")
        it.page.locator("#matrix [role=grid]").focus()
        it.page.keyboard.press("Control+Home")
        for _ in range(EXACT):
            it.page.keyboard.press("ArrowDown")
        told = it.page.text_content("#matrix .matrix-details")
        assert told.startswith(
            "≈ -7.25 nats: estimated, not measured95 % of the estimates are within"
        )
        it.page.keyboard.press("ArrowRight")
        it.page.keyboard.press("ArrowRight")
        told = it.page.text_content("#matrix .matrix-details")
        assert told.startswith("≈ +0.20 nats: estimated, not measured, within ±0.30 nats")
        it.page.select_option("#effect", "estimated")
        assert it.page.locator("#ranking tbody tr:visible").count() == 2
        assert "≈ -7.25 on #1: estimated by the screen" in " ".join(it.texts("#ranking tbody tr"))
        assert it.wrong == []


def test_the_page_is_accessible(browser, write_report, screened, axe_source):
    with opened(browser, write_report(screened)) as it:
        assert it.serious(axe_source) == []


def test_the_place_is_named_beside_the_noise(browser, write_report, made_up):
    result = made_up(memories=2, responses=2)
    ids = [id_ for _, id_ in result.transcript.responses()]
    control = PlaceboControl(result.keys[:1], {ids[0]: 0.42, ids[1]: 0.05})
    with opened(browser, write_report(replace(result, placebo=control))) as it:
        it.page.locator("#matrix [role=grid]").focus()
        it.page.keyboard.press("Control+Home")
        told = it.page.text_content("#matrix .matrix-details")
        assert "an unrelated text in a memory's place: up to 0.42 nats" in told
        assert "what an unrelated text in a memory's place does" in it.page.text_content("main")
        assert "1 place tried" in it.page.text_content(".facts")
        assert it.wrong == []
