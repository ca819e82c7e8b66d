"""The page of a comparison as people meet it: by eye, on a phone, hostile, very long."""

from dataclasses import replace

import pytest
from tests.cases import mostly_slow

from mindhooks import MemoryStats
from mindscore.measure.comparison import ComparedEffect, ComparedResponse, Comparison, Parting
from mindscore.report.comparison_page import MOST_OPEN, MOST_RESPONSES, comparison_page

from ..opening import opened
from .test_browser import WIDTHS
from .test_hostile import PAYLOADS, does_nothing


def compared(count=9, text="said", key="k", other="another", remarks=("a remark",), talks=1):
    responses, effects = [], []
    for at in range(count):
        talk = f"{text} {at % talks}"
        before = f"{text} {at}"
        said = f"{before} and so on. " * 6
        parts = Parting(2, (-1.0, -4.0), before, " and")
        shift = 0.001 if at == 1 else at - 3.5
        fields = {"limit": 0.01, "parts_at": None if at == 2 else parts}
        if at == 0:
            fields["other_text"] = f"{said} {text}"
        pair = (-60.0, -60.0 + shift)
        it = ComparedResponse(at, f"{text} {at}", talk, said, pair, (-80.0, -65.0), **fields)
        responses.append(it)
        for number in range(6):
            did = (9.0 + at - number, 1.0) if number < 2 else (0.2, 0.2 + 0.02 * (-1) ** at)
            effects.append(ComparedEffect(f"{key} {number}", talk, at, it.node_id, did, 0.05))
    return Comparison.of(f"{text} model", other, "nats", responses, effects, remarks)


@pytest.fixture
def written(made_up, tmp_path):
    """Writes the page of a comparison: ``written(comparison)`` is its file."""

    def write(comparison, **fields):
        stats = MemoryStats({}, 4, 99, None, 1.5)
        result = made_up("score", memories=1, responses=1)
        result = replace(result, command="compare", stats=stats, comparison=comparison, **fields)
        file = tmp_path / "page.html"
        file.write_text(comparison_page(result), encoding="utf-8", errors="replace")
        return file

    return write


@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_clean_and_open_to_everybody(browser, axe_source, screenshots, written, width):
    wide, high = WIDTHS[width]
    with opened(browser, written(compared()), wide, high) as it:
        for scheme in ("light", "dark"):
            it.page.emulate_media(color_scheme=scheme)
            it.page.screenshot(
                path=screenshots / f"report-comparison-{width}-{scheme}.png", full_page=True
            )
            assert it.script("document.documentElement.scrollWidth") == wide
            assert it.serious(axe_source) == []
        assert it.wrong == []


def test_both_models_stand_side_by_side(browser, written):
    with opened(browser, written(compared())) as it:
        assert it.texts(".pair thead th")[1:3] == ["said model", "another"]
        assert it.texts("article mark")[:2] == ["and", "and"]
        assert it.page.locator("article").first.locator(".diff-side").count() == 2
        assert "within noise" in it.texts("article h3")[1]
        assert it.texts("#memories tbody th")[0].startswith("k ")
        assert it.texts("#memories .less")[0] == "less"
        assert any("a remark" in text for text in it.texts("li"))


def test_marks_are_round_and_heads_whole_on_a_narrow_phone(browser, written):
    with opened(browser, written(compared()), 360, 800) as it:
        last = it.page.locator(".pair").first.locator("thead th").last
        assert last.inner_text() == "difference"
        lines = last.evaluate(
            "it => { const all = document.createRange(); all.selectNodeContents(it);"
            " return all.getClientRects().length; }"
        )
        assert lines == 1
    with opened(browser, written(compared())) as it:
        for mark in ("first", "other"):
            box = it.page.locator(f".shift .{mark}").first.bounding_box()
            assert box["width"] == pytest.approx(box["height"], rel=0.1)


@pytest.mark.parametrize("text", mostly_slow(PAYLOADS, "quotes", "script end", "template", "json"))
def test_whatever_is_said_is_shown_as_it_is_and_does_nothing(browser, written, text):
    page = written(compared(3, text, text, text, (text,)), error=text)
    with opened(browser, page) as it:
        does_nothing(it)
        assert text.split("\u2028")[0].split()[0] in it.texts("h1")[0]


def test_very_many_responses_are_cut_to_those_that_differ_most(written):
    page = written(compared(MOST_RESPONSES + 40, talks=7)).read_text()
    assert page.count("<article") == MOST_RESPONSES
    assert f"{MOST_RESPONSES - MOST_OPEN} more" in page
    assert f"Of {MOST_RESPONSES + 40} responses, the {MOST_RESPONSES} that differ most" in page


def test_a_comparison_that_failed_says_so(written):
    page = written(None, error="no model answered").read_text()
    assert "Nothing was compared" in page
    assert "no model answered" in page
